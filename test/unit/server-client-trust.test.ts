import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { request as httpsRequest } from 'node:https';
import { test } from 'node:test';
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls';
import { clientCertificateOf } from '../../src/auth/client-certificate.js';
import { certifiedNames, serialOf } from '../../src/pki/x509.js';
import { type ClientAuth, clientTrustWarnings } from '../../src/server/client-trust.js';
import type { Handler } from '../../src/server/listener.js';
import { type ClientPair, TestAuthority } from '../support/client-authority.js';
import { all, PAIR, serve, until } from '../support/listener.js';
import { selfSigned } from '../support/pair.js';

const ours = await TestAuthority.make('ours');
const theirs = await TestAuthority.make('theirs');
const [good, revoked, expired, early, server, other] = await Promise.all([
  ours.client('alice'),
  ours.client('bob'),
  ours.client('carol', { days: 1, start: -10 }),
  ours.client('dave', { start: 2 }),
  ours.server(),
  theirs.client('alice'),
]);
const mine = selfSigned();

/** Every certificate that a client can show, and what is said to it where certificates are verified. */
const SHOWN: ReadonlyArray<readonly [string, ClientPair | undefined, RegExp | undefined]> = [
  ['none', undefined, undefined],
  ['good', good, undefined],
  ['of another authority', other, /was not signed by an authority/],
  ['self-signed', { cert: mine.certificate, key: mine.key }, /was not signed by an authority/],
  ['expired', expired, /has expired/],
  ['not valid yet', early, /is not valid yet/],
  ['revoked', revoked, /was revoked/],
  ["a server's", server, /is not one for clients/],
];

const whoAmI: Handler = (request, response) => {
  request.resume();
  response.end(`served ${clientCertificateOf(request)?.commonName ?? 'nobody'}`);
};

/** One request with a body, over a connection of its own. */
function ask(
  port: number,
  pair?: Partial<ClientPair>,
  more: ConnectionOptions = {},
): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const options = {
      port,
      host: '127.0.0.1',
      method: 'POST',
      path: '/healthz',
      ca: PAIR.certificate,
      agent: false as const,
    };
    const request = httpsRequest({ ...options, ...pair, ...more }, response => {
      let body = '';
      response.on('data', chunk => {
        body += chunk;
      });
      response.on('end', () => resolve({ status: response.statusCode!, body }));
      response.on('error', reject);
    });
    request.on('error', reject);
    request.end('body');
  });
}

const MODES: readonly ClientAuth[] = [
  'request-client-cert',
  'require-any-client-cert',
  'verify-client-cert-if-given',
  'require-and-verify-client-cert',
];

for (const mode of MODES)
  for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const)
    test(`${mode}, ${maxVersion}: who is served, and as whom`, async t => {
      const verified = mode.includes('verify');
      const { port } = await serve(t, whoAmI, { clients: ours.trust(mode, [revoked]) });
      for (const [name, pair, fault] of SHOWN) {
        const { status, body } = await ask(port, pair, { maxVersion });
        if (pair === undefined && mode.startsWith('require')) {
          assert.deepEqual([status, JSON.parse(body).errors[0].code], [403, 'DENIED'], name);
          assert.match(JSON.parse(body).errors[0].message, /client certificate is required/);
        } else if (pair !== undefined && verified && fault) {
          assert.deepEqual([status, JSON.parse(body).errors[0].code], [403, 'DENIED'], `${name}: ${body}`);
          assert.match(JSON.parse(body).errors[0].message, fault, name);
        } else {
          const who = verified && pair === good ? 'alice' : 'nobody';
          assert.deepEqual([status, body], [200, `served ${who}`], name);
        }
      }
    });

/** A connection that stays open, after one request on it was served. */
async function keptAlive(port: number, pair: ClientPair, more: ConnectionOptions = {}): Promise<TLSSocket> {
  const socket = connect({ port, host: '127.0.0.1', ca: PAIR.certificate, ...pair, ...more });
  await once(socket, 'secureConnect');
  socket.write(GET);
  await until(socket, 'served');
  return socket;
}

