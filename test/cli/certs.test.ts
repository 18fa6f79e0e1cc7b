import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type Command, CommanderError } from 'commander';
import { createProgram } from '../../src/cli/index.js';
import { OperatorError } from '../../src/errors.js';
import { ensureCertificates } from '../../src/pki/certificates.js';
import { certificatePem } from '../../src/pki/issue.js';
import { readPemCertificates } from '../../src/pki/x509.js';
import { forge } from '../support/forge.js';
import { LocalRegistry } from '../support/local-registry.js';

const program = fileURLToPath(new URL('../../../bin/registry-secure.js', import.meta.url));
const DAY = 86_400_000;

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'certs-command-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

function run(args: string[], env: Record<string, string> = {}) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [program, ...args], {
    cwd: dir,
    encoding: 'utf8',
    env: { PATH: process.env.PATH, ...env },
  });
  return { status, stdout, stderr };
}

function must(args: string[], env?: Record<string, string>): string {
  const { status, stdout, stderr } = run(args, env);
  assert.equal(status, 0, `${args.join(' ')}: ${stderr}`);
  return stdout;
}

function refused(args: string[], message: RegExp, env?: Record<string, string>): void {
  const { status, stderr } = run(args, env);
  assert.notEqual(status, 0, args.join(' '));
  assert.match(stderr, message);
  assert.doesNotMatch(stderr, /\n {4}at /);
}

/** The same without a process of its own, for the many. */
async function refusedHere(args: readonly string[], message: RegExp): Promise<void> {
  const here = await createProgram();
  const silence = (command: Command): void => {
    command.configureOutput({ writeErr: () => undefined });
    command.commands.forEach(silence);
  };
  silence(here);
  const folder = args[1] === 'nonsense' ? [] : ['--dir', dir];
  await assert.rejects(here.parseAsync([...args, ...folder], { from: 'user' }), (error: unknown) => {
    assert.ok(error instanceof OperatorError || error instanceof CommanderError, String(error));
    assert.match(`${error.message}; ${error instanceof OperatorError ? error.fix : ''}`, message);
    return true;
  });
}

const path = (name: string) => join(dir, 'certs', name);
const read = (name: string) => readFileSync(path(name), 'utf8');
const write = (name: string, content: string | Buffer) => {
  writeFileSync(join(dir, name), content, { mode: 0o600 });
  return name;
};

test('serve renews its certificate by itself, and takes over what commands make, without a restart', async t => {
  const names = ['127.0.0.1', 'localhost', '::1'];
  await ensureCertificates({ dir: join(dir, 'certs'), names, now: new Date(Date.now() - 300 * DAY) });
  const [agedKey, aged] = [read('domain.key'), read('domain.crt')];
  const old = readFileSync(path('ca.crt'));
  const registry = await LocalRegistry.start(dir, ['up', '--ip', '127.0.0.1']);
  t.after(() => registry.stop());
  const served = () =>
    registry.until(async () => {
      let serial = '';
      await registry.call('GET', '/healthz', { ca: old, onPeer: peer => (serial = peer.serialNumber) });
      return serial === new X509Certificate(read('domain.crt')).serialNumber;
    });
  assert.notEqual(read('domain.crt'), aged, 'one that is due at the start is renewed before it is served');
  await served();

  // Two thirds of its life are over: it is taken over, and then at once the next one.
  writeFileSync(path('domain.key'), agedKey);
  writeFileSync(path('domain.crt'), aged);
  await registry.until(() =>
    /level=info msg="renewed the server certificate" names="127\.0\.0\.1, localhost, ::1" until=/.test(registry.stderr),
  );
  assert.notEqual(read('domain.crt'), aged);
  await served();

  for (let round = 0; round < 2; round++) {
    must(['certs', 'renew']);
    await served();
  }
  assert.match(
    must(['certs', 'renew', '--dns', 'reg.lan', '--key', 'ec-p384', '--days', '30']),
    /ec-p384, until .*\n {2}names reg\.lan, 127\.0\.0\.1/,
  );
  await served();
  assert.match(
    must(['certs', 'rotate-ca', '--overlap', '1d']),
    /the rotation has begun[\s\S]*is not needed any more\. .*shred -u/,
  );
  await served();
  assert.equal((await registry.call('GET', '/healthz')).status, 200, 'with both authorities');
  must(['certs', 'rotate-ca', '--finish']);
  await registry.until(() =>
    registry.call('GET', '/healthz').then(
      () => true,
      () => false,
    ),
  );
  await registry.until(() =>
    registry.call('GET', '/healthz', { ca: old }).then(
      () => false,
      (error: Error) => /verif/.test(error.message),
    ),
  );
  assert.doesNotMatch(registry.stderr, /level=error/);
});

