import assert from 'node:assert/strict';
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { FilesystemDriver } from '../../src/storage/filesystem.js';
import { type PushedImage, RegistryFixture } from '../support/registry-fixture.js';

const WHY = 'the registry is read-only for maintenance: moving disks';

describe('a read-only registry', () => {
  let registry: RegistryFixture;
  let image: PushedImage;
  let upload: string;
  before(async () => {
    registry = await RegistryFixture.start();
    image = await registry.pushImage('a/b', 'v1');
    upload = (await registry.call('POST', '/v2/a/b/blobs/uploads/')).headers.location!;
    registry.readOnly = WHY;
  });
  after(async () => {
    assert.deepEqual(registry.faults, []);
    await registry.stop();
  });

  test('answers whatever changes something with 405, the reason, and what is allowed', async () => {
    for (const [method, path] of [
      ['POST', '/v2/a/b/blobs/uploads/'],
      ['POST', `/v2/c/blobs/uploads/?mount=${image.layer}&from=a/b`],
      ['PATCH', upload],
      ['PUT', `${upload}?digest=${image.layer}`],
      ['DELETE', upload],
      ['PUT', '/v2/a/b/manifests/v2'],
      ['DELETE', '/v2/a/b/manifests/v1'],
      ['DELETE', `/v2/a/b/manifests/${image.digest}`],
      ['DELETE', `/v2/a/b/blobs/${image.layer}`],
      ['DELETE', '/api/v1/repositories/a/b'],
    ] as const) {
      const answer = await registry.call(method, path, { body: method === 'DELETE' ? '' : image.data });
      assert.deepEqual([answer.status, answer.code], [405, 'UNSUPPORTED'], `${method} ${path}`);
      assert.equal((answer.json() as { errors: [{ message: string }] }).errors[0].message, WHY);
      assert.doesNotMatch(answer.headers.allow ?? '', /POST|PUT|PATCH|DELETE/);
    }
  });

  test('serves whatever reads', async () => {
    for (const path of [
      '/v2/',
      '/v2/_catalog',
      '/v2/a/b/tags/list',
      '/v2/a/b/manifests/v1',
      `/v2/a/b/manifests/${image.digest}`,
      `/v2/a/b/blobs/${image.layer}`,
      `/v2/a/b/referrers/${image.digest}`,
    ])
      for (const method of ['GET', 'HEAD'])
        assert.equal((await registry.call(method, path)).status, 200, `${method} ${path}`);
    assert.equal((await registry.call('GET', upload)).status, 204);
  });

  test('goes on where it was when it is over', async () => {
    registry.readOnly = undefined;
    assert.equal((await registry.call('PATCH', upload, { body: 'x' })).status, 202);
    assert.equal((await registry.pushManifest('a/b', 'v2', image.data)).status, 201);
  });
});

test('a volume that is opened for reading is served, and nothing in it changes', async t => {
  const writing = await RegistryFixture.start();
  const image = await writing.pushImage('a/b', 'v1');
  await writing.stop({ keep: true });
  const files = () =>
    readdirSync(writing.root, { recursive: true, encoding: 'utf8' })
      .sort()
      .map(name => [name, statSync(join(writing.root, name)).ctimeMs]);
  const before = files();
  const registry = await RegistryFixture.start({ root: writing.root, readOnlyVolume: true });
  t.after(() => registry.stop());
  registry.readOnly = WHY;
  for (const path of ['manifests/v1', `blobs/${image.layer}`, 'tags/list'])
    for (const method of ['GET', 'HEAD'])
      assert.equal((await registry.call(method, `/v2/a/b/${path}`)).status, 200, `${method} ${path}`);
  assert.deepEqual(files(), before);
  await assert.rejects(registry.driver.write('x', Buffer.alloc(0)), { name: 'StorageError', kind: 'unavailable' });
  assert.deepEqual(registry.faults, []);
});

test('a folder that is not there is not made for reading', async () => {
  const driver = new FilesystemDriver({ root: '/nonexistent/registry', readOnly: true });
  await assert.rejects(driver.open(), {
    name: 'OperatorError',
    message: 'there is no data folder /nonexistent/registry',
  });
});
