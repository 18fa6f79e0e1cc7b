import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { OperatorError } from '../../src/errors.js';
import { ensureCertificates } from '../../src/pki/certificates.js';
import { loadServerPair } from '../../src/pki/inspect.js';
import { certificatePem } from '../../src/pki/issue.js';
import { inspectFolder } from '../../src/pki/overview.js';
import { doUpkeep, renewNow } from '../../src/pki/renewal.js';
import { finishRotation, type RotateOptions, rotateAuthority } from '../../src/pki/rotation.js';
import { certificateFields, notAfter, readPemCertificates } from '../../src/pki/x509.js';
import { forge } from '../support/forge.js';
import { clientOf } from '../support/tls-client.js';

const DAY = 86_400_000;
/** Certificates begin an hour before they are made: what is made after this time is valid now. */
const HALF_AN_HOUR = 1_800_000;

let root: string;
let dir: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'rotation-'));
  dir = join(root, 'certs');
});
afterEach(() => rmSync(root, { recursive: true }));

const read = (name: string, folder = dir) => readFileSync(join(folder, name), 'utf8');
const files = (folder = dir) => readdirSync(folder).sort();
const ensure = (more: object = {}) => ensureCertificates({ dir, names: ['192.168.0.12', 'localhost'], ...more });
const rotate = (more: Partial<RotateOptions> = {}) => rotateAuthority({ dir, names: [], overlap: 30 * DAY, ...more });
const namesOf = (folder = dir) => certificateFields(readPemCertificates(read('domain.crt', folder))[0]!).names;
const refused = async (task: Promise<unknown>, message: RegExp, fix: RegExp) =>
  assert.rejects(task, (error: OperatorError) => {
    assert.ok(error instanceof OperatorError, String(error));
    assert.match(error.message, message);
    assert.match(error.fix ?? '', fix);
    return true;
  });

