import assert from 'node:assert/strict';
import { createPublicKey } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { jwtVerify } from 'jose';
import { OperatorError } from '../../src/errors.js';
import type { GcsOptions } from '../../src/storage/gcs/options.js';
import type { ObjectDriver } from '../../src/storage/object.js';
import { serveByVariables } from '../storage/serving.js';
import { ChangingProxy } from '../support/changing-proxy.js';
import { FakeGcs } from '../support/fake-gcs.js';
import { FaultProxy } from '../support/fault-proxy.js';
import { Random } from '../support/random.js';
import { RegistryFixture } from '../support/registry-fixture.js';

describe('a bucket of Google', { timeout: 120_000 }, () => {
  let service: FakeGcs;
  let proxy: FaultProxy;
  const open: ObjectDriver[] = [];
  before(async () => {
    service = await FakeGcs.start();
    proxy = await FaultProxy.start(service.port, new Random(1));
  });
  afterEach(async () => {
    proxy.skew = 0;
    for (const driver of open.splice(0)) await driver.close();
  });
  after(async () => {
    await proxy?.stop();
    await service?.stop();
  });

  const connect = (options: GcsOptions): ObjectDriver => {
    const driver = service.driver(options);
    open.push(driver);
    return driver;
  };

  const refused = (what: string, more: () => Partial<GcsOptions>, message: RegExp, fix: RegExp) =>
    test(`does not open with ${what}, and says in one line what to do`, async () => {
      const driver = connect(service.options(await service.makeBucket(), more()));
      await assert.rejects(driver.open(), (error: unknown) => {
        assert.ok(error instanceof OperatorError, String(error));
        assert.match(error.message, message);
        assert.match(error.fix!, fix);
        assert.doesNotMatch(`${error.message}${error.fix}`, /\n|PRIVATE KEY/);
        return true;
      });
    });

  refused(
    'the name of no bucket',
    () => ({ bucket: 'none' }),
    /there is no bucket none/,
    /gcloud storage buckets create/,
  );
  refused(
    'a key that is none',
    () => ({ credentials: { ...FakeGcs.credentials, private_key: 'PRIVATE KEY\n' } }),
    /key of the service account is no such key/,
    /storage\.gcs\.keyfile/,
  );
  refused(
    'a file that is not there',
    () => ({ credentials: undefined, keyFile: '/nowhere/key.json' }),
    /key file cannot be read: ENOENT/,
    /storage\.gcs\.keyfile/,
  );
  refused('a port where nobody listens', () => ({ endpoint: 'http://127.0.0.1:1' }), /ECONNREFUSED/, /network/);
  refused(
    'a clock that is wrong',
    () => {
      proxy.skew = 600_000;
      return { endpoint: proxy.endpoint };
    },
    /lie 10 minutes apart/,
    /set the clock/,
  );

  test('is asked with a token that the key of the service account has signed', async () => {
    let token = '';
    proxy.unknown = ({ headers }) => {
      token ||= headers.authorization!.slice('Bearer '.length);
      return false;
    };
    await connect(service.options(await service.makeBucket(), { endpoint: proxy.endpoint })).open();
    const { payload } = await jwtVerify(token, createPublicKey(FakeGcs.credentials.private_key));
    assert.equal(payload.iss, FakeGcs.credentials.client_email);
    assert.match(String(payload.scope), /devstorage/);
  });

  test('keeps to its root', async () => {
    const bucket = await service.makeBucket();
    const driver = connect(service.options(bucket, { root: 'team/images' }));
    await driver.open();
    await driver.write('docker/x', Buffer.from('x'));
    assert.deepEqual(await driver.list('docker'), [{ name: 'x', folder: false }]);
    const whole = connect(service.options(bucket));
    assert.equal((await whole.get('team/images/docker/x'))?.toString(), 'x');
  });

  test('refuses bytes that are not those whose checksum came with them', async () => {
    const changing = await ChangingProxy.start(service.port, 10_000);
    const driver = connect(service.options(await service.makeBucket(), { endpoint: changing.endpoint }));
    await driver.open();
    const failure = { name: 'StorageError', kind: 'unavailable', message: /HTTP 400/ };
    await assert.rejects(driver.write('docker/x', Buffer.alloc(20_000)), failure);
    await assert.rejects(driver.create('docker/x', Buffer.alloc(20_000)), failure);
    assert.equal(await driver.get('docker/x'), undefined);
    await changing.stop();
  });

  test('joins more objects than the service does at once', async () => {
    const driver = connect(service.options(await service.makeBucket()));
    await driver.open();
    const segments = Array.from({ length: 70 }, (_, n) => `docker/upload/${n}`);
    for (const [n, segment] of segments.entries()) {
      const writer = await driver.createSegment(segment);
      await writer.write(Buffer.from(`${n},`));
      await writer.close();
    }
    await driver.assemble(segments, 'docker/data');
    assert.equal((await driver.get('docker/data'))?.toString(), segments.map((_, n) => `${n},`).join(''));
    assert.deepEqual(await driver.list('registry-secure/tmp'), []);
    assert.equal(driver.passedAgain, 0);
  });

  test('whose service dies is answered for with 503 and Retry-After', async () => {
    const own = await FakeGcs.start();
    const registry = await RegistryFixture.start({ driver: own.driver(own.options(await own.makeBucket())) });
    const image = await registry.pushImage('team/app', 'latest');
    await own.stop();
    const requests = [
      ['GET', '/v2/team/app/manifests/latest'],
      ['HEAD', `/v2/team/app/blobs/${image.layer}`],
      ['POST', '/v2/team/app/blobs/uploads/'],
    ] as const;
    const asked = requests.map(async ([method, path]) => {
      const { status, headers } = await registry.call(method, path);
      assert.deepEqual([status, headers['retry-after']], [503, '10'], `${method} ${path}`);
    });
    await Promise.all(asked);
    await registry.stop();
  });

  test('is served by the variables of the original, and its key is in no line of the log', async () => {
    const bucket = await service.makeBucket();
    const dir = mkdtempSync(join(tmpdir(), 'gcs-key-'));
    const keyFile = join(dir, 'key.json');
    writeFileSync(keyFile, JSON.stringify(FakeGcs.credentials), { mode: 0o600 });
    const env = {
      STORAGE_EMULATOR_HOST: service.endpoint,
      REGISTRY_STORAGE: 'gcs',
      REGISTRY_STORAGE_GCS_BUCKET: bucket,
      REGISTRY_STORAGE_GCS_KEYFILE: keyFile,
      REGISTRY_STORAGE_GCS_ROOTDIRECTORY: '/images',
    };
    await serveByVariables(env, `gs://${bucket}/images`, [
      'PRIVATE KEY',
      FakeGcs.credentials.private_key.slice(60, 90),
    ]);
    rmSync(dir, { recursive: true });
  });
});
