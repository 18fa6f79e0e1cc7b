import assert from 'node:assert/strict';
import { fork, spawn } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { OperatorError } from '../../src/errors.js';
import { withLock } from '../../src/lock.js';
import {
  type CertificateOptions,
  ensureCertificates,
  PublishedKeyError,
  readTrustAnchor,
} from '../../src/pki/certificates.js';
import { loadServerPair } from '../../src/pki/inspect.js';
import { generateKey } from '../../src/pki/keys.js';
import { basicConstraints, signCertificate, subjectAlternativeName, subjectName } from '../../src/pki/x509.js';
import { followAnchor } from '../../src/server/anchor.js';
import { selfSigned } from '../support/pair.js';

let dir: string;
beforeEach(() => {
  dir = join(mkdtempSync(join(tmpdir(), 'certs-')), 'certs');
});
afterEach(() => rmSync(join(dir, '..'), { recursive: true }));

const at = (name: string) => join(dir, name);
const read = (name: string) => readFileSync(at(name), 'utf8');
const modeOf = (name: string) => (statSync(at(name)).mode & 0o777).toString(8);
const files = () => readdirSync(dir).sort();
const ensure = (options: Partial<CertificateOptions> = {}) =>
  ensureCertificates({ dir, names: ['192.168.0.12'], ...options });

