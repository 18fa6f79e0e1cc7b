import assert from 'node:assert/strict';
import { createHash, createHmac, generateKeyPairSync, verify } from 'node:crypto';
import { once } from 'node:events';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { mock, test } from 'node:test';
import { DelegatedKey } from '../../src/storage/azure/delegation.js';
import { GcsSigner } from '../../src/storage/gcs/signer.js';
import { ServiceError } from '../../src/storage/object/requests.js';
import { SwiftClient } from '../../src/storage/swift/client.js';
import type { SwiftOptions } from '../../src/storage/swift/options.js';
import { SwiftSigner, temporaryUrl } from '../../src/storage/swift/signer.js';

const EMAIL = 'test-iam-credentials@dummy-project-id.iam.gserviceaccount.com';
const PAIR = generateKeyPairSync('rsa', { modulusLength: 2048 });
const KEY = PAIR.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;

async function gcsSigner(endpoint: string, path: (key: string) => string): Promise<GcsSigner> {
  const signer = new GcsSigner(endpoint, async () => ({ email: EMAIL, key: KEY }), path);
  assert.equal(await signer.prepare(), undefined);
  return signer;
}

/** The signature of a URL of Google is one of this text. */
function assertSigned(url: URL, text: string): void {
  const signature = Buffer.from(url.searchParams.get('X-Goog-Signature')!, 'hex');
  assert.ok(verify('RSA-SHA256', Buffer.from(text), PAIR.publicKey, signature), text);
}

test('URLs of Google are signed over what its own conformance tests want', async () => {
  const signer = await gcsSigner('https://storage.googleapis.com', key => `/test-bucket/${key}`);
  // googleapis/conformance-tests, storage/v1/v4_signatures.json: the last line is the hash of the canonical request.
  const cases = [
    ['test-object', '2019-02-01', 10, '00e2fb794ea93d7adb703edaebdd509821fcc7d4f1a79ac5c8d2b394df109320'],
    ['test-object', '2019-03-01', 20, '779f19fdb6fd381390e2d5af04947cf21750277ee3c20e0c97b7e46a1dff8907'],
    [
      '/path/with/slashes/under_score/amper&sand/file.ext',
      '2019-02-01',
      10,
      '63c601ecd6ccfec84f1113fc906609cbdf7651395f4300cecd96ddd2c35164f8',
    ],
  ] as const;
  for (const [key, day, seconds, hash] of cases) {
    const from = new Date(`${day}T09:00:00Z`);
    const url = new URL((await signer.sign(key, { from, until: new Date(from.getTime() + seconds * 1000) }))!);
    const [date] = day.replaceAll('-', '').split('T');
    assertSigned(url, `GOOG4-RSA-SHA256\n${date}T090000Z\n${date}/auto/storage/goog4_request\n${hash}`);
    assert.equal(
      `${url.origin}${decodeURIComponent(url.pathname)}`,
      `https://storage.googleapis.com/test-bucket/${key}`,
    );
  }
});

test('URLs of Google have each odd character of a name encoded, and the port of another service', async () => {
  const signer = await gcsSigner('http://localhost:4443', key => `/images/it's (mine)!*~ü+/${key}`);
  const from = new Date('2026-01-02T03:04:05.678Z');
  const url = (await signer.sign('data', { from, until: new Date(from.getTime() + 360_000) }))!;
  const [unsigned, signature] = url.split('&X-Goog-Signature=') as [string, string];
  const path = '/images/it%27s%20%28mine%29%21%2A~%C3%BC%2B/data';
  const query = `X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential=${encodeURIComponent(EMAIL)}%2F20260102%2Fauto%2Fstorage%2Fgoog4_request&X-Goog-Date=20260102T030405Z&X-Goog-Expires=360&X-Goog-SignedHeaders=host`;
  assert.equal(unsigned, `http://localhost:4443${path}?${query}`);
  assert.match(signature, /^[0-9a-f]{512}$/);
  const request = `GET\n${path}\n${query}\nhost:localhost:4443\n\nhost\nUNSIGNED-PAYLOAD`;
  const hash = createHash('sha256').update(request).digest('hex');
  assertSigned(new URL(url), `GOOG4-RSA-SHA256\n20260102T030405Z\n20260102/auto/storage/goog4_request\n${hash}`);
});

test('a login of Google without a key signs nothing, and says why', async () => {
  const signer = new GcsSigner(
    'https://storage.googleapis.com',
    async () => undefined,
    key => key,
  );
  assert.match((await signer.prepare())!, /has no key of a service account .*\(storage\.gcs\.keyfile\)/);
  assert.equal(await signer.sign('data', { from: new Date(), until: new Date() }), undefined);
});

test('a temporary URL of Swift is signed as its documentation shows it', () => {
  const url = new URL('https://swift-cluster.example.com/v1/AUTH_account/container/object');
  const until = new Date(1_512_508_563_000);
  assert.equal(
    temporaryUrl(url, { key: 'mykey', digest: 'sha256', until }),
    `${url.href}?temp_url_sig=732fcac368abb10c78a4cbe95c3fab7f311584532bf779abd5074e13cbe8b88b&temp_url_expires=1512508563`,
  );
});

