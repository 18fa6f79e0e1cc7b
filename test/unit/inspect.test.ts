import assert from 'node:assert/strict';
import { generateKeyPairSync, X509Certificate } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, test } from 'node:test';
import { OperatorError } from '../../src/errors.js';
import { ensureCertificates } from '../../src/pki/certificates.js';
import { loadServerPair, type PemFiles } from '../../src/pki/inspect.js';
import { signCertificate, subjectAlternativeName, subjectName } from '../../src/pki/x509.js';
import { type Forged, forge } from '../support/forge.js';

let root: string;
let ours: PemFiles;
let mounted: PemFiles;
let otherKey: string;

before(async () => {
  root = mkdtempSync(join(tmpdir(), 'inspect-'));
  ours = (await ensureCertificates({ dir: join(root, 'certs'), names: ['192.168.0.12', 'reg.lan'] })).server;
  const other = await ensureCertificates({ dir: join(root, 'other'), names: ['reg.lan'] });
  otherKey = readFileSync(other.server.key, 'utf8');
});
after(() => rmSync(root, { recursive: true }));

beforeEach(() => {
  const dir = mkdtempSync(join(root, 'mounted-'));
  mounted = { certificate: join(dir, 'tls.crt'), key: join(dir, 'tls.key') };
  copyFileSync(ours.certificate, mounted.certificate);
  copyFileSync(ours.key, mounted.key);
});

async function refused(message: RegExp, now?: Date): Promise<string> {
  const error = await loadServerPair(mounted, now).then(
    () => assert.fail('it was accepted'),
    (error: unknown) => error,
  );
  assert.ok(error instanceof OperatorError, String(error));
  assert.match(error.message, message);
  assert.ok(error.fix, 'it says how to mend it');
  assert.doesNotMatch(`${error.message} ${error.fix}`, /PRIVATE KEY-----\n/);
  return `${error.message}; ${error.fix}`;
}

test('a good pair is given with its names, dates and fingerprint', async () => {
  const pair = await loadServerPair(mounted);
  const certificate = new X509Certificate(readFileSync(mounted.certificate));
  assert.deepEqual(pair.names, ['192.168.0.12', 'reg.lan']);
  assert.equal(pair.notAfter.getTime(), Date.parse(certificate.validTo));
  assert.equal(pair.notBefore.getTime(), Date.parse(certificate.validFrom));
  assert.equal(pair.fingerprint, certificate.fingerprint256);
  assert.deepEqual(pair.certificate, readFileSync(mounted.certificate));
  assert.deepEqual(pair.key, readFileSync(mounted.key));
  assert.deepEqual(pair.warnings, []);
});

test('a file that is missing, a folder, or no PEM is refused by its name', async () => {
  rmSync(mounted.key);
  await refused(/tls\.key does not exist/);
  mkdirSync(mounted.key);
  await refused(/tls\.key is no PEM file/);
  rmSync(mounted.key, { recursive: true });
  writeFileSync(mounted.key, 'nonsense');
  await refused(/tls\.key holds no PEM private key/);
  writeFileSync(mounted.key, '-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n');
  await refused(/tls\.key holds a private key that cannot be read/);
  writeFileSync(mounted.key, '-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n');
  assert.match(await refused(/passphrase/), /openssl pkey/);
  writeFileSync(mounted.certificate, new X509Certificate(readFileSync(ours.certificate)).raw);
  await refused(/tls\.crt holds no PEM certificate/);
  writeFileSync(mounted.certificate, '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n');
  await refused(/tls\.crt holds a certificate that cannot be read/);
});

test('an unreadable file is refused by its name', async () => {
  if (process.getuid?.() === 0) {
    // Root reads everything; a loop of links is one of the few things that even root cannot open.
    rmSync(mounted.key);
    symlinkSync('tls.key', mounted.key);
    await assert.rejects(loadServerPair(mounted), /tls\.key cannot be read \(ELOOP\)/);
    return;
  }
  chmodSync(mounted.key, 0);
  await refused(/tls\.key may not be read/);
});

