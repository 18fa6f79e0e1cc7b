import assert from 'node:assert/strict';
import { createPublicKey } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { jwtVerify } from 'jose';
import type { GcsOptions } from '../../src/storage/gcs/options.js';
import { GcsStore } from '../../src/storage/gcs.js';
import { SMALLEST_PART } from '../../src/storage/object/parts.js';
import { ObjectDriver } from '../../src/storage/object.js';
import { isUnavailable, Opening } from '../storage/opening.js';
import { serveByVariables } from '../storage/serving.js';
import { ChangingProxy } from '../support/changing-proxy.js';
import { FakeGcs } from '../support/fake-gcs.js';
import { RegistryFixture } from '../support/registry-fixture.js';

describe('a bucket of Google', { timeout: 240_000 }, () => {
  const at = new Opening(() => FakeGcs.start(), /PRIVATE KEY/);

  const connect = (options: GcsOptions): ObjectDriver => at.closing(at.service.driver(options));

  const refused = (what: string, more: () => Partial<GcsOptions>, message: RegExp, fix: RegExp) =>
    at.refuses(what, async () => connect(at.service.options(await at.service.makeBucket(), more())), message, fix);

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
      at.proxy.skew = 600_000;
      return { endpoint: at.proxy.endpoint };
    },
    /lie 10 minutes apart/,
    /set the clock/,
  );

  at.testFormat(async () => {
    const options = at.service.options(await at.service.makeBucket());
    return () => at.service.driver(options);
  });

  test('is asked with a token that the key of the service account has signed', async () => {
    let token = '';
    at.proxy.unknown = ({ headers }) => {
      token ||= headers.authorization!.slice('Bearer '.length);
      return false;
    };
    await connect(at.service.options(await at.service.makeBucket(), { endpoint: at.proxy.endpoint })).open();
    const { payload } = await jwtVerify(token, createPublicKey(FakeGcs.credentials.private_key));
    assert.equal(payload.iss, FakeGcs.credentials.client_email);
    assert.match(String(payload.scope), /devstorage/);
  });

  test('keeps to its root', async () => {
    const bucket = await at.service.makeBucket();
    const driver = connect(at.service.options(bucket, { root: 'team/images' }));
    await driver.open();
    await driver.write('docker/x', Buffer.from('x'));
    assert.deepEqual(await driver.list('docker'), [{ name: 'x', folder: false }]);
    const whole = connect(at.service.options(bucket));
    assert.equal((await whole.get('team/images/docker/x'))?.toString(), 'x');
  });

  test('refuses bytes that are not those whose checksum came with them', async () => {
    const changing = await ChangingProxy.start(at.service.port, 10_000);
    const driver = connect(at.service.options(await at.service.makeBucket(), { endpoint: changing.endpoint }));
    await driver.open();
    const failure = { name: 'StorageError', kind: 'unavailable', message: /HTTP 400/ };
    await assert.rejects(driver.write('docker/x', Buffer.alloc(20_000)), failure);
    await assert.rejects(driver.create('docker/x', Buffer.alloc(20_000)), failure);
    assert.equal(await driver.get('docker/x'), undefined);
    await changing.stop();
  });

  test('loses nothing while its lists do not show what was just written', async () => {
    const store = new GcsStore(at.service.options(await at.service.makeBucket()));
    const driver = at.closing(new ObjectDriver(store, { chunkSize: SMALLEST_PART, readOnly: false }));
    await driver.open();
    await driver.write('docker/x', Buffer.from('x'));
    const later = new Date(Date.now() + 60_000);
    store.list = async () => ({ objects: [], folders: [], next: undefined });
    await assert.rejects(driver.removeStale('docker/x', later), /the lists of this object store lag behind/);
    assert.equal((await driver.get('docker/x'))?.toString(), 'x');
    Reflect.deleteProperty(store, 'list');
    assert.equal(await driver.removeStale('docker/x', later), true);
  });

  test('joins more objects than the service does at once', async () => {
    const driver = connect(at.service.options(await at.service.makeBucket()));
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
    await isUnavailable(registry, image.layer);
    await registry.stop();
  });

  test('is served by the variables of the original, and its key is in no line of the log', async () => {
    const bucket = await at.service.makeBucket();
    const dir = mkdtempSync(join(tmpdir(), 'gcs-key-'));
    const keyFile = join(dir, 'key.json');
    writeFileSync(keyFile, JSON.stringify(FakeGcs.credentials), { mode: 0o600 });
    const env = {
      STORAGE_EMULATOR_HOST: at.service.endpoint,
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