test('where the key is missing, serve says at its start how the certificate gets renewed', async t => {
  must(['init-certs', '--ip', '127.0.0.1']);
  rmSync(path('ca.key'));
  const registry = await LocalRegistry.start(dir, ['up', '--ip', '127.0.0.1']);
  t.after(() => registry.stop());
  await registry.until(() =>
    /will not be renewed by itself: .*ca\.key is missing.*certs csr here, certs sign there, certs import here/.test(
      registry.stderr,
    ),
  );
  assert.equal((await registry.call('GET', '/healthz')).status, 200);
});

test('inspect shows the authority with its constraints, the server, the rotation and the renewal, and exits 1 when something is wrong', () => {
  must(['init-certs', '--ip', '192.168.0.12']);
  const shown = must(['certs', 'inspect']);
  assert.match(shown, /^ {2}signs for {3}local, internal, lan, home\.arpa, localhost, 10\.0\.0\.0\/8, /m);
  assert.match(shown, /^ {2}names {7}192\.168\.0\.12, localhost/m);
  const { validFrom, validTo } = new X509Certificate(read('domain.crt'));
  const [first, last] = [Date.parse(validFrom), Date.parse(validTo)];
  const renewal = new Date(first + ((last - first) * 2) / 3);
  assert.equal(Math.round((renewal.getTime() - Date.now()) / DAY), Math.round((397 * 2) / 3));
  assert.match(shown, new RegExp(`^Renewal {7}by serve, on ${renewal.toISOString().slice(0, 10)}$`, 'm'));
  must(['certs', 'rotate-ca', '--dns', 'reg.example.com']);
  const json = JSON.parse(must(['certs', 'inspect', '--json']));
  assert.equal(json.authority.nameConstraints.permitted.at(-1), 'reg.example.com');
  assert.deepEqual([json.rotation.waiting, json.chain.length, json.problems], [['reg.example.com'], 2, []]);
  assert.match(must(['certs', 'inspect']), /^Rotation .*\n[\s\S]*^ {2}then also {3}reg\.example\.com$/m);

  assert.match(must(['certs', 'inspect', path('domain.crt'), path('ca.crt')]), /domain\.crt\n[\s\S]*\n\n.*ca\.crt\n/);
  const wrong = write('wrong.crt', certificatePem(forge({ names: ['DNS:192.168.0.12'] }).certificate));
  refused(['certs', 'inspect', wrong], /one thing is wrong/);
  assert.match(
    run(['certs', 'inspect', wrong]).stdout,
    /^error: the address 192\.168\.0\.12 stands in it as a DNS name.*IP:192\.168\.0\.12/m,
  );
  writeFileSync(path('ca.key'), read('domain.key'));
  refused(['certs', 'inspect'], /wrong/);
  assert.match(run(['certs', 'inspect']).stdout, /^error: .*ca\.key does not belong to .*ca\.crt/m);
});