test('a key of another certificate is refused, and so is a chain in the wrong order', async () => {
  writeFileSync(mounted.key, otherKey);
  await refused(/tls\.key does not belong to .*tls\.crt/);
  const [authority, leaf] = [readFileSync(join(root, 'certs/ca.crt'), 'utf8'), readFileSync(ours.certificate, 'utf8')];
  copyFileSync(ours.key, mounted.key);
  writeFileSync(mounted.certificate, authority + leaf);
  await refused(/not the first one/);
  writeFileSync(mounted.certificate, leaf + authority);
  assert.equal((await loadServerPair(mounted)).names.length, 2);
});

test('a key too small for TLS is refused before it is served', async () => {
  const { privateKey: key } = generateKeyPairSync('rsa', { modulusLength: 512 });
  const subject = subjectName('too small');
  const dates = { notBefore: new Date(Date.now() - 3_600_000), notAfter: new Date(Date.now() + 86_400_000) };
  const content = { subject, publicKey: key, ...dates, extensions: [subjectAlternativeName(['reg.lan'])] };
  writeFileSync(mounted.certificate, signCertificate(content, { name: subject, key }));
  writeFileSync(mounted.key, key.export({ type: 'pkcs8', format: 'pem' }));
  await refused(/tls\.crt is not fit for TLS: .*key too small/);
});

test('a certificate brought along is checked before it serves: refused for what no client takes, else warned of', async () => {
  const ca = forge({ authority: 1 });
  const bring = ({ pem, keyPem }: Forged, ...more: readonly Forged[]) => {
    writeFileSync(mounted.certificate, pem + more.map(({ pem }) => pem).join(''));
    writeFileSync(mounted.key, keyPem);
  };
  bring(forge({ issuer: ca, names: ['reg.lan'], extendedUsage: ['client'] }));
  assert.match(await refused(/tls\.crt: .*serverAuth is missing/), /extendedKeyUsage serverAuth/);
  bring(forge({ issuer: ca, names: ['DNS:192.168.0.12'], to: 1000 }), ca);
  const { warnings } = await loadServerPair(mounted);
  for (const said of [/192\.168\.0\.12 stands in it as a DNS name.*IP:192/, /1001 days.*Apple/, /holds the root/])
    assert.ok(
      warnings.some(warning => said.test(warning) && warning.startsWith(mounted.certificate)),
      warnings.join('\n'),
    );
  assert.equal(warnings.length, 3);
});

test('a pair that is just being replaced is looked at again', async () => {
  copyFileSync(ours.key, `${mounted.key}.right`);
  writeFileSync(mounted.key, otherKey);
  const loading = loadServerPair(mounted);
  // The first look takes a few milliseconds, the second comes 200 ms after it.
  setTimeout(() => copyFileSync(`${mounted.key}.right`, mounted.key), 100);
  assert.deepEqual((await loading).names, ['192.168.0.12', 'reg.lan']);
});

test('out of date: both times are told', async () => {
  const after = new Date(Date.now() + 400 * 86_400_000);
  assert.match(await refused(/tls\.crt expired on/, after), new RegExp(after.toISOString()));
  const early = new Date(Date.now() - 86_400_000);
  assert.match(await refused(/tls\.crt is not valid before/, early), new RegExp(early.toISOString()));
  const { warnings } = await loadServerPair(mounted, new Date(Date.now() + 380 * 86_400_000));
  assert.match(warnings.join(), /expires in 16 days/);
});

test('a key that others can read: a warning where it was mounted, an error beside our authority', async () => {
  chmodSync(mounted.key, 0o444);
  assert.match((await loadServerPair(mounted)).warnings.join(), /tls\.key can be read by others \(mode 0444\)/);
  chmodSync(ours.key, 0o644);
  try {
    await assert.rejects(loadServerPair(ours), (error: OperatorError) => /chmod 600/.test(error.fix ?? ''));
  } finally {
    chmodSync(ours.key, 0o600);
  }
  assert.deepEqual((await loadServerPair(ours)).warnings, []);
});
