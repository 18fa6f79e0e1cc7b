import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { StorageDriver } from '../../src/storage/driver.js';
import { SMALLEST_PART } from '../../src/storage/object/parts.js';
import { S3Driver } from '../../src/storage/s3.js';
import type { SwiftOptions } from '../../src/storage/swift/options.js';
import { layout } from '../../src/store/layout.js';
import { Azurite } from '../support/azurite.js';
import { Entra } from '../support/entra.js';
import { FakeGcs } from '../support/fake-gcs.js';
import { LocalRegistry } from '../support/local-registry.js';
import { selfSigned } from '../support/pair.js';
import { must, requireTools } from '../support/process.js';
import { digestOf, RegistryFixture } from '../support/registry-fixture.js';
import { S3Service } from '../support/s3-service.js';
import { S3_SERVICES } from '../support/s3-services.js';
import { Swift } from '../support/swift.js';

/** As the tests of Swift. */
const { SWIFT_TEST } = process.env;

interface Got {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: Buffer;
}

function get(url: string, headers: http.OutgoingHttpHeaders = {}, method = 'GET'): Promise<Got> {
  return new Promise((resolve, reject) => {
    const { request } = url.startsWith('https:') ? https : http;
    const sent = request(url, { method, headers, agent: false, rejectUnauthorized: false }, response => {
      const chunks: Buffer[] = [];
      response.on('data', chunk => chunks.push(chunk));
      response.once('error', reject).once('end', () => {
        resolve({ status: response.statusCode!, headers: response.headers, body: Buffer.concat(chunks) });
      });
    });
    sent.once('error', reject).end();
  });
}

/** An empty bucket, or what a service calls one. */
interface Bucket {
  readonly endpoint: string;
  /** Of an object, at the endpoint. */
  readonly path: (key: string) => string;
  readonly driver: (redirects: boolean) => StorageDriver;
  /** Has a URL tell that it is good for longer. */
  readonly prolong: (url: URL) => void;
  /** What the program reaches it by, and what of it is told to nobody. */
  readonly env: NodeJS.ProcessEnv;
  readonly secrets: readonly string[];
  /** The parameter of a URL that has the signature. */
  readonly signature: string;
  readonly stop: () => Promise<void>;
}

const later = (seconds: string | null) => String(Number(seconds) + 3600);

function never(warning: string): void {
  assert.doesNotMatch(warning, /streamed/);
}

const WHATEVER_IT_IS = { disable: false, onWarning: never };

async function onS3(service: S3Service): Promise<Bucket> {
  const bucket = await service.makeBucket();
  const { accessKeyId, secretAccessKey } = S3Service.credentials;
  return {
    endpoint: service.endpoint,
    path: key => `/${bucket}/${key}`,
    driver: redirects => new S3Driver(service.options(bucket, { redirects })),
    prolong: ({ searchParams }) => searchParams.set('X-Amz-Expires', later(searchParams.get('X-Amz-Expires'))),
    env: {
      REGISTRY_STORAGE: 's3',
      REGISTRY_STORAGE_S3_BUCKET: bucket,
      REGISTRY_STORAGE_S3_REGIONENDPOINT: service.endpoint,
      REGISTRY_STORAGE_S3_ACCESSKEY: accessKeyId,
      REGISTRY_STORAGE_S3_SECRETKEY: secretAccessKey,
    },
    secrets: [secretAccessKey],
    signature: 'X-Amz-Signature',
    stop: () => service.stop(),
  };
}

async function onAzurite(): Promise<Bucket> {
  const service = await Azurite.start();
  const options = service.options(await service.makeContainer());
  const { serviceUrl, account, container, login } = options;
  const { key } = login as { key: string };
  return {
    endpoint: service.endpoint,
    path: name => `/${account}/${container}/${name}`,
    driver: redirects => service.driver(options, redirects ? { redirect: WHATEVER_IT_IS } : {}),
    prolong: ({ searchParams }) =>
      searchParams.set('se', `${new Date(Date.now() + 3_600_000).toISOString().slice(0, 19)}Z`),
    env: {
      REGISTRY_STORAGE: 'azure',
      REGISTRY_STORAGE_AZURE_ACCOUNTNAME: account,
      REGISTRY_STORAGE_AZURE_ACCOUNTKEY: key,
      REGISTRY_STORAGE_AZURE_CONTAINER: container,
      REGISTRY_STORAGE_AZURE_SERVICEURL: serviceUrl,
    },
    secrets: [key],
    signature: 'sig',
    stop: () => service.stop(),
  };
}