test('a name outside of the constraints leads to rotate-ca, and the command that the error gives does it', () => {
  must(['init-certs', '--ip', '192.168.0.12']);
  const { stderr } = run(['certs', 'renew', '--dns', 'reg.example.com']);
  const [, command] = /registry-secure (certs rotate-ca --dns reg\.example\.com)/.exec(stderr) ?? assert.fail(stderr);
  assert.match(must(command!.split(' ')), /when the overlap ends also reg\.example\.com/);
  refused(['certs', 'rotate-ca'], /a rotation runs until .*; end it first: registry-secure certs rotate-ca --finish$/m);
  assert.match(must(['certs', 'rotate-ca', '--finish']), /new reg\.example\.com/);
  assert.ok(new X509Certificate(read('domain.crt')).checkHost('reg.example.com'));
  const now = run(['certs', 'rotate-ca', '--dns', 'reg.example.org', '--names-now']);
  assert.match(
    now.stderr,
    /warning: the certificate has reg\.example\.org: clients that have only the old authority refuse all of it/,
  );
  assert.ok(new X509Certificate(read('domain.crt')).checkHost('reg.example.org'));
});

test('export: one file for each authority, a bundle, DER, standard output; nothing of others is replaced', () => {
  must(['init-certs', '--ip', '192.168.0.12']);
  must(['certs', 'rotate-ca']);
  must(['certs', 'export', '--out', 'out']);
  const [fresh, old] = readPemCertificates(read('ca.crt'));
  const name = (one: X509Certificate, end: string) =>
    `registry-secure-ca-${one.fingerprint256.replaceAll(':', '').slice(0, 8).toLowerCase()}.${end}`;
  assert.deepEqual(readdirSync(join(dir, 'out')).sort(), [name(fresh!, 'crt'), name(old!, 'crt')].sort());
  assert.equal(readFileSync(join(dir, 'out', name(old!, 'crt')), 'utf8'), certificatePem(old!));
  must(['certs', 'export', '--out', 'out', '--format', 'der']);
  assert.deepEqual(readFileSync(join(dir, 'out', name(fresh!, 'cer'))), fresh!.raw);
  must(['certs', 'export', '--out', 'out', '--format', 'bundle']);
  assert.equal(readFileSync(join(dir, 'out', 'ca-bundle.crt'), 'utf8'), read('ca.crt'));
  assert.equal(must(['certs', 'export', '--out', '-']), read('ca.crt'));
  refused(['certs', 'export', '--out', '-', '--format', 'der'], /two authorities/);
  writeFileSync(join(dir, 'out', name(fresh!, 'crt')), 'theirs');
  refused(['certs', 'export', '--out', 'out'], /is something else/);
  assert.equal(readFileSync(join(dir, 'out', name(fresh!, 'crt')), 'utf8'), 'theirs');
});

test('csr, sign and import carry a server whose authority is elsewhere', () => {
  must(['init-certs', '--ip', '192.168.0.12', '--out', 'vault']);
  assert.match(
    must(['certs', 'csr', '--ip', '192.168.0.12']),
    /domain\.key {2}created[\s\S]*domain\.csr[\s\S]*names 192\.168\.0\.12, localhost/,
  );
  copyFileSync(path('domain.csr'), join(dir, 'domain.csr'));
  assert.match(
    must(['certs', 'sign', '--certs', 'vault', 'domain.csr']),
    /domain\.signed\.crt {2}signed[\s\S]*names 192\.168\.0\.12, localhost/,
  );
  refused(
    ['certs', 'sign', '--certs', 'vault', 'domain.csr'],
    /is there already; remove it, or give another path with --out/,
  );
  assert.match(must(['certs', 'sign', '--certs', 'vault', 'domain.csr', '--out', '-']), /^-----BEGIN CERTIFICATE-----/);
  assert.match(
    must(['certs', 'import', 'domain.signed.crt']),
    /installed[\s\S]*ca\.crt {2}what clients install, SHA-256/,
  );
  assert.match(
    must(['certs', 'inspect']),
    /^Renewal {7}by hand, .*certs csr here, certs sign where ca\.key is, certs import here$/m,
  );
  refused(['certs', 'renew'], /ca\.key is missing.*certs csr here/);
  refused(['certs', 'rotate-ca'], /ca\.key is missing/);
});