const GET = 'GET / HTTP/1.1\r\nHost: x\r\n\r\n';

test('a revocation closes the open connections of its certificate, in the middle of transfers too, and no others', async t => {
  let uploads = 0;
  const { port, listener, lines } = await serve(
    t,
    (request, response) => {
      if (request.method !== 'PUT') return whoAmI(request, response);
      uploads++;
      request.on('error', () => {});
      request.resume();
    },
    { clients: ours.trust('require-and-verify-client-cert') },
  );
  const [idle, busy, alice] = await Promise.all([revoked, revoked, good].map(pair => keptAlive(port, pair)));
  busy.write('PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nbegin');
  while (uploads === 0) await new Promise(resolve => setTimeout(resolve, 5));

  const closed = Promise.all([idle, busy].map(socket => all(socket)));
  listener.setClientTrust(ours.trust('require-and-verify-client-cert', [revoked]));
  await closed;
  alice.write(GET);
  assert.match(await until(alice, 'served'), /served alice/);
  alice.destroy();

  const { status, body } = await ask(port, revoked);
  assert.deepEqual([status, /was revoked/.test(body)], [403, true]);
  const told = lines.filter(line => line.message === 'closed a connection');
  assert.deepEqual(
    told.map(({ fields }) => [fields?.reason, fields?.serial]),
    Array(2).fill(['the client certificate was revoked', serialOf(new X509Certificate(revoked.cert))]),
  );
});

test('connections of an authority that is trusted no longer are closed', async t => {
  const { port, listener } = await serve(t, whoAmI, { clients: ours.trust('require-and-verify-client-cert') });
  const socket = await keptAlive(port, good);
  const closed = all(socket);
  listener.setClientTrust(theirs.trust('require-and-verify-client-cert'));
  await closed;
  assert.equal((await ask(port, good)).status, 403);
  assert.equal((await ask(port, other)).status, 200);
});

test('a new pair for the server keeps what is asked of clients', async t => {
  const { port, listener } = await serve(t, whoAmI, { clients: ours.trust('require-and-verify-client-cert') });
  listener.setCertificate(PAIR);
  assert.equal((await ask(port)).status, 403);
  assert.equal((await ask(port, good)).status, 200);
});

for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const)
  test(`a revoked client cannot resume a session from before, ${maxVersion}`, async t => {
    const { port, listener } = await serve(t, whoAmI, { clients: ours.trust('require-and-verify-client-cert') });
    const sessions: Buffer[] = [];
    const socket = connect({ port, host: '127.0.0.1', ca: PAIR.certificate, ...revoked, maxVersion });
    socket.on('session', session => sessions.push(session));
    await once(socket, 'secureConnect');
    socket.write(GET);
    assert.match(await until(socket, 'served'), /served bob/);
    const session = sessions[0] ?? socket.getSession();
    assert.ok(session);
    const closed = all(socket);
    listener.setClientTrust(ours.trust('require-and-verify-client-cert', [revoked]));
    await closed;
    // With the session alone, and with the certificate beside it.
    for (const pair of [{}, revoked]) {
      const again = connect({ port, host: '127.0.0.1', ca: PAIR.certificate, ...pair, maxVersion, session });
      await once(again, 'secureConnect');
      assert.equal(again.isSessionReused(), false);
      again.write(GET);
      assert.match(await all(again), /^HTTP\/1\.1 403 /);
    }
  });

