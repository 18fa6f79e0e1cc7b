import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { stat, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Digest } from '../../src/reference.js';
import { layout } from '../../src/store/layout.js';
import { digestOf, indexOf, manifestOf, OCI_INDEX, RegistryFixture } from '../support/registry-fixture.js';

const HOUR = 3_600_000;

describe('leases: what an answer called present stays for the grace of a day', () => {
  let registry: RegistryFixture;
  before(async () => {
    registry = await RegistryFixture.start();
  });
  after(async () => {
    await registry.stop();
    assert.deepEqual(registry.faults, []);
  });

  const setAge = async (keys: readonly string[], hours: number) => {
    const time = new Date(Date.now() - hours * HOUR);
    for (const key of keys) await utimes(join(registry.root, key), time, time);
  };
  /** Hours since the last change, rounded. */
  const ages = (keys: readonly string[]) =>
    Promise.all(
      keys.map(async key => Math.abs(Math.round((Date.now() - (await stat(join(registry.root, key))).mtimeMs) / HOUR))),
    );
  const blobKeys = (repository: string, digest: Digest) => [layout.layerLink(repository, digest), layout.blob(digest)];
  const manifestKeys = (repository: string, digest: Digest) => [
    layout.revisionLink(repository, digest),
    layout.blob(digest),
  ];
  const path = (repository: string, kind: 'blobs' | 'manifests', reference: string) =>
    `/v2/${repository}/${kind}/${reference}`;

  test('HEAD of a blob renews its link and its bytes, when they have become old', async () => {
    const keys = blobKeys('head/blob', await registry.pushBlob('head/blob', randomBytes(10)));
    const ask = () => registry.call('HEAD', path('head/blob', 'blobs', `sha256:${keys[1]!.split('/').at(-2)}`));
    await setAge(keys, 5);
    assert.equal((await ask()).status, 200);
    assert.deepEqual(await ages(keys), [5, 5], 'younger than a quarter of the grace');
    await setAge(keys, 7);
    assert.equal((await ask()).status, 200);
    assert.deepEqual(await ages(keys), [0, 0]);
  });

  test('GET renews nothing', async () => {
    const digest = await registry.pushBlob('get', randomBytes(10));
    const image = await registry.pushImage('get', 'latest');
    const keys = [...blobKeys('get', digest), ...manifestKeys('get', image.digest)];
    await setAge(keys, 48);
    assert.equal((await registry.call('GET', path('get', 'blobs', digest))).status, 200);
    assert.equal((await registry.call('GET', path('get', 'manifests', image.digest))).status, 200);
    assert.deepEqual(await ages(keys), [48, 48, 48, 48]);
  });

  test('HEAD of a manifest by digest renews its link and its bytes', async () => {
    const { digest } = await registry.pushImage('head/manifest', 'latest');
    const keys = manifestKeys('head/manifest', digest);
    await setAge(keys, 48);
    assert.equal((await registry.call('HEAD', path('head/manifest', 'manifests', digest))).status, 200);
    assert.deepEqual(await ages(keys), [0, 0]);
  });

  test('a manifest asked for by another digest is renewed under its canonical one too', async () => {
    const config = Buffer.from('{}');
    await registry.pushBlob('head/sha512', config);
    const data = manifestOf(config, []);
    const long = digestOf(data, 'sha512');
    assert.equal((await registry.pushManifest('head/sha512', long, data)).status, 201);
    const keys = [layout.revisionLink('head/sha512', long), ...manifestKeys('head/sha512', digestOf(data))];
    await setAge(keys, 48);
    assert.equal((await registry.call('HEAD', path('head/sha512', 'manifests', long))).status, 200);
    assert.deepEqual(await ages(keys), [0, 0, 0]);
  });

  test('a mount renews both ends', async () => {
    const digest = await registry.pushBlob('mount/from', randomBytes(10));
    const keys = blobKeys('mount/from', digest);
    await setAge(keys, 48);
    const mount = `/v2/mount/to/blobs/uploads/?mount=${digest}&from=mount/from`;
    assert.equal((await registry.call('POST', mount)).status, 201);
    assert.deepEqual(await ages([...keys, ...blobKeys('mount/to', digest)]), [0, 0, 0, 0]);
  });

  test('a blob that is pushed again is young again', async () => {
    const data = randomBytes(10);
    const keys = blobKeys('again', await registry.pushBlob('again', data));
    await setAge(keys, 48);
    await registry.pushBlob('again', data);
    assert.deepEqual(await ages(keys), [0, 0]);
  });

  test('a manifest renews every blob that it names', async () => {
    const [config, layer] = [Buffer.from('{"os":"linux"}'), randomBytes(10)];
    const digests = [await registry.pushBlob('put', config), await registry.pushBlob('put', layer)];
    const keys = digests.flatMap(digest => blobKeys('put', digest));
    await setAge(keys, 48);
    assert.equal((await registry.pushManifest('put', 'latest', manifestOf(config, [layer]))).status, 201);
    assert.deepEqual(await ages(keys), [0, 0, 0, 0]);
  });

  test('an index renews every manifest and every blob that it lists', async () => {
    const { data, digest } = await registry.pushImage('index', 'child');
    const cached = randomBytes(10);
    const keys = [...manifestKeys('index', digest), ...blobKeys('index', await registry.pushBlob('index', cached))];
    await setAge(keys, 48);
    // As a cache of BuildKit, it lists a layer among the manifests.
    assert.equal((await registry.pushManifest('index', 'latest', indexOf([data, cached]), OCI_INDEX)).status, 201);
    assert.deepEqual(await ages(keys), [0, 0, 0, 0]);
  });
});