test('the passphrase of the key: from the first byte, changed, removed; in no argument, log or file', async t => {
  const [first, second] = ['correct horse battery', 'staple of another'];
  write('one', `${first}\n`);
  write('two', `${second}\n`);
  must(['init-certs', '--ip', '127.0.0.1', '--passphrase-file', 'one']);
  assert.match(read('ca.key'), /^-----BEGIN ENCRYPTED PRIVATE KEY-----/);
  assert.equal(statSync(path('ca.key')).mode & 0o777, 0o600);
  assert.ok(createPrivateKey({ key: read('ca.key'), passphrase: first }));
  refused(['certs', 'renew'], /ca\.key is encrypted, and there is no passphrase for it; give --passphrase-file FILE/);
  refused(['certs', 'renew', '--passphrase-file', 'two'], /the passphrase does not open .*ca\.key; give the right one/);
  refused(['certs', 'renew', '--passphrase-file', 'none'], /none does not exist; give the path/);
  refused(['certs', 'renew', '--passphrase-file', write('empty', '\n')], /empty is empty/);
  must(['certs', 'renew', '--passphrase-file', 'one']);
  must(['certs', 'renew'], { REGISTRY_SECURE_CA_PASSPHRASE_FILE: join(dir, 'one') });

  const before = read('ca.key');
  refused(['certs', 'passphrase', '--passphrase-file', 'two', '--new-passphrase-file', 'one'], /does not open/);
  refused(['certs', 'passphrase', '--passphrase-file', 'one'], /no terminal to ask for a new passphrase/);
  assert.equal(read('ca.key'), before);
  must(['certs', 'passphrase', '--passphrase-file', 'one', '--new-passphrase-file', 'two']);
  assert.ok(createPrivateKey({ key: read('ca.key'), passphrase: second }));

  const registry = await LocalRegistry.start(dir, [
    'up',
    '--ip',
    '127.0.0.1',
    '--dns',
    'reg.lan',
    '--passphrase-file',
    'two',
  ]);
  t.after(() => registry.stop());
  await registry.until(() => /good for {4}(127\.0\.0\.1, )?reg\.lan/.test(registry.stdout));
  assert.doesNotMatch(registry.stderr, /will not be renewed/);
  assert.ok(!(registry.stdout + registry.stderr).includes(second));

  must(['certs', 'passphrase', '--passphrase-file', 'two', '--remove']);
  assert.match(read('ca.key'), /^-----BEGIN PRIVATE KEY-----/);
  assert.equal(statSync(path('ca.key')).mode & 0o777, 0o600);
  refused(['certs', 'passphrase', '--remove'], /ca\.key is not encrypted/);
  assert.match(
    run(['init-certs', '--ip', '127.0.0.1', '--passphrase-file', 'one']).stderr,
    /stays in the clear; .*certs passphrase/,
  );
});

test('a new passphrase is asked for on a terminal, twice and unseen', {
  skip: spawnSync('script', ['--version']).status !== 0,
}, () => {
  const typed = (command: string, input: string) =>
    spawnSync('script', ['-qec', `${process.execPath} ${program} ${command}`, '/dev/null'], {
      cwd: dir,
      input,
      encoding: 'utf8',
    });
  const made = typed('init-certs --ip 192.168.0.12 --encrypt-key', 'correct horse\ncorrect horse\n');
  assert.equal(made.status, 0, made.stdout);
  assert.match(made.stdout, /New passphrase of ca\.key: /);
  assert.ok(createPrivateKey({ key: read('ca.key'), passphrase: 'correct horse' }));
  assert.equal(typed('certs renew', 'correct horse\n').status, 0);
  const wrong = typed('certs renew', 'wrong\n');
  assert.equal(wrong.status, 1);
  assert.match(wrong.stdout, /does not open/);
});