async function onFakeGcs(): Promise<Bucket> {
  const service = await FakeGcs.start();
  const bucket = await service.makeBucket();
  const { client_email, private_key } = FakeGcs.credentials;
  return {
    endpoint: service.endpoint,
    path: key => `/${bucket}/${key}`,
    driver: redirects => service.driver(service.options(bucket), redirects ? { redirect: WHATEVER_IT_IS } : {}),
    prolong: () => assert.fail('nobody looks at it'),
    env: {
      STORAGE_EMULATOR_HOST: service.endpoint,
      REGISTRY_STORAGE: 'gcs',
      REGISTRY_STORAGE_GCS_BUCKET: bucket,
      REGISTRY_STORAGE_GCS_CREDENTIALS_TYPE: 'service_account',
      REGISTRY_STORAGE_GCS_CREDENTIALS_CLIENT_EMAIL: client_email,
      REGISTRY_STORAGE_GCS_CREDENTIALS_PRIVATE_KEY: JSON.stringify(private_key),
    },
    secrets: ['PRIVATE KEY', private_key.slice(60, 90)],
    signature: 'X-Goog-Signature',
    stop: () => service.stop(),
  };
}

async function onSwift(): Promise<Bucket> {
  const service = await Swift.start();
  const options = service.options(await service.makeContainer(), { temporaryUrlKey: 'hush-hush' });
  const { authUrl, container, login } = options;
  const { user, password } = login as { user: string; password: string };
  return {
    endpoint: service.endpoint,
    path: key => `/v1/AUTH_test/${container}/files/${key}`,
    driver: redirects => service.driver(options, redirects ? { redirect: WHATEVER_IT_IS } : {}),
    prolong: ({ searchParams }) => searchParams.set('temp_url_expires', later(searchParams.get('temp_url_expires'))),
    env: {
      REGISTRY_STORAGE: 'swift',
      REGISTRY_STORAGE_SWIFT_AUTHURL: authUrl,
      REGISTRY_STORAGE_SWIFT_USERNAME: user,
      REGISTRY_STORAGE_SWIFT_PASSWORD: password,
      REGISTRY_STORAGE_SWIFT_CONTAINER: container,
      REGISTRY_STORAGE_SWIFT_SECRETKEY: 'hush-hush',
    },
    secrets: [password, 'hush-hush'],
    signature: 'temp_url_sig',
    stop: () => service.stop(),
  };
}