test('with an expired list nobody with a certificate is served, on open connections neither', async t => {
  for (const mode of ['require-and-verify-client-cert', 'verify-client-cert-if-given'] as const) {
    const { port } = await serve(t, whoAmI, { clients: ours.trust(mode, [], -1) });
    const { status, body } = await ask(port, good);
    assert.deepEqual([status, /no valid list of the revoked ones/.test(body)], [403, true], body);
    assert.equal((await ask(port)).status, mode === 'verify-client-cert-if-given' ? 200 : 403);
  }
  const trust = ours.trust('require-and-verify-client-cert');
  const { port } = await serve(t, whoAmI, { clients: trust });
  const socket = await keptAlive(port, good);
  t.mock.timers.enable({ apis: ['Date'], now: Date.now() + 31 * 86_400_000 });
  socket.write(GET);
  assert.match(await all(socket), /^HTTP\/1\.1 403 [\s\S]*no valid list of the revoked ones/);
});

test('a certificate that ends while its connection is open is not served any more', async t => {
  const short = await ours.client('erin', { days: 5 });
  const { port } = await serve(t, whoAmI, { clients: ours.trust('require-and-verify-client-cert') });
  const socket = await keptAlive(port, short);
  t.mock.timers.enable({ apis: ['Date'], now: Date.now() + 6 * 86_400_000 });
  socket.write(GET);
  assert.match(await all(socket), /^HTTP\/1\.1 403 [\s\S]*has expired/);
});

test('a client that is refused is not told to send its body, and its connection ends', async t => {
  let served = 0;
  const { port, lines } = await serve(t, () => served++, { clients: ours.trust('require-and-verify-client-cert') });
  const socket = connect({ port, host: '127.0.0.1', ca: PAIR.certificate });
  await once(socket, 'secureConnect');
  socket.write(`PUT /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n`);
  const answer = await all(socket);
  assert.match(
    answer,
    /^HTTP\/1\.1 403 Forbidden: a client certificate is required[^\r]*\r\n[\s\S]*Connection: close/i,
  );
  assert.equal(served, 0);
  assert.deepEqual(lines.at(-1)?.fields?.status, 403);
});

test('an authority without a list: its clients are refused once there is a list of another', async t => {
  const { certificate } = theirs;
  const clients = ours.trust('require-and-verify-client-cert');
  const both = { ...clients, authorities: [ours.certificate, certificate] };
  const { port } = await serve(t, whoAmI, { clients: both });
  assert.equal((await ask(port, good)).status, 200);
  assert.match((await ask(port, other)).body, /no valid list of the revoked ones/);
  assert.ok(clientTrustWarnings(both).some(warning => /no revocation list of CN=theirs is there/.test(warning)));
  assert.deepEqual(clientTrustWarnings(clients), []);
});

test('a certificate that we cannot parse harms nobody', async t => {
  // OpenSSL takes anything for the parameters of a signature that it does not verify, such as a tag of several bytes.
  const { certificate, key } = selfSigned();
  const der = Buffer.from(certificate.replace(/-----[^-]+-----|\s/g, ''), 'base64');
  const ecdsaWithSha256 = Buffer.from('300a06082a8648ce3d040302', 'hex');
  const at = der.lastIndexOf(ecdsaWithSha256);
  const odd = Buffer.concat([
    der.subarray(der[1]! === 0x82 ? 4 : 3, at),
    Buffer.from('300f06082a8648ce3d0403021f85010100', 'hex'),
    der.subarray(at + ecdsaWithSha256.length),
  ]);
  const whole = Buffer.concat([Buffer.from([0x30, 0x82, odd.length >> 8, odd.length & 255]), odd]);
  const pem = `-----BEGIN CERTIFICATE-----\n${whole.toString('base64').replace(/.{64}/g, '$&\n')}\n-----END CERTIFICATE-----\n`;
  assert.throws(() => certifiedNames(new X509Certificate(pem)));
  for (const mode of MODES) {
    const { port } = await serve(t, whoAmI, { clients: ours.trust(mode) });
    const { status } = await ask(port, { cert: pem, key });
    assert.equal(status, mode.includes('verify') ? 403 : 200);
    assert.equal((await ask(port, good)).status, 200);
  }
});