/** What the old recipe made with openssl: a certificate signed by its own key, alone in the folder. */
async function oldRecipe(names: readonly string[]): Promise<void> {
  const key = await generateKey('ec-p256');
  const subject = subjectName('192.168.0.12');
  const [start, end] = [new Date(Date.now() - 86_400_000), new Date(Date.now() + 100 * 86_400_000)];
  const content = { subject, publicKey: key, notBefore: start, notAfter: end };
  const extensions = [basicConstraints(0), subjectAlternativeName(names)];
  mkdirSync(dir);
  writeFileSync(at('domain.crt'), signCertificate({ ...content, extensions }, { name: subject, key }));
  writeFileSync(at('domain.key'), key.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
}

test('an empty folder gets an authority and a server certificate', async () => {
  const made = await ensure({ machineNames: ['localhost', '127.0.0.1'] });
  assert.deepEqual(files(), ['ca.crt', 'ca.key', 'domain.crt', 'domain.key']);
  assert.equal(made.authority?.action, 'created');
  assert.equal(made.server.action, 'created');
  assert.deepEqual(made.server.names, ['192.168.0.12', 'localhost', '127.0.0.1']);
  const ca = new X509Certificate(read('ca.crt'));
  assert.equal(made.anchor?.path, at('ca.crt'));
  assert.equal(made.anchor?.fingerprint, ca.fingerprint256);
  assert.match(made.anchor?.fingerprint ?? '', /^([0-9A-F]{2}:){31}[0-9A-F]{2}$/);
  assert.deepEqual([made.warnings, made.missing], [[], []]);
  assert.equal(new X509Certificate(read('domain.crt')).verify(ca.publicKey), true);
  assert.deepEqual((await loadServerPair(made.server)).names, made.server.names);
});

test('with names that are there, nothing is written, so that the folder may be mounted read-only', async () => {
  await ensure();
  const before = files().map(read);
  const { mtimeMs } = statSync(dir);
  const again = await ensure();
  assert.equal(statSync(dir).mtimeMs, mtimeMs, 'not even a lock was made');
  assert.deepEqual([again.authority?.action, again.server.action], ['reused', 'reused']);
  assert.deepEqual(files().map(read), before);
});

test('a new name means a new server certificate of the same authority, with the old names kept', async () => {
  const first = await ensure({ days: 30 });
  const authority = [read('ca.crt'), read('ca.key')];
  const second = await ensure({ names: ['reg.lan'] });
  assert.equal(second.server.action, 'reissued');
  assert.deepEqual(second.server.names, ['reg.lan', '192.168.0.12']);
  assert.deepEqual([read('ca.crt'), read('ca.key')], authority);
  assert.equal(second.anchor?.fingerprint, first.anchor?.fingerprint);
  assert.deepEqual(files(), ['ca.crt', 'ca.key', 'domain.crt', 'domain.key'], 'no copies without force');
  const third = await ensure({ names: ['reg.lan'], machineNames: ['10.0.0.7'] });
  assert.deepEqual(third.server.names, ['reg.lan', '192.168.0.12', '10.0.0.7'], 'what the machine has comes last');
});

test('a name that a wildcard covers is not missing', async () => {
  await ensure({ names: ['*.apps.lan'] });
  assert.equal((await ensure({ names: ['reg.apps.lan'] })).server.action, 'reused');
});

test('asked to reissue, it does, with the names and the kind of key that were there', async () => {
  const first = await ensure({ keyKind: 'ec-p384' });
  const before = read('domain.crt');
  const again = await ensure({ names: [], reissue: true });
  assert.equal(again.server.action, 'reissued');
  assert.notEqual(read('domain.crt'), before);
  assert.deepEqual(again.server.names, first.server.names);
  assert.equal(again.server.keyKind, 'ec-p384');
});

test('force issues anew for the given names alone, keeps copies, and never touches the authority', async () => {
  await ensure({ names: ['192.168.0.12', 'old.lan'] });
  const before = { ca: read('ca.crt'), caKey: read('ca.key'), crt: read('domain.crt'), key: read('domain.key') };
  const now = new Date();
  const forced = await ensure({ names: ['192.168.0.13'], force: true, now });
  assert.deepEqual(forced.server.names, ['192.168.0.13']);
  assert.deepEqual([read('ca.crt'), read('ca.key')], [before.ca, before.caKey]);
  const date = now.toISOString().replace(/[-:]|\.\d+/g, '');
  assert.deepEqual(forced.server.copies, [at(`domain.crt.${date}`), at(`domain.key.${date}`)]);
  assert.deepEqual([read(`domain.crt.${date}`), read(`domain.key.${date}`)], [before.crt, before.key]);
  assert.equal(modeOf(`domain.key.${date}`), '600');
  // A second time in the same second, and without names: those that are there.
  const again = await ensure({ names: [], force: true, now });
  assert.deepEqual(again.server.names, ['192.168.0.13']);
  assert.deepEqual(again.server.copies, [at(`domain.crt.${date}-2`), at(`domain.key.${date}-2`)]);
});

test('keys are 0600 and certificates readable, whatever the umask', async () => {
  const before = process.umask(0);
  try {
    await ensure();
    await ensure({ force: true, now: new Date() });
  } finally {
    process.umask(before);
  }
  for (const file of files()) assert.equal(modeOf(file), file.includes('.key') ? '600' : '644', file);
});

test('a key is never readable by others, not for a moment', async () => {
  // A second process without any umask writes; this one looks at the folder all the while.
  mkdirSync(dir);
  const module = JSON.stringify(new URL('../../src/pki/certificates.js', import.meta.url).href);
  const script = `process.umask(0);
    const { ensureCertificates } = await import(${module});
    for (let n = 0; n < 15; n++) await ensureCertificates({ dir: ${JSON.stringify(dir)}, names: ['10.0.0.1'], reissue: true });`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  const seen = new Set<string>();
  let looks = 0;
  const exit = once(child, 'exit');
  while (child.exitCode === null) {
    for (const file of readdirSync(dir))
      if (/\.key/.test(file)) {
        const stats = statSync(at(file), { throwIfNoEntry: false });
        if (stats) seen.add((stats.mode & 0o777).toString(8));
      }
    looks++;
    await new Promise(setImmediate);
  }
  assert.deepEqual(await exit, [0, null]);
  assert.ok(looks > 10);
  assert.deepEqual([...seen], ['600']);
});

test('processes that start at once agree on one authority and one pair', async () => {
  const script = join(dir, '..', 'ensure.mjs');
  const module = JSON.stringify(new URL('../../src/pki/certificates.js', import.meta.url).href);
  writeFileSync(
    script,
    `import { ensureCertificates } from ${module};
    process.once('message', async name => {
      const { anchor, server } = await ensureCertificates({ dir: ${JSON.stringify(dir)}, names: [name] });
      process.send({ fingerprint: anchor.fingerprint, names: server.names }, () => process.disconnect());
    });
    process.send('ready');`,
  );
  const children = Array.from({ length: 4 }, () => fork(script, []));
  await Promise.all(children.map(child => once(child, 'message')));
  const answers = children.map(child => once(child, 'message'));
  for (const [index, child] of children.entries()) child.send(`10.0.0.${index + 1}`);
  const results = (await Promise.all(answers)).map(([result]) => result as { fingerprint: string; names: string[] });
  assert.equal(new Set(results.map(result => result.fingerprint)).size, 1);
  const pair = await loadServerPair({ certificate: at('domain.crt'), key: at('domain.key') });
  assert.deepEqual([...pair.names].sort(), ['10.0.0.1', '10.0.0.2', '10.0.0.3', '10.0.0.4']);
  assert.deepEqual(files(), ['ca.crt', 'ca.key', 'domain.crt', 'domain.key']);
});

test('what only looks broken because another process is in the middle of it is no error', async () => {
  const before = await ensure();
  const waiting = await withLock(at('.lock'), async () => {
    renameSync(at('ca.crt'), at('away'));
    const second = ensure();
    // It has looked at the folder when it stands in the queue, which it does once the first look has failed.
    await new Promise(resolve => setTimeout(resolve, 50));
    renameSync(at('away'), at('ca.crt'));
    return { second };
  });
  assert.equal((await waiting.second).anchor?.fingerprint, before.anchor?.fingerprint);
});

/** A second pair of the same authority, and the folder put back to the first one. */
async function twoPairs() {
  await ensure();
  const old = { crt: read('domain.crt'), key: read('domain.key') };
  await ensure({ names: ['reg.lan'] });
  const fresh = { crt: read('domain.crt'), key: read('domain.key') };
  writeFileSync(at('domain.crt'), old.crt);
  writeFileSync(at('domain.key'), old.key);
  return { old, fresh };
}

test('a crash before anything was moved leaves the old pair, and its leftovers go away', async () => {
  const { old, fresh } = await twoPairs();
  writeFileSync(at('.domain.key.new'), fresh.key, { mode: 0o600 });
  writeFileSync(at('.domain.crt.new'), fresh.crt.slice(0, 100));
  assert.equal((await ensure()).server.action, 'reused');
  assert.deepEqual([read('domain.crt'), read('domain.key')], [old.crt, old.key]);
  assert.deepEqual(files(), ['ca.crt', 'ca.key', 'domain.crt', 'domain.key']);
});

test('a crash between the two moves is healed to the new pair', async () => {
  const { fresh } = await twoPairs();
  writeFileSync(at('domain.key'), fresh.key);
  writeFileSync(at('.domain.crt.new'), fresh.crt);
  writeFileSync(at('.changes'), JSON.stringify({ move: ['domain.key', 'domain.crt'], remove: [] }));
  await assert.rejects(loadServerPair({ certificate: at('domain.crt'), key: at('domain.key') }), /does not belong/);
  const healed = await ensure();
  assert.deepEqual([...healed.server.names].sort(), ['192.168.0.12', 'reg.lan']);
  assert.deepEqual([read('domain.crt'), read('domain.key')], [fresh.crt, fresh.key]);
  assert.deepEqual(files(), ['ca.crt', 'ca.key', 'domain.crt', 'domain.key']);
});

test('a crash between the two moves of a new authority is healed as well', async () => {
  const { anchor } = await ensure();
  renameSync(at('ca.crt'), at('.ca.crt.new'));
  writeFileSync(at('.changes'), JSON.stringify({ move: ['ca.key', 'ca.crt'], remove: [] }));
  for (const file of ['domain.crt', 'domain.key']) unlinkSync(at(file));
  const healed = await ensure();
  assert.equal(healed.anchor?.fingerprint, anchor?.fingerprint);
  assert.deepEqual([healed.authority?.action, healed.server.action], ['reused', 'created']);
});

test('a note of changes reaches nothing outside of the folder, and no file of the machinery', async () => {
  await ensure();
  writeFileSync(at('../kept'), 'x');
  writeFileSync(at('.changes'), JSON.stringify({ move: ['../kept'], remove: ['../kept', '..', '.lock'] }));
  await ensure();
  assert.equal(read('../kept'), 'x');
  assert.deepEqual(files(), ['ca.crt', 'ca.key', 'domain.crt', 'domain.key']);
});

test("the old recipe's self-signed certificate is served as it is, and is what clients install", async () => {
  await oldRecipe(['192.168.0.12']);
  const before = read('domain.crt');
  const found = await ensure({ machineNames: ['10.0.0.9', 'localhost'] });
  assert.deepEqual(files(), ['domain.crt', 'domain.key']);
  assert.equal(found.authority, undefined);
  assert.equal(found.anchor?.path, at('domain.crt'));
  assert.deepEqual([found.server.action, found.missing], ['reused', []]);
  assert.match(found.warnings.join('\n'), /^.*signed by itself.*\n.*no extended key usage.*$/);
  assert.equal((await readTrustAnchor(at('domain.crt'))).path, at('domain.crt'));

  const lacking = await ensure({ names: ['192.168.0.12', 'reg.lan'] });
  assert.deepEqual(lacking.missing, ['reg.lan']);
  assert.match(lacking.warnings.join(), /reg\.lan.*--force/);
  assert.equal(read('domain.crt'), before);

  const forced = await ensure({ force: true });
  assert.equal(forced.anchor?.path, at('ca.crt'));
  assert.equal(readFileSync(forced.server.copies[0]!, 'utf8'), before);
});

test('a private key in the file that clients install is handed to nobody', async () => {
  await ensure();
  const [key, ca] = [read('ca.key'), read('ca.crt')];
  const anchor = await followAnchor(at('domain.crt'));
  assert.equal((await anchor())?.pem, ca);
  writeFileSync(at('ca.crt'), ca + key);
  await assert.rejects(
    readTrustAnchor(at('domain.crt')),
    error => error instanceof PublishedKeyError && !error.message.includes(key) && /of its own/.test(error.fix!),
  );
  assert.equal(await (await followAnchor(at('domain.crt')))(), undefined);

  const own = selfSigned();
  const both = at('combined.pem');
  writeFileSync(both, own.key + own.certificate);
  unlinkSync(at('ca.crt'));
  await assert.rejects(readTrustAnchor(both), PublishedKeyError);
  assert.equal(await (await followAnchor(both))(), undefined);
});

test('a certificate of a third party is served as it is, and has nothing to install', async () => {
  const elsewhere = join(dir, '..', 'elsewhere');
  await ensureCertificates({ dir: elsewhere, names: ['192.168.0.12'] });
  mkdirSync(dir);
  for (const file of ['domain.crt', 'domain.key']) copyFileSync(join(elsewhere, file), at(file));
  const found = await ensure();
  assert.deepEqual([found.server.action, found.anchor, found.warnings], ['reused', undefined, []]);
  await assert.rejects(readTrustAnchor(at('domain.crt')), /was signed by CN=registry-secure CA/);
  // Beside an authority that did not sign it, it is still not ours to replace.
  await ensureCertificates({ dir: join(dir, '..', 'third'), names: ['192.168.0.12'] });
  for (const file of ['ca.crt', 'ca.key']) copyFileSync(join(dir, '..', 'third', file), at(file));
  const beside = await ensure({ names: ['10.0.0.1'] });
  assert.deepEqual([beside.server.action, beside.missing], ['reused', ['10.0.0.1']]);
  assert.match(beside.warnings.join(), /was not signed by/);
});

test('a name outside of the name constraints is an error when given, and left out when it is only ours', async () => {
  await ensure();
  const left = await ensure({ machineNames: ['203.0.113.7', '10.0.0.7'] });
  assert.deepEqual(left.server.names, ['192.168.0.12', '10.0.0.7']);
  assert.match(left.warnings.join(), /203\.0\.113\.7/);
  const before = read('domain.crt');
  await assert.rejects(ensure({ names: ['203.0.113.7'] }), (error: OperatorError) => {
    assert.match(error.message, /203\.0\.113\.7.*name constraints/);
    assert.match(error.fix ?? '', /registry-secure certs rotate-ca --ip 203\.0\.113\.7/);
    return error instanceof OperatorError;
  });
  assert.equal(read('domain.crt'), before);
});

test('where nothing can be issued, names of the machine are no reason not to serve what is there', async () => {
  await ensure();
  const before = read('domain.crt');
  unlinkSync(at('ca.key'));
  const found = await ensure({ machineNames: ['10.0.0.7', 'localhost'] });
  assert.deepEqual([found.server.action, read('domain.crt')], ['reused', before]);
  assert.match(found.warnings.join(), /domain\.crt does not cover 10\.0\.0\.7, localhost: .*ca\.key is missing/);
  // A name that was given stays an error, and so does an empty folder.
  await assert.rejects(ensure({ names: ['reg.lan'], machineNames: ['10.0.0.7'] }), /ca\.key is missing/);
});

test('a process that is killed at any moment leaves a folder that the next one mends', async () => {
  mkdirSync(dir);
  const module = JSON.stringify(new URL('../../src/pki/certificates.js', import.meta.url).href);
  const script = `const { ensureCertificates } = await import(${module});
    console.log('ready');
    for (;;) await ensureCertificates({ dir: ${JSON.stringify(dir)}, names: ['10.0.0.1'], reissue: true });`;
  for (let round = 0; round < 6; round++) {
    if (round % 2 === 0) rmSync(dir, { recursive: true });
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(child.stdout, 'data');
    // Any moment will do; different ones find more.
    await new Promise(resolve => setTimeout(resolve, Math.random() * 25));
    child.kill('SIGKILL');
    await once(child, 'exit');
    const mended = await ensure({ names: ['10.0.0.1'] });
    assert.deepEqual((await loadServerPair(mended.server)).names, ['10.0.0.1']);
    // A lock may stay behind where nothing had to be written: whoever needs it next breaks it.
    const left = files().filter(file => !file.startsWith('.lock'));
    assert.deepEqual(left, ['ca.crt', 'ca.key', 'domain.crt', 'domain.key']);
  }
});

test('without name constraints any name will do', async () => {
  const made = await ensure({ nameConstraints: false });
  assert.equal(made.authority?.nameConstraints, undefined);
  assert.deepEqual((await ensure({ names: ['203.0.113.7'] })).server.names, ['203.0.113.7', '192.168.0.12']);
});

test('what cannot be done to an authority that is there is said', async () => {
  await ensure();
  const { warnings } = await ensure({ nameConstraints: false, keyKind: 'ec-p384', days: 30 });
  assert.match(warnings.join('\n'), /keeps its name constraints/);
  assert.match(warnings.join('\n'), /stays ec-p256.*--force/);
  assert.match(warnings.join('\n'), /stays valid for 397 days.*--force/);
});

test('half a pair, a missing or a foreign key: an error that names the file, and nothing changed', async () => {
  await ensure();
  const [caKey, crt, key] = [read('ca.key'), read('domain.crt'), read('domain.key')];
  const refused = (message: RegExp, options: Partial<CertificateOptions> = {}) =>
    assert.rejects(ensure(options), (error: OperatorError) => {
      assert.ok(error instanceof OperatorError, String(error));
      assert.match(error.message, message);
      assert.ok(error.fix);
      return true;
    });

  unlinkSync(at('domain.key'));
  await refused(/domain\.crt is there without .*domain\.key/);
  assert.ok(!existsSync(at('domain.key')));
  writeFileSync(at('domain.key'), caKey, { mode: 0o600 });
  await refused(/domain\.key does not belong to .*domain\.crt/);
  writeFileSync(at('domain.key'), key);

  unlinkSync(at('ca.key'));
  assert.equal((await ensure()).server.action, 'reused', 'a server needs no ca.key');
  await refused(/ca\.key is missing/, { names: ['new.lan'] });
  writeFileSync(at('ca.key'), key, { mode: 0o600 });
  await refused(/ca\.key does not belong to .*ca\.crt/, { names: ['new.lan'] });
  writeFileSync(at('ca.key'), caKey);

  const ca = read('ca.crt');
  writeFileSync(at('ca.crt'), 'nonsense');
  await refused(/ca\.crt holds no PEM certificate/);
  unlinkSync(at('ca.crt'));
  await refused(/ca\.key has no ca\.crt/);
  assert.equal(read('ca.key'), caKey);
  writeFileSync(at('ca.crt'), ca);
  assert.deepEqual([read('domain.crt'), (await ensure()).server.action], [crt, 'reused']);
});

test('force mends a broken pair', async () => {
  await ensure();
  writeFileSync(at('domain.crt'), 'nonsense');
  const mended = await ensure({ force: true });
  assert.equal(mended.server.action, 'reissued');
  assert.equal(readFileSync(mended.server.copies[0]!, 'utf8'), 'nonsense');
});

test('keys that others can read, and certificates that end soon, are told', async () => {
  await ensure({ days: 20, caDays: 20 });
  chmodSync(at('ca.key'), 0o644);
  const { warnings } = await ensure();
  assert.match(warnings.join('\n'), /ca\.key can be read by others \(mode 0644\); chmod 600/);
  assert.match(warnings.join('\n'), /domain\.crt expires in 19 days/);
  const later = await ensure({ now: new Date(Date.now() + 30 * 86_400_000) });
  assert.match(later.warnings.join('\n'), /domain\.crt: it expired on/);
});

test('more than 825 days, no name, a file in place of the folder: refused before anything is made', async () => {
  await assert.rejects(ensure({ days: 826 }), /Apple/);
  await assert.rejects(ensure({ names: [] }), /at least one name/);
  assert.ok(!existsSync(at('ca.crt')));
  rmSync(dir, { recursive: true, force: true });
  writeFileSync(dir, '');
  await assert.rejects(ensure(), /cannot be (made|reached)|not a folder/);
});

test('a folder that cannot be written as needed is named, with the reason of the system', async () => {
  mkdirSync(at('.domain.key.new'), { recursive: true });
  await assert.rejects(ensure(), (error: OperatorError) => {
    assert.match(error.message, /certs cannot be written \(E[A-Z]+: /);
    return error instanceof OperatorError && error.fix !== undefined;
  });
});