/** @param options.isChecked whether the service looks at signatures at all */
function testRedirects(what: string, start: () => Promise<Bucket>, { isChecked = true } = {}): void {
  describe(`pulls that are sent to ${what}`, { timeout: 240_000 }, () => {
    let bucket: Bucket;
    let registry: RegistryFixture;
    const data = randomBytes(3_000_000);
    const key = layout.blob(digestOf(data));
    const blob = `/v2/team/app/blobs/${digestOf(data)}`;
    before(async () => {
      bucket = await start();
      registry = await RegistryFixture.start({ driver: bucket.driver(true) });
      await registry.pushBlob('team/app', data);
    });
    after(async () => {
      await registry?.stop();
      await bucket?.stop();
    });

    const locationOf = async (path = blob, headers: http.OutgoingHttpHeaders = {}): Promise<string> => {
      const answer = await registry.call('GET', path, { headers });
      assert.deepEqual([answer.status, answer.body.length], [307, 0]);
      assert.equal(answer.headers['docker-content-digest'], path.split('/').at(-1));
      assert.equal(answer.headers['cache-control'], 'no-store', 'nobody else is to be handed the URL');
      return answer.headers.location!;
    };
    const refuses = async (url: string, why: string, method = 'GET') => {
      const { status } = await get(url, {}, method);
      assert.ok(status >= 400 && status < 500, `${why}: ${status}`);
    };

    test('have the bytes by a URL', async () => {
      const url = new URL(await locationOf());
      assert.equal(url.origin, bucket.endpoint);
      assert.equal(url.pathname, bucket.path(key));
      const got = await get(url.href);
      assert.equal(got.status, 200);
      assert.ok(got.body.equals(data));
      assert.equal(got.headers['content-type'], 'application/octet-stream');
      assert.ok(url.searchParams.has(bucket.signature));
      for (const secret of bucket.secrets) assert.ok(!decodeURIComponent(url.href).includes(secret));
    });

    test('go on with ranges there, and are answered here where the service knows no such ones', async () => {
      const part = await get(await locationOf(blob, { range: 'bytes=100-199' }), { range: 'bytes=100-199' });
      assert.deepEqual([part.status, part.headers['content-range']], [206, `bytes 100-199/${data.length}`]);
      assert.ok(part.body.equals(data.subarray(100, 200)));
      const ask = (headers: http.OutgoingHttpHeaders) => registry.call('GET', blob, { headers });
      const several = await ask({ range: 'bytes=0-1,10-11' });
      assert.equal(several.status, 206);
      assert.match(several.headers['content-type']!, /^multipart\/byteranges/);
      const resumed = await ask({ range: 'bytes=100-', 'if-range': `"${digestOf(data)}"` });
      assert.ok(resumed.status === 206 && resumed.body.equals(data.subarray(100)));
      assert.equal((await ask({ range: `bytes=${data.length}-` })).status, 416);
      assert.equal((await ask({ 'if-none-match': `"${digestOf(data)}"` })).status, 304);
    });

    test('are only those of who may pull it here; HEAD and manifests are answered here', async () => {
      const head = await registry.call('HEAD', blob);
      assert.deepEqual([head.status, head.headers['content-length']], [200, String(data.length)]);
      assert.equal((await registry.call('GET', blob, { user: 'nobody' })).status, 401);
      assert.equal((await registry.call('GET', blob.replace('team/app', 'hidden/app'))).status, 403);
      assert.equal((await registry.call('GET', blob.replace('team/app', 'team/other'))).status, 404);
      const image = await registry.pushImage('team/app', 'v1');
      const manifest = await registry.call('GET', '/v2/team/app/manifests/v1');
      assert.ok(manifest.status === 200 && manifest.body.equals(image.data));
      await registry.call('DELETE', `/v2/team/app/blobs/${image.layer}`);
      assert.equal((await registry.call('GET', `/v2/team/app/blobs/${image.layer}`)).status, 404);
    });

    test('a driver that is not told to sends nobody away', async () => {
      const driver = bucket.driver(false);
      await driver.open();
      assert.equal(await driver.readUrl!(key), undefined);
      await driver.close();
    });

    if (isChecked) {
      test('the service takes a URL for one blob, for GET, and as it was signed', async () => {
        const url = await locationOf();
        await refuses(url, 'DELETE', 'DELETE');
        await refuses(url, 'PUT', 'PUT');
        await refuses(url.split('?')[0]!, 'unsigned');
        const changed = (change: (url: URL) => void): string => {
          const one = new URL(url);
          change(one);
          assert.notEqual(one.href, new URL(url).href);
          return one.href;
        };
        await refuses(
          changed(one => {
            one.pathname = bucket.path('registry-secure/format');
          }),
          'another object',
        );
        await refuses(changed(bucket.prolong), 'prolonged');
        for (const [name, value] of new URL(url).searchParams) {
          await refuses(
            changed(({ searchParams }) => searchParams.delete(name)),
            `without ${name}`,
          );
          const other = value.startsWith('0') ? '1' : '0';
          await refuses(
            changed(({ searchParams }) => searchParams.set(name, other + value.slice(1))),
            `another ${name}`,
          );
        }
      });

      test('for five minutes', async () => {
        const driver = bucket.driver(true);
        await driver.open();
        const now = Date.now;
        const urlOf = async (ago: number) => {
          Date.now = () => now() - ago;
          const url = await driver.readUrl!(key).finally(() => {
            Date.now = now;
          });
          return url!;
        };
        assert.equal((await get(await urlOf(240_000))).status, 200);
        await refuses(await urlOf(315_000), 'expired');
        await driver.close();
      });
    }

    test('curl and skopeo follow', async () => {
      requireTools('curl', 'skopeo');
      const dir = mkdtempSync(join(tmpdir(), 'redirects-'));
      try {
        const file = join(dir, 'blob');
        const url = `http://127.0.0.1:${registry.port}${blob}`;
        assert.equal(
          await must(['curl', '-sfL', '-o', file, '-w', '%{num_redirects} %{http_code}', '--max-time', '60', url]),
          '1 200',
        );
        assert.ok(readFileSync(file).equals(data));
        // As a client resumes.
        writeFileSync(file, data.subarray(0, 1_000_000));
        await must(['curl', '-sfL', '-C', '-', '-o', file, '--max-time', '60', url]);
        assert.ok(readFileSync(file).equals(data));
        const image = await registry.pushImage('team/app', 'v2');
        const from = `docker://127.0.0.1:${registry.port}/team/app:v2`;
        const policy = join(dir, 'policy.json');
        writeFileSync(policy, '{"default":[{"type":"insecureAcceptAnything"}]}');
        await must(['skopeo', '--policy', policy, 'copy', '--src-tls-verify=false', from, `dir:${join(dir, 'image')}`]);
        for (const digest of [image.layer, image.config])
          assert.equal(digestOf(readFileSync(join(dir, 'image', digest.slice('sha256:'.length)))), digest);
      } finally {
        rmSync(dir, { recursive: true });
      }
    });

    test('are so where it is asked for, with a warning; the log has neither keys nor URLs', async () => {
      const dir = mkdtempSync(join(tmpdir(), 'redirects-serve-'));
      const env = { ...bucket.env, REGISTRY_STORAGE_REDIRECT_DISABLE: 'false' };
      const program = await LocalRegistry.start(dir, ['up'], { env });
      try {
        const auth = `admin:${program.password}`;
        const body = randomBytes(1000);
        const path = `/v2/a/b/blobs/uploads/?digest=${digestOf(body)}`;
        assert.equal((await program.call('POST', path, { auth, body })).status, 201);
        const { status, location } = await program.call('GET', `/v2/a/b/blobs/${digestOf(body)}`, { auth });
        assert.equal(status, 307);
        assert.ok((await get(location!)).body.equals(body));
        assert.match(program.stderr, /pulls are redirected to http:\/\/127\.0\.0\.1, without TLS and at an address/);
      } finally {
        await program.stop();
        rmSync(dir, { recursive: true });
      }
      const said = program.stderr + program.stdout;
      for (const secret of [...bucket.secrets, `${bucket.signature}=`]) assert.ok(!said.includes(secret), said);
    });
  });
}