test('bad input: a clear error with the way out, and nothing is changed', async () => {
  const names = Array.from({ length: 10_000 }, (_, at) => `h${at}.lan`).join();
  for (const [args, message] of [
    [['certs', 'renew'], /there is no certificate in .*; make one: registry-secure init-certs/],
    [['certs', 'rotate-ca'], /there is no certificate authority in .*init-certs/],
    [['certs', 'rotate-ca', '--finish'], /no rotation runs/],
    [['certs', 'inspect'], /there are no certificates in .*init-certs/],
    [['certs', 'export'], /ca\.crt does not exist/],
    [['certs', 'sign', 'nowhere.csr'], /nowhere\.csr does not exist/],
    [['certs', 'import', 'nowhere.crt'], /nowhere\.crt does not exist/],
    [['certs', 'passphrase', '--remove'], /there is no certificate authority/],
    [['certs', 'csr', '--dns', names], /10003 names is too large/],
  ] as const)
    await refusedHere([...args], message);
  assert.deepEqual(existsSync(path('.')) ? readdirSync(path('.')) : [], [], 'at most an empty folder was made');

  must(['init-certs', '--ip', '192.168.0.12']);
  const before = readdirSync(join(dir, 'certs')).map(read);
  for (const [args, message] of [
    [['certs', 'renew', '--ip', 'fe80::1%eth0'], /zone id/],
    [['certs', 'renew', '--ip', '192.168.0.012'], /octal/],
    [['certs', 'renew', '--dns', '*.*.lan'], /wildcard/],
    [['certs', 'renew', '--dns', '0x7f000001.lan.'], /dot at the end/],
    [['certs', 'renew', '--dns', names], /10004 names is too large/],
    [['certs', 'renew', '--days', '826'], /Apple/],
    [['certs', 'renew', '--ip', '8.8.8.8'], /may not sign for 8\.8\.8\.8.*certs rotate-ca --ip 8\.8\.8\.8/],
    [['certs', 'rotate-ca', '--overlap', '30'], /such as 30d/],
    [['certs', 'rotate-ca', '--overlap', '99999d'], /ten years/],
    [['certs', 'rotate-ca', '--finish', '--dns', 'a.lan'], /cannot be used with/],
    [['certs', 'rotate-ca', '--finish', '--overlap', '1d'], /cannot be used with/],
    [['certs', 'rotate-ca', '--dns', names], /names is too large/],
    [['certs', 'import', path('ca.crt')], /none of the certificates in .* is for .*domain\.key/],
    [['certs', 'nonsense'], /unknown command/],
  ] as const)
    await refusedHere([...args], message);
  assert.deepEqual(readdirSync(join(dir, 'certs')).map(read), before);

  const spoiled = async (file: string, content: string, args: string[], message: RegExp) => {
    const whole = read(file);
    writeFileSync(path(file), content);
    const state = readdirSync(join(dir, 'certs')).map(read);
    await refusedHere(args, message);
    assert.deepEqual(readdirSync(join(dir, 'certs')).map(read), state);
    writeFileSync(path(file), whole);
  };
  const expired = forge({ commonName: 'registry-secure CA old', authority: 1, from: -20, to: -10 });
  const foreign = forge({ issuer: expired, names: ['192.168.0.12'] });
  for (const command of ['renew', 'rotate-ca']) {
    await spoiled('ca.key', read('domain.key'), ['certs', command], /ca\.key does not belong to .*ca\.crt/);
    await spoiled('ca.key', 'nonsense', ['certs', command], /ca\.key holds no PEM private key/);
    await spoiled('ca.crt', 'nonsense', ['certs', command], /ca\.crt holds no PEM certificate/);
    await spoiled('domain.key', read('ca.key'), ['certs', command], /domain\.key does not belong to .*domain\.crt/);
    await spoiled(
      'ca.crt',
      certificatePem(expired.certificate),
      ['certs', command],
      /domain\.crt is not of (an|the) authority/,
    );
  }
  writeFileSync(path('ca.crt'), certificatePem(expired.certificate));
  writeFileSync(path('ca.key'), expired.key.export({ type: 'pkcs8', format: 'pem' }));
  writeFileSync(path('domain.crt'), certificatePem(foreign.certificate));
  writeFileSync(path('domain.key'), foreign.key.export({ type: 'pkcs8', format: 'pem' }));
  await refusedHere(['certs', 'renew'], /the certificate authority expired on/);
  await refusedHere(['certs', 'rotate-ca'], /ca\.crt expired on .*fresh folder/);
});
