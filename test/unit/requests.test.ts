import assert from 'node:assert/strict';
import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { OperatorError } from '../../src/errors.js';
import { ensureCertificates } from '../../src/pki/certificates.js';
import {
  type Der,
  decode,
  encode,
  integer,
  octetString,
  oid,
  sequence,
  set,
  tagged,
  taggedBytes,
  toPem,
} from '../../src/pki/der.js';
import { importCertificate, makeRequest, signRequestFile } from '../../src/pki/elsewhere.js';
import { certificatePem } from '../../src/pki/issue.js';
import { generateKey, publicKeyInfo, sameKey } from '../../src/pki/keys.js';
import { doUpkeep } from '../../src/pki/renewal.js';
import { readRequest, signRequest } from '../../src/pki/requests.js';
import { rotateAuthority } from '../../src/pki/rotation.js';
import {
  basicConstraints,
  certificateFields,
  readPemCertificates,
  SUBJECT_ALTERNATIVE_NAME,
  signed,
  subjectAlternativeName,
  subjectName,
} from '../../src/pki/x509.js';
import { forge, type Wish } from '../support/forge.js';
import { clientOf } from '../support/tls-client.js';

const DAY = 86_400_000;

let root: string;
/** Where the authority is, and where the server is. */
let vault: string;
let server: string;
beforeEach(async () => {
  root = mkdtempSync(join(tmpdir(), 'requests-'));
  [vault, server] = [join(root, 'vault'), join(root, 'server')];
  await ensureCertificates({ dir: vault, names: ['192.168.0.12', 'localhost', '127.0.0.1', '::1'] });
});
afterEach(() => rmSync(root, { recursive: true }));

const read = (folder: string, name: string) => readFileSync(join(folder, name), 'utf8');
const write = (name: string, content: string | Buffer) => {
  writeFileSync(join(root, name), content, { mode: 0o600 });
  return join(root, name);
};
const snapshot = (folder: string) => readdirSync(folder).map(name => [name, read(folder, name)]);
const pkcs8 = (key: KeyObject) => key.export({ type: 'pkcs8', format: 'pem' }) as string;

/** Any request at all, above all wrong ones. */
function request(key: KeyObject, extensions: readonly Der[], signer = key): string {
  const content = sequence(
    integer(0),
    subjectName('www.example.com'),
    decode(publicKeyInfo(key)),
    tagged(0, sequence(oid('1.2.840.113549.1.9.14'), set(sequence(...extensions)))),
  );
  return toPem('CERTIFICATE REQUEST', signed(content, signer));
}

const alternativeName = (...entries: Der[]) =>
  sequence(oid(SUBJECT_ALTERNATIVE_NAME), octetString(encode(sequence(...entries))));
const dns = (name: string) => taggedBytes(2, Buffer.from(name, 'latin1'));

async function refused(task: Promise<unknown>, message: RegExp): Promise<void> {
  await assert.rejects(task, (error: OperatorError) => {
    assert.ok(error instanceof OperatorError, String(error));
    assert.match(error.message, message);
    assert.ok(error.fix, 'it says how to mend it');
    return true;
  });
}

test('a server without the key of its authority: csr, sign, import, and again at the renewal', async () => {
  const asked = await makeRequest({ dir: server, names: ['192.168.0.12'], machineNames: ['10.0.0.9'] });
  assert.deepEqual(asked.names, ['192.168.0.12', 'localhost', '127.0.0.1', '::1']);
  assert.deepEqual(readdirSync(server).sort(), ['domain.csr', 'domain.key']);
  assert.equal(statSync(join(server, 'domain.key')).mode & 0o777, 0o600);
  await refused(ensureCertificates({ dir: server, names: ['192.168.0.12'] }), /domain\.key waits for its certificate/);

  const signing = await signRequestFile({ dir: vault, request: asked.request, days: 60 });
  assert.deepEqual(signing.names, asked.names);
  const imported = await importCertificate({ dir: server, files: [write('signed.crt', signing.pem)] });
  assert.deepEqual([imported.names, imported.copies, imported.warnings], [asked.names, [], []]);
  assert.equal(read(server, 'ca.crt'), read(vault, 'ca.crt'));
  assert.equal(readPemCertificates(read(server, 'domain.crt')).length, 1, 'the root is not served');
  assert.equal(await clientOf(server, read(vault, 'ca.crt'), '192.168.0.12'), undefined);
  assert.deepEqual((await ensureCertificates({ dir: server, names: ['192.168.0.12'] })).warnings, []);

  const key = read(server, 'domain.key');
  const again = await makeRequest({ dir: server, names: ['reg.lan'], machineNames: [] });
  assert.deepEqual([again.keyAction, again.names], ['reused', ['reg.lan', ...asked.names]]);
  assert.equal(read(server, 'domain.key'), key);
  const renewed = await signRequestFile({ dir: vault, request: again.request });
  const second = await importCertificate({ dir: server, files: [write('renewed.crt', renewed.pem)] });
  assert.equal(second.names[0], 'reg.lan');
  assert.equal(second.copies.length, 1, 'the certificate that was replaced');
  await refused(makeRequest({ dir: server, names: [], machineNames: [], keyKind: 'rsa-2048' }), /it is ec-p256/);
});

