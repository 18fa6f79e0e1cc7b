import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { LocalRegistry } from '../support/local-registry.js';

let dir: string;
before(() => {
  dir = mkdtempSync(join(tmpdir(), 'registry-maintenance-'));
});
after(() => rmSync(dir, { recursive: true, force: true }));

const maintenance = (...args: string[]) => LocalRegistry.run(dir, ['maintenance', ...args, '--dir', dir]);

test('maintenance reaches a serving process, and ends', async t => {
  const registry = await LocalRegistry.start(dir, ['up']);
  t.after(() => registry.stop());
  const auth = `admin:${registry.password}`;
  const push = async () => (await registry.call('POST', '/v2/a/blobs/uploads/', { auth })).status;
  const answers = (wanted: number) => registry.until(async () => (await push()) === wanted);
  assert.equal(await push(), 202);
  assert.match((await maintenance('status')).stdout, /^everything is served$/m);

  const on = await maintenance('on', '--reason', 'moving disks');
  assert.deepEqual([on.status, on.stderr], [0, '']);
  await answers(405);
  const refused = await registry.call('POST', '/v2/a/blobs/uploads/', { auth });
  assert.match(refused.body.toString(), /read-only for maintenance: moving disks/);
  assert.equal((await registry.call('GET', '/v2/_catalog', { auth })).status, 200);
  await registry.until(() => /level=warn msg="read-only for maintenance/.test(registry.stderr));
  const { maintenance: active, reason } = JSON.parse((await maintenance('status', '--json')).stdout);
  assert.deepEqual([active, reason], [true, 'moving disks']);

  assert.equal((await maintenance('off')).status, 0);
  await answers(202);
  assert.match((await maintenance('off')).stdout, /there was no maintenance/);
});

test('where there is no data it says so, and makes none', async () => {
  const { status, stderr } = await LocalRegistry.run(dir, ['maintenance', 'on', '--root', join(dir, 'absent')]);
  assert.equal(status, 1);
  assert.match(stderr, /^registry-secure: there is no data folder \S*absent; check the path, or the mount$/m);
  assert.equal((await LocalRegistry.run(dir, ['maintenance', 'on', '--reason', 'two\nlines'])).status, 2);
});

test('serve with storage.maintenance.readonly.enabled refuses pushes and needs nothing writable', async t => {
  const env = { REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED: 'true' };
  const registry = await LocalRegistry.start(dir, ['up'], { env });
  t.after(() => registry.stop());
  const auth = `admin:${registry.password}`;
  assert.equal((await registry.call('GET', '/v2/_catalog', { auth })).status, 200);
  assert.equal((await registry.call('POST', '/v2/a/blobs/uploads/', { auth })).status, 405);
});