for (const [name, start] of Object.entries(S3_SERVICES))
  testRedirects(`a bucket of S3 on ${name}`, async () => onS3(await start()));
testRedirects('a container of Azure', onAzurite);
testRedirects('a bucket of Google', onFakeGcs, { isChecked: false });

test('a container of registry:2, whose names begin with a slash, has URLs too', { timeout: 240_000 }, async () => {
  const service = await Azurite.start();
  const container = await service.makeContainer();
  const blob = service.client(container).getBlockBlobClient('/docker/registry/v2/blob');
  await blob.upload('layer', 5);
  const driver = service.driver(service.options(container), { redirect: WHATEVER_IT_IS });
  await driver.open();
  assert.equal((await get((await driver.readUrl('docker/registry/v2/blob'))!)).body.toString(), 'layer');
  await driver.close();
  await service.stop();
});

describe('pulls that an identity of Azure sends to its container', { timeout: 240_000 }, () => {
  let dir: string;
  let service: Azurite;
  let entra: Entra;
  before(async () => {
    dir = mkdtempSync(join(tmpdir(), 'redirects-azure-'));
    const pair = selfSigned();
    const [cert, key] = [join(dir, 'cert.pem'), join(dir, 'key.pem')];
    writeFileSync(cert, pair.certificate);
    writeFileSync(key, pair.key, { mode: 0o600 });
    service = await Azurite.start('--cert', cert, '--key', key, '--oauth', 'basic');
    entra = await Entra.start();
  });
  after(async () => {
    entra?.stop();
    await service?.stop();
    rmSync(dir, { recursive: true });
  });

  test('are signed by one key that the service gives it', async () => {
    const options = service.options(await service.makeContainer(), { ...entra.login(), skipVerify: true });
    const driver = service.driver(options, { redirect: WHATEVER_IT_IS });
    const registry = await RegistryFixture.start({ driver });
    for (const data of [randomBytes(1000), randomBytes(1000)]) {
      await registry.pushBlob('team/app', data);
      const answer = await registry.call('GET', `/v2/team/app/blobs/${digestOf(data)}`);
      assert.equal(answer.status, 307);
      const url = new URL(answer.headers.location!);
      assert.equal(url.searchParams.get('skoid'), 'our-object');
      assert.equal(url.searchParams.get('spr'), 'https', 'the URL is not for a line in the clear');
      assert.ok((await get(url.href)).body.equals(data));
      assert.equal((await get(url.href, {}, 'DELETE')).status, 403);
      url.searchParams.set('se', `${new Date(Date.now() + 3_600_000).toISOString().slice(0, 19)}Z`);
      assert.equal((await get(url.href)).status, 403);
    }
    assert.equal(driver.requests.get('GetUserDelegationKey'), 1);
    await registry.stop();
  });
});