test('a rotation where the authority is reaches a server elsewhere, and ends there by itself', async () => {
  const { request } = await makeRequest({ dir: server, names: ['192.168.0.12'], machineNames: [] });
  const old = read(vault, 'ca.crt');
  const now = new Date();
  const { until } = await rotateAuthority({ dir: vault, names: [], overlap: DAY, now });
  const { pem } = await signRequestFile({ dir: vault, request });
  await importCertificate({ dir: server, files: [write('signed.crt', pem)] });
  const both = read(vault, 'ca.crt');
  assert.equal(read(server, 'ca.crt'), both);
  for (const ca of [old, both, certificatePem(readPemCertificates(both)[0]!)])
    assert.equal(await clientOf(server, ca, '192.168.0.12'), undefined);
  assert.equal(await doUpkeep({ dir: server, now: until }), 'finish');
  assert.equal(readPemCertificates(read(server, 'ca.crt')).length, 1);
  assert.ok(!readdirSync(server).includes('ca.cross.crt'));
});

test('nothing but the names is taken over from a request', async () => {
  const key = await generateKey('ec-p256');
  const csr = request(key, [basicConstraints(1), subjectAlternativeName(['reg.lan'])]);
  const { pem } = await signRequestFile({ dir: vault, request: write('a.csr', csr) });
  const [leaf] = readPemCertificates(pem);
  assert.equal(leaf!.ca, false);
  assert.deepEqual(certificateFields(leaf!).names, ['reg.lan'], 'nor its common name');
  assert.equal(leaf!.subject, 'CN=registry-secure server');
  assert.ok(sameKey(leaf!.publicKey, key));
});

test('requests that must not be signed', async () => {
  const key = await generateKey('ec-p256');
  const other = await generateKey('ec-p256');
  const san = (...names: string[]) => request(key, [subjectAlternativeName(names)]);
  const good = san('reg.lan');
  const body = Buffer.from(good.replace(/-----.*-----|\n/g, ''), 'base64');
  const flipped = Buffer.from(body);
  flipped[flipped.length - 5]! ^= 1;
  const { privateKey: small } = generateKeyPairSync('rsa', { modulusLength: 1024 });
  const before = snapshot(vault);
  for (const [csr, message] of [
    ['nonsense', /holds no PEM certificate request/],
    [read(vault, 'ca.crt'), /holds no PEM certificate request/],
    [good + good, /more than one certificate request/],
    [toPem('CERTIFICATE REQUEST', Buffer.from('0102', 'hex')), /cannot be read/],
    [toPem('CERTIFICATE REQUEST', body.subarray(0, 100)), /cannot be read/],
    [toPem('CERTIFICATE REQUEST', flipped), /is not signed by the key that it is for/],
    [request(key, [subjectAlternativeName(['reg.lan'])], other), /is not signed by the key that it is for/],
    [request(key, []), /asks for no name/],
    [request(small, [subjectAlternativeName(['reg.lan'])]), /kind rsa-1024, which clients refuse/],
    [san('google.com'), /may not sign for google\.com/],
    [san('reg.lan', '8.8.8.8'), /may not sign for 8\.8\.8\.8/],
    [san('*.*.lan'), /a wildcard stands only for the whole left-most label/],
    [san('*.lan'), /a wildcard over a single label/],
    [request(key, [alternativeName(dns('fe80::1%eth0'))]), /fe80::1%eth0.* it is an IP address/],
    [request(key, [alternativeName(dns('192.168.0.12'))]), /it is an IP address/],
    [request(key, [alternativeName(dns('b\xfccher.lan'))]), /is written xn--bcher-kva\.lan in certificates/],
    [request(key, [alternativeName(dns('reg.lan\0.evil'))]), /empty or has a space/],
    [
      request(key, [alternativeName(dns('reg.lan'), taggedBytes(1, Buffer.from('a@reg.lan')))]),
      /neither DNS name nor IP/,
    ],
    [request(key, [alternativeName(taggedBytes(7, Buffer.alloc(5)))]), /neither DNS name nor IP/],
    [san(...Array.from({ length: 10_000 }, (_, at) => `h${at}.lan`)), /10000 names is too large/],
  ] as const)
    await refused(signRequestFile({ dir: vault, request: write('bad.csr', csr) }), message);
  assert.deepEqual(snapshot(vault), before);
  assert.deepEqual(readRequest('good', Buffer.from(good)).names, ['reg.lan']);
  assert.throws(() => signRequest(key, []), /at least one name/);
});

