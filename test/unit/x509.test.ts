import assert from 'node:assert/strict';
import { type KeyObject, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { connect, createServer } from 'node:tls';
import { OperatorError } from '../../src/errors.js';
import { authorityCertificate, constraintsFor, permits, serverCertificate } from '../../src/pki/authority.js';
import { children, decode, encode, oid, sequence, set, time, utf8String } from '../../src/pki/der.js';
import { describeKey, generateKey, KEY_KINDS, keyIdentifier, sameKey } from '../../src/pki/keys.js';
import {
  basicConstraints,
  certificateFields,
  keyUsage,
  type NameConstraints,
  notAfter,
  notBefore,
  readPemCertificates,
  serialOf,
  signCertificate,
  subjectAlternativeName,
  subjectName,
} from '../../src/pki/x509.js';

const HOUR = 3_600_000;
const DAY = 24 * HOUR;

async function authority(options: { key?: KeyObject; constraints?: NameConstraints; days?: number; now?: Date } = {}) {
  const key = options.key ?? (await generateKey('ec-p256'));
  const pem = authorityCertificate({
    key,
    commonName: 'registry-secure CA test',
    days: options.days ?? 3650,
    constraints: options.constraints,
    ...(options.now ? { now: options.now } : {}),
  });
  return { certificate: new X509Certificate(pem), key, pem };
}

/** The error of a TLS client that trusts the authority, or undefined when it is content. */
async function handshake(ca: string, cert: string, key: KeyObject, host: string): Promise<string | undefined> {
  const server = createServer({ cert, key: key.export({ type: 'pkcs8', format: 'pem' }) }, socket => socket.end());
  server.on('tlsClientError', () => undefined);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const socket = connect({
    port: (server.address() as AddressInfo).port,
    host: '127.0.0.1',
    ca,
    servername: '',
    checkServerIdentity: () => undefined,
  });
  try {
    const error = await new Promise<Error | undefined>(resolve => {
      socket.once('secureConnect', () => resolve(undefined));
      socket.once('error', resolve);
    });
    if (error) return error.message;
    const peer = socket.getPeerX509Certificate()!;
    return (host.includes(':') || /^[\d.]+$/.test(host) ? peer.checkIP(host) : peer.checkHost(host))
      ? undefined
      : 'NAME';
  } finally {
    socket.destroy();
    server.close();
    await once(server, 'close');
  }
}

for (const kind of KEY_KINDS)
  test(`${kind}: an authority and a server certificate that a TLS client accepts`, async () => {
    const key = await generateKey(kind);
    assert.equal(describeKey(key), kind);
    // The same key twice, only because RSA keys take long to make.
    const ca = await authority({ key, constraints: constraintsFor(['192.168.0.12', 'reg.example.com']) });
    const names = ['192.168.0.12', 'reg.example.com', '*.apps.lan', 'fd00::12'];
    const pem = serverCertificate({ authority: ca, key, names, days: 397 });
    const leaf = new X509Certificate(pem);

    assert.ok(ca.certificate.ca && ca.certificate.verify(ca.certificate.publicKey));
    assert.ok(!leaf.ca);
    assert.ok(leaf.checkIssued(ca.certificate) && leaf.verify(ca.certificate.publicKey));
    assert.ok(sameKey(leaf.publicKey, key));
    assert.deepEqual(certificateFields(leaf).names, names);
    assert.equal(leaf.checkIP('192.168.0.12'), '192.168.0.12');
    assert.deepEqual(leaf.keyUsage, ['1.3.6.1.5.5.7.3.1'], 'extended key usage: server authentication alone');
    assert.equal(ca.certificate.keyUsage, undefined, 'no extended key usage on the authority');
    assert.deepEqual(certificateFields(leaf).keyIdentifier, keyIdentifier(key));
    for (const host of ['192.168.0.12', 'reg.example.com', 'a.apps.lan', 'fd00::12'])
      assert.equal(await handshake(ca.pem, pem, key, host), undefined, host);
    assert.equal(await handshake(ca.pem, pem, key, '192.168.0.13'), 'NAME');
  });

test('the signature follows the key of the authority, not that of the server', async () => {
  const ca = await authority({ key: await generateKey('ec-p384') });
  const key = await generateKey('ec-p256');
  const pem = serverCertificate({ authority: ca, key, names: ['10.0.0.1'], days: 1 });
  assert.equal(await handshake(ca.pem, pem, key, '10.0.0.1'), undefined);
  const algorithm = children(decode(new X509Certificate(pem).raw))[1]!;
  assert.equal(encode(algorithm).toString('hex'), '300a06082a8648ce3d040303', 'ecdsa-with-SHA384');
});

test('serial numbers are positive, and short and long enough', async () => {
  const ca = await authority();
  const serials = new Set<string>();
  for (let index = 0; index < 50; index++) {
    const pem = serverCertificate({ authority: ca, key: ca.key, names: ['10.0.0.1'], days: 1 });
    const { serialNumber } = new X509Certificate(pem);
    assert.match(serialNumber, /^[0-7][0-9A-F]{31}$/);
    assert.doesNotMatch(serialNumber, /^00/);
    serials.add(serialNumber);
  }
  assert.equal(serials.size, 50);
});

test('a certificate begins an hour ago and is valid for just so many days', async () => {
  const now = new Date('2026-03-01T12:00:00.900Z');
  const ca = await authority({ now });
  const leaf = new X509Certificate(
    serverCertificate({ authority: ca, key: ca.key, names: ['10.0.0.1'], days: 825, now }),
  );
  assert.equal(notBefore(leaf).toISOString(), '2026-03-01T11:00:00.000Z');
  // Both ends count, so one second less; more would be over Apple's limit.
  assert.equal(notAfter(leaf).getTime() - notBefore(leaf).getTime(), 825 * DAY - 1000);
});

test('a server certificate stays within the life of its authority', async () => {
  const now = new Date('2026-03-01T12:00:00Z');
  const ca = await authority({ days: 100, now });
  const leaf = (at: Date) =>
    new X509Certificate(serverCertificate({ authority: ca, key: ca.key, names: ['a.lan'], days: 397, now: at }));
  assert.equal(notAfter(leaf(now)).getTime(), notAfter(ca.certificate).getTime());
  const early = leaf(new Date(now.getTime() - 5 * HOUR));
  assert.equal(notBefore(early).getTime(), notBefore(ca.certificate).getTime());
  assert.throws(() => leaf(new Date(now.getTime() + 101 * DAY)), /expired/);
});

test('years from 2050 on take the long form of time', async () => {
  assert.equal(encode(time(new Date('2049-12-31T23:59:59Z'))).toString('latin1', 2), '491231235959Z');
  assert.equal(encode(time(new Date('2050-01-01T00:00:00Z'))).toString('latin1', 2), '20500101000000Z');
  const ca = await authority({ days: 36_500 });
  assert.ok(notAfter(ca.certificate).getUTCFullYear() > 2100);
});

test('more than 825 days are refused, with the reason', async () => {
  const ca = await authority();
  assert.throws(
    () => serverCertificate({ authority: ca, key: ca.key, names: ['a.lan'], days: 826 }),
    (error: OperatorError) =>
      error instanceof OperatorError && /Apple/.test(error.message) && /825/.test(error.fix ?? ''),
  );
});

test('no name and ten thousand names are refused', async () => {
  const ca = await authority();
  const issue = (names: string[]) => serverCertificate({ authority: ca, key: ca.key, names, days: 1 });
  assert.throws(() => issue([]), /at least one name/);
  assert.throws(() => issue(Array.from({ length: 10_000 }, (_, index) => `h${index}.lan`)), /10000 names/);
});

test('an authority for a few names has constraints for them, private ranges and private domains', () => {
  const constraints = constraintsFor(['192.168.0.12', '203.0.113.7', '2001:db8::7', '*.apps.example.com', 'box.lan']);
  assert.deepEqual(constraints.permitted, [
    'local',
    'internal',
    'lan',
    'home.arpa',
    'apps.example.com',
    '10.0.0.0/8',
    '172.16.0.0/12',
    '192.168.0.0/16',
    '100.64.0.0/10',
    '127.0.0.0/8',
    'fc00::/7',
    '::1/128',
    '203.0.113.7/32',
    '2001:db8::7/128',
  ]);
  for (const name of ['10.9.9.9', 'fd12::1', '203.0.113.7', 'x.local', 'a.b.apps.example.com', '*.apps.example.com'])
    assert.ok(permits(constraints, name), name);
  for (const name of [
    '203.0.113.8',
    '8.8.8.8',
    '2001:db8::8',
    'example.com',
    'notlan',
    'xapps.example.com',
    'google.com',
  ])
    assert.ok(!permits(constraints, name), name);
  assert.ok(!permits({ permitted: ['lan'], excluded: ['secret.lan'] }, 'a.secret.lan'));
  assert.ok(permits({ permitted: [], excluded: ['10.0.0.0/8'] }, '192.168.0.1'));
  assert.ok(!permits({ permitted: [], excluded: ['10.0.0.0/8'] }, '10.0.0.1'));
});

test('name constraints survive the way into a certificate and back', async () => {
  const constraints = {
    permitted: constraintsFor(['reg.example.com', '8.8.8.8']).permitted,
    excluded: ['bad.lan', '10.66.0.0/15'],
  };
  const ca = await authority({ constraints });
  assert.deepEqual(certificateFields(ca.certificate).nameConstraints, constraints);
  assert.equal(certificateFields((await authority()).certificate).nameConstraints, undefined);
});

test('an address outside of the constraints cannot be certified by us', async () => {
  const ca = await authority({ constraints: constraintsFor(['192.168.0.12']) });
  assert.throws(
    () => serverCertificate({ authority: ca, key: ca.key, names: ['192.168.0.13', 'google.com'], days: 1 }),
    (error: OperatorError) =>
      /google\.com/.test(error.message) && !/192\.168/.test(error.message) && /rotate-ca/.test(error.fix ?? ''),
  );
});

test('TLS clients refuse what a stolen authority key signs outside of the constraints', async () => {
  const constraints = constraintsFor(['192.168.0.12']);
  const ca = await authority({ constraints });
  const forge = (...names: string[]) => {
    const now = Date.now();
    return signCertificate(
      {
        subject: subjectName('registry-secure server'),
        publicKey: ca.key,
        notBefore: new Date(now - HOUR),
        notAfter: new Date(now + DAY),
        extensions: [subjectAlternativeName(names)],
      },
      { name: certificateFields(ca.certificate).subject, key: ca.key },
    );
  };
  for (const name of ['192.168.0.99', 'fd77::1', 'x.home.arpa', '127.0.0.1'])
    assert.equal(await handshake(ca.pem, forge(name), ca.key, name), undefined, name);
  for (const name of ['8.8.8.8', '2001:db8::1', 'google.com', 'local.google.com'])
    assert.equal(await handshake(ca.pem, forge(name), ca.key, name), 'permitted subtree violation', name);
  assert.equal(
    await handshake(ca.pem, forge('192.168.0.12', 'google.com'), ca.key, '192.168.0.12'),
    'permitted subtree violation',
  );
});

test('an authority of somebody else stays the issuer by its own name, with or without a key identifier', async () => {
  const key = await generateKey('ec-p256');
  const part = (type: string, text: string) => set(sequence(oid(type), utf8String(text)));
  const subject = sequence(part('2.5.4.10', 'Müller & Söhne'), part('2.5.4.3', 'Root'));
  const ca = signCertificate(
    {
      subject,
      publicKey: key,
      notBefore: new Date(Date.now() - HOUR),
      notAfter: new Date(Date.now() + DAY),
      extensions: [basicConstraints(0), keyUsage('keyCertSign')],
    },
    { name: subject, key },
  );
  const certificate = new X509Certificate(ca);
  assert.equal(certificate.subject, 'O=Müller & Söhne\nCN=Root');
  const pem = serverCertificate({ authority: { certificate, key }, key, names: ['a.lan'], days: 1 });
  assert.equal(new X509Certificate(pem).issuer, certificate.subject);
  assert.equal(await handshake(ca, pem, key, 'a.lan'), undefined);
  assert.equal(readPemCertificates(`noise\n${pem}between\n${ca}`).length, 2);
});

test('a serial number is shown without the zero that whole bytes begin with', async () => {
  // Random ones begin with it once in sixteen times.
  for (let tries = 0; tries < 1000; tries++) {
    const { certificate } = await authority();
    if (!certificate.serialNumber.startsWith('0')) continue;
    assert.equal(serialOf(certificate), certificate.serialNumber.slice(1));
    assert.equal(BigInt(`0x${serialOf(certificate)}`), BigInt(`0x${certificate.serialNumber}`));
    return;
  }
  assert.fail('a thousand without a zero');
});