if (SWIFT_TEST) {
  testRedirects('a container of Swift', onSwift);

  describe('temporary URLs of Swift', { timeout: 240_000 }, () => {
    const start = async (service: Swift, more: Partial<SwiftOptions>, readOnly = false) => {
      const warnings: string[] = [];
      const redirect = { disable: false, onWarning: (warning: string) => warnings.push(warning) };
      const options = service.options(more.container ?? (await service.makeContainer()), more);
      const driver = service.driver(options, { chunkSize: SMALLEST_PART, redirect, readOnly });
      await driver.open();
      const write = async (key: string, data: Buffer) => {
        const writer = await driver.createSegment(key);
        await writer.write(data);
        await writer.close();
      };
      return { driver, write, warnings, container: options.container };
    };

    test('have objects of segments, static and dynamic ones', async () => {
      const service = await Swift.start();
      const { driver, write, container } = await start(service, { temporaryUrlKey: 'hush-hush' });
      const data = randomBytes(12_000_000);
      await write('docker/1', data);
      await driver.assemble(['docker/1'], 'docker/static');
      const url = (await driver.readUrl('docker/static'))!;
      assert.ok((await get(url)).body.equals(data));
      const range = `bytes=${SMALLEST_PART - 2}-${SMALLEST_PART + 1}`;
      assert.ok((await get(url, { range })).body.equals(data.subarray(SMALLEST_PART - 2, SMALLEST_PART + 2)));
      for (const [n, part] of ['lay', 'er'].entries())
        await service.call('PUT', `${container}/segments/abc/def/000000000000000${n + 1}`, { body: part });
      const headers = { 'x-object-manifest': `${container}/segments/abc/def` };
      await service.call('PUT', `${container}/files/docker/dynamic`, { headers });
      assert.equal((await get((await driver.readUrl('docker/dynamic'))!)).body.toString(), 'layer');
      await driver.close();
      await service.stop();
    });

    test('are signed by SHA-1 where the cluster knows no better, and not at all without a key that it has', async () => {
      const service = await Swift.start({ digests: 'sha1' });
      const { driver, container } = await start(service, { temporaryUrlKey: 'hush-hush' });
      await driver.write('docker/x', Buffer.from('x'));
      const url = (await driver.readUrl('docker/x'))!;
      assert.match(url, /temp_url_sig=[0-9a-f]{40}&/);
      assert.equal((await get(url)).body.toString(), 'x');
      await driver.close();

      const other = await start(service, { container, temporaryUrlKey: 'another' }, true);
      assert.equal(await other.driver.readUrl('docker/x'), undefined);
      assert.match(
        other.warnings.join(),
        /^pulls are streamed .* no temporary URL that is signed by storage\.swift\.secretkey$/,
      );
      assert.equal((await get(url)).status, 200, 'the key of the container has stayed');
      await other.driver.close();

      const none = await start(service, { container });
      assert.equal(await none.driver.readUrl('docker/x'), undefined);
      assert.match(none.warnings.join(), /^pulls are streamed .* \(storage\.swift\.secretkey\)$/);
      await none.driver.close();
      await service.stop();
    });
  });
}