test('what must not be taken in: nothing is changed', async () => {
  const { request: csr } = await makeRequest({ dir: server, names: ['192.168.0.12'], machineNames: [] });
  const { pem } = await signRequestFile({ dir: vault, request: csr });
  await importCertificate({ dir: server, files: [write('signed.crt', pem)] });
  const before = snapshot(server);
  const company = forge({ commonName: 'Company CA', authority: 0 });
  const wrong = (wish: Wish, issuer = company) => {
    const leaf = forge({ issuer, names: ['reg.example.com'], ...wish });
    write('their.key', pkcs8(leaf.key));
    return write('their.crt', certificatePem(leaf.certificate) + certificatePem(issuer.certificate));
  };
  const key = join(root, 'their.key');
  const take = (file: string, more: object = {}) => importCertificate({ dir: server, files: [file], ...more });
  await refused(take(join(root, 'nowhere.crt')), /nowhere\.crt does not exist/);
  await refused(take(write('x.crt', 'nonsense')), /holds no PEM certificate/);
  await refused(take(wrong({})), /none of the certificates in .*their\.crt is for .*domain\.key/);
  await refused(take(wrong({ from: -20, to: -10 }), { key }), /expired on/);
  await refused(take(wrong({ from: 10, to: 20 }), { key }), /not valid before/);
  await refused(take(wrong({ extendedUsage: ['client'] }), { key }), /serverAuth/);
  await refused(
    take(wrong({ names: ['IP:192.168.0.12', 'DNS:192.168.0.13'] }), { key }),
    /192\.168\.0\.13 stands in it as a DNS name/,
  );
  await refused(take(wrong({ names: [] }), { key }), /no subject alternative name/);
  const constrained = forge({
    commonName: 'Small CA',
    authority: 0,
    constraints: { permitted: ['lan'], excluded: [] },
  });
  await refused(take(wrong({}, constrained), { key }), /Small CA may not sign for reg\.example\.com/);
  const file = wrong({});
  writeFileSync(key, '-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n');
  await refused(take(file, { key }), /their\.key is encrypted by a passphrase/);
  assert.deepEqual(snapshot(server), before);

  // Where an authority of our own lives, the root of another one would take its place.
  const whole = snapshot(vault);
  await refused(importCertificate({ dir: vault, files: [wrong({})], key }), /ca\.key is of another authority/);
  assert.deepEqual(snapshot(vault), whole);
});

test('a company certificate with intermediate and root, in any order, and a public one without a root', async () => {
  const company = forge({ commonName: 'Company Root', authority: 1 });
  const below = forge({ commonName: 'Company CA 1', authority: 0, issuer: company });
  const leaf = forge({ issuer: below, names: ['reg.example.com'] });
  const stray = forge({ commonName: 'Somebody else', authority: 0 });
  const key = write('company.key', pkcs8(leaf.key));
  const certificates = [company, stray, below, leaf].map(({ certificate }) => certificatePem(certificate));
  const report = await importCertificate({ dir: server, files: [write('all.pem', certificates.join(''))], key });
  assert.deepEqual(report.warnings, ['CN=Somebody else has no part in the chain and was left out']);
  assert.equal(read(server, 'domain.crt'), certificatePem(leaf.certificate) + certificatePem(below.certificate));
  assert.equal(read(server, 'ca.crt'), certificatePem(company.certificate));
  assert.equal(statSync(join(server, 'domain.key')).mode & 0o777, 0o600);
  assert.equal(await clientOf(server, certificatePem(company.certificate), 'reg.example.com'), undefined);
  const found = await ensureCertificates({ dir: server, names: ['reg.example.com'] });
  assert.deepEqual([found.anchor?.path, found.warnings], [join(server, 'ca.crt'), []]);

  const other = join(root, 'public');
  const files = [write('leaf.pem', certificates[3]!), write('below.pem', certificates[2]!)];
  const without = await importCertificate({ dir: other, files, key });
  assert.equal(without.anchor, undefined);
  assert.deepEqual(readdirSync(other).sort(), ['domain.crt', 'domain.key']);
});