/** So much of Swift as temporary URLs of a container need, by SHA-1 alone. */
async function sha1Swift(key: string | undefined, mayChange: boolean) {
  const container = { key };
  const server = http.createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url!, 'http://localhost');
    const answer = (status: number, headers: http.OutgoingHttpHeaders = {}) =>
      response.writeHead(status, headers).end();
    if (pathname === '/auth/v1.0')
      return answer(200, { 'x-auth-token': 'token', 'x-storage-url': `http://${request.headers.host}/v1/AUTH_a` });
    if (request.headers['x-auth-token'] === 'token') {
      if (request.method !== 'POST') return answer(204);
      if (!mayChange) return answer(403);
      container.key = String(request.headers['x-container-meta-temp-url-key']);
      return answer(204);
    }
    const signed = `${request.method}\n${searchParams.get('temp_url_expires')}\n${decodeURIComponent(pathname)}`;
    const isGood =
      container.key !== undefined &&
      searchParams.get('temp_url_sig') === createHmac('sha1', container.key).update(signed).digest('hex');
    return answer(isGood ? 404 : 401);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const options: SwiftOptions = {
    authUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}/auth/v1.0`,
    authVersion: 1,
    login: { user: 'alice', password: 'hush' },
    interface: 'public',
    container: 'our images',
    root: '',
    skipVerify: false,
    temporaryUrlKey: 'new',
  };
  const client = new SwiftClient(options);
  await client.requests.attempt('look', 'HEAD', signal => client.ask('HEAD', signal, ''));
  const stop = () => {
    client.close();
    server.closeAllConnections();
    server.close();
  };
  return { container, signer: new SwiftSigner(client, options, key => `files/${key}`), stop };
}

test('what digest a cluster of Swift takes is tried out; a container without the key is given it', async () => {
  const { container, signer, stop } = await sha1Swift(undefined, true);
  assert.equal(await signer.prepare({ readOnly: false }), undefined);
  assert.equal(container.key, 'new');
  const url = (await signer.sign('a b', { from: new Date(), until: new Date(Date.now() + 60_000) }))!;
  assert.match(url, /\/v1\/AUTH_a\/our%20images\/files\/a%20b\?temp_url_sig=[0-9a-f]{40}&/);
  assert.equal((await fetch(url)).status, 404);
  stop();
});

test('the key of a container of Swift stays where it is good, or may not be changed', async () => {
  const cases = [
    ['new', true, false, undefined],
    ['old', true, true, /no temporary URL that is signed by storage\.swift\.secretkey$/],
    ['old', false, false, /refuses storage\.swift\.secretkey \(HTTP 403\)$/],
  ] as const;
  for (const [key, mayChange, readOnly, refusal] of cases) {
    const { container, signer, stop } = await sha1Swift(key, mayChange);
    const why = await signer.prepare({ readOnly });
    if (refusal) assert.match(why!, refusal);
    else assert.equal(why, undefined);
    assert.equal(container.key, key);
    stop();
  }
});

test('the key that Azure gives an identity is got again in time, and missed for a moment only', async () => {
  mock.timers.enable({ apis: ['Date'], now: Date.parse('2026-01-01T00:00:00Z') });
  const minutes = (count: number) => count * 60_000;
  try {
    let asked = 0;
    let fails = false;
    const delegated = new DelegatedKey(
      async (from, until) => {
        asked += 1;
        if (fails) throw new ServiceError({ status: 503, code: 'ServerBusy', message: 'busy' });
        const named = { signedObjectId: 'o', signedTenantId: 't', signedService: 'b', signedVersion: '2020-12-06' };
        return { ...named, signedStartsOn: from, signedExpiresOn: until, value: `${asked}` };
      },
      () => 0,
    );
    const key = async () => (await delegated.goodUntil(new Date(Date.now() + minutes(5))))?.value;
    assert.deepEqual(await Promise.all([key(), key()]), ['1', '1']);
    mock.timers.tick(minutes(44));
    assert.equal(await key(), '1');
    assert.equal(asked, 1);
    // Near its end another one is asked for, and nobody waits for that.
    fails = true;
    mock.timers.tick(minutes(2));
    assert.equal(await key(), '1');
    assert.equal(await key(), '1');
    assert.equal(asked, 2, 'after a failure it is left alone for a while');
    mock.timers.tick(minutes(10));
    assert.equal(await key(), undefined, 'its end has come');
    fails = false;
    mock.timers.tick(minutes(2));
    assert.equal(await key(), '4');
  } finally {
    mock.timers.reset();
  }
});

test('an identity of Azure that may not sign is told so; what may pass is no refusal', async () => {
  const refusalOf = (status: number | undefined) =>
    new DelegatedKey(
      async () => {
        throw new ServiceError({ status, code: 'AuthorizationPermissionMismatch', message: 'No.' });
      },
      () => 0,
    ).refusal();
  assert.match(
    (await refusalOf(403))!,
    /\(AuthorizationPermissionMismatch: No\.\); give it the role Storage Blob Delegator/,
  );
  assert.equal(await refusalOf(503), undefined);
  assert.equal(await refusalOf(undefined), undefined);
});