test('during a rotation clients with the old authority, the new one or both go on; after it only with the new one', async () => {
  await ensure();
  const old = read('ca.crt');
  const report = await rotate();
  const both = read('ca.crt');
  const [successor, retiring] = readPemCertificates(both);
  assert.equal(certificatePem(retiring!), old);
  assert.deepEqual(
    [report.authority.fingerprint, report.retiring.fingerprint],
    [successor, retiring].map(one => one!.fingerprint256),
  );
  const fresh = certificatePem(successor!);
  for (const ca of [old, fresh, both])
    for (const host of ['192.168.0.12', 'localhost']) assert.equal(await clientOf(dir, ca, host), undefined);
  assert.match((await clientOf(dir, old, '192.168.0.13')) ?? '', /not in the cert's list/);

  const [leaf, cross] = readPemCertificates(read('domain.crt'));
  assert.ok(leaf!.checkIssued(successor!) && cross!.checkIssued(retiring!));
  assert.equal(certificateFields(cross!).pathLength, 0);
  assert.equal(certificateFields(successor!).pathLength, 1, 'it can be followed itself one day');
  assert.equal(notAfter(cross!).getTime(), report.until.getTime());
  assert.deepEqual(certificateFields(successor!).nameConstraints, certificateFields(retiring!).nameConstraints);
  assert.deepEqual(JSON.parse(read('rotation.json')), { until: report.until.toISOString(), names: [] });
  assert.deepEqual(
    (await loadServerPair({ certificate: join(dir, 'domain.crt'), key: join(dir, 'domain.key') })).warnings,
    [],
  );
  assert.deepEqual((await inspectFolder(dir)).problems, []);

  await finishRotation({ dir });
  assert.equal(read('ca.crt'), fresh);
  assert.deepEqual(
    files().filter(file => !/\d{8}T/.test(file)),
    ['ca.crt', 'ca.key', 'domain.crt', 'domain.key'],
  );
  for (const ca of [fresh, both]) assert.equal(await clientOf(dir, ca, '192.168.0.12'), undefined);
  assert.match((await clientOf(dir, old, '192.168.0.12')) ?? '', /unable to verify the first certificate/);
  await refused(finishRotation({ dir }), /no rotation runs/, /rotate-ca/);
});

test('what is kept of the old authority is a 0600 copy, and is needed for nothing', async () => {
  await ensure();
  const before = [read('ca.crt'), read('ca.key')];
  const now = new Date();
  const { copies } = await rotate({ now });
  const date = now.toISOString().replace(/[-:]|\.\d+/g, '');
  assert.deepEqual(copies, [join(dir, `ca.crt.${date}`), join(dir, `ca.key.${date}`)]);
  assert.deepEqual(
    copies.map(copy => readFileSync(copy, 'utf8')),
    before,
  );
  for (const key of [copies[1]!, join(dir, 'ca.key')]) assert.equal(statSync(key).mode & 0o777, 0o600);
  for (const copy of copies) rmSync(copy);
  assert.deepEqual((await renewNow({ dir, names: ['reg.lan'] })).names[0], 'reg.lan');
  assert.equal(readPemCertificates(read('domain.crt')).length, 2, 'a renewal in between keeps the cross certificate');
  assert.equal(await clientOf(dir, before[0]!, 'reg.lan'), undefined);
  await finishRotation({ dir });
});

test('names that only the new authority permits wait for the end of the overlap, which comes by itself', async () => {
  await ensure();
  const old = read('ca.crt');
  const report = await rotate({ names: ['reg.example.com', '203.0.113.7', 'reg.lan'], overlap: HALF_AN_HOUR });
  assert.deepEqual(report.waiting, ['reg.example.com', '203.0.113.7']);
  assert.deepEqual(namesOf(), ['reg.lan', '192.168.0.12', 'localhost']);
  assert.equal(await clientOf(dir, old, 'reg.lan'), undefined);
  const again = await ensure({ names: ['192.168.0.12', 'reg.example.com'] });
  assert.equal(again.server.action, 'reused');
  assert.match(again.warnings.join(), /reg\.example\.com will be in the certificate when the rotation ends/);
  await refused(
    ensure({ names: ['www.example.org'] }),
    /www\.example\.org cannot be .*before the rotation ends/,
    /--finish/,
  );
  assert.equal(await doUpkeep({ dir, now: new Date(report.until.getTime() - 1000) }), undefined);
  assert.equal(await doUpkeep({ dir, now: report.until }), 'finish');
  assert.deepEqual(namesOf(), ['reg.lan', '192.168.0.12', 'localhost', 'reg.example.com', '203.0.113.7']);
  for (const host of ['reg.example.com', 'reg.lan']) assert.equal(await clientOf(dir, read('ca.crt'), host), undefined);
});

test('asked for at once, they break clients of the old authority and no others', async () => {
  await ensure();
  const old = read('ca.crt');
  const { waiting, breaking } = await rotate({ names: ['reg.example.com'], namesNow: true });
  assert.deepEqual([waiting, breaking], [[], ['reg.example.com']]);
  assert.equal(await clientOf(dir, read('ca.crt'), 'reg.example.com'), undefined);
  assert.equal(await clientOf(dir, old, '192.168.0.12'), 'permitted subtree violation');
});

test('the end of the overlap needs no key where no name waits, and leaves all as it is where one does', async () => {
  await ensure();
  const { until } = await rotate({ names: ['reg.example.com'] });
  rmSync(join(dir, 'ca.key'));
  const before = read('domain.crt');
  await refused(doUpkeep({ dir, now: until }), /ca\.key is missing/, /certs csr here/);
  const served = await ensureCertificates({ dir, names: [], machineNames: ['localhost'], now: until });
  assert.match(served.warnings.join(), /was not renewed: .*ca\.key is missing/);
  assert.equal(read('domain.crt'), before);
  writeFileSync(join(dir, 'rotation.json'), '{"names": []}');
  assert.equal(await doUpkeep({ dir, now: until }), 'finish');
  assert.equal(read('domain.crt'), before.slice(0, read('domain.crt').length), 'the same, without what followed it');
  assert.equal(readPemCertificates(read('ca.crt')).length, 1);
});

test('a second rotation, no authority, one that may sign for none below it, one that is over: refused, nothing changed', async () => {
  await refused(rotate(), /no certificate authority/, /init-certs/);
  await ensure();
  await rotate();
  const before = files().map(file => read(file));
  await refused(rotate(), /^a rotation runs until \d{4}-/, /--finish/);
  assert.deepEqual(
    files().map(file => read(file)),
    before,
  );

  for (const [wish, message] of [
    [{ authority: 0 }, /path length is 0/],
    [{ authority: 1, to: 2 }, /expired on/],
  ] as const) {
    const theirs = join(root, `theirs-${wish.authority}`);
    await ensureCertificates({ dir: theirs, names: ['192.168.0.12'] });
    const ca = forge({ commonName: 'Their CA', ...wish });
    const leaf = forge({ issuer: ca, names: ['192.168.0.12'], to: 1 });
    writeFileSync(join(theirs, 'ca.crt'), certificatePem(ca.certificate));
    writeFileSync(join(theirs, 'ca.key'), ca.key.export({ type: 'pkcs8', format: 'pem' }));
    writeFileSync(join(theirs, 'domain.crt'), certificatePem(leaf.certificate));
    writeFileSync(join(theirs, 'domain.key'), leaf.key.export({ type: 'pkcs8', format: 'pem' }));
    const now = new Date(Date.now() + ('to' in wish ? 3 * DAY : 0));
    await refused(rotate({ dir: theirs, now }), message, /init-certs --out .*install its ca\.crt on every client/);
    assert.deepEqual(files(theirs), ['ca.crt', 'ca.key', 'domain.crt', 'domain.key']);
  }
});

test('a dry run makes all and writes nothing', async () => {
  await ensure();
  const [before, { mtimeMs }] = [files().map(file => read(file)), statSync(dir)];
  const report = await rotate({ names: ['reg.example.com'], dryRun: true });
  assert.deepEqual([report.waiting, report.copies], [['reg.example.com'], []]);
  assert.deepEqual([files().map(file => read(file)), statSync(dir).mtimeMs], [before, mtimeMs]);
});

test('the overlap ends with the old authority at the latest, and that is said', async () => {
  await ensure({ caDays: 10 });
  const { until, warnings } = await rotate({ overlap: 30 * DAY });
  assert.equal(until.getTime(), notAfter(readPemCertificates(read('ca.crt'))[1]!).getTime());
  assert.match(warnings.join(), /shorter than asked/);
});

test('an encrypted key is followed by one under the same passphrase; a wrong one changes nothing', async () => {
  const passphrase = async () => 'correct horse';
  await ensure({ encryptWith: passphrase });
  assert.match(read('ca.key'), /^-----BEGIN ENCRYPTED PRIVATE KEY-----/);
  const before = files().map(file => read(file));
  await refused(rotate(), /ca\.key is encrypted/, /--passphrase-file FILE.*REGISTRY_SECURE_CA_PASSPHRASE_FILE/);
  await refused(rotate({ passphrase: async () => 'wrong' }), /the passphrase does not open .*ca\.key/, /right one/);
  assert.deepEqual(
    files().map(file => read(file)),
    before,
  );
  await rotate({ passphrase });
  assert.match(read('ca.key'), /^-----BEGIN ENCRYPTED PRIVATE KEY-----/);
  assert.equal((await renewNow({ dir, names: [], passphrase })).names.length, 2);
});

test('several processes that find the same renewal due do it once', async () => {
  const now = new Date(Date.now() + 300 * DAY);
  await ensure();
  const done = await Promise.all(Array.from({ length: 4 }, () => doUpkeep({ dir, now })));
  assert.deepEqual(done.filter(Boolean), ['renew']);
  assert.deepEqual(namesOf(), ['192.168.0.12', 'localhost']);
  assert.equal(new X509Certificate(read('domain.crt')).publicKey.asymmetricKeyType, 'ec');
});
