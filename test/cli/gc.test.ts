import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { layout } from '../../src/store/layout.js';
import { LocalRegistry } from '../support/local-registry.js';
import { type PushedImage, RegistryFixture } from '../support/registry-fixture.js';

describe('collecting garbage on the command line', () => {
  let dir: string;
  let fixture: RegistryFixture;
  let image: PushedImage;
  let untagged: PushedImage;
  let lost: string;

  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'registry-gc-'));
    fixture = await RegistryFixture.start({ root: join(dir, 'data') });
    untagged = await fixture.pushImage('team/app', 'latest');
    image = await fixture.pushImage('team/app', 'latest');
    lost = await fixture.pushBlob('team/app', randomBytes(2048));
    await setAge(2);
  });
  afterEach(async () => {
    await fixture.stop({ keep: true });
    await rm(dir, { recursive: true });
  });

  /** Makes every file look as if it had been written so many days ago. */
  const setAge = async (days: number) => {
    const time = new Date(Date.now() - days * 24 * 3_600_000);
    for (const entry of await readdir(join(dir, 'data/docker'), { recursive: true, withFileTypes: true }))
      if (entry.isFile()) await utimes(join(entry.parentPath, entry.name), time, time);
  };
  const run = (...args: string[]) => LocalRegistry.run(dir, [...args, '--dir', dir]);
  const has = async (reference: string) =>
    (await fixture.call('GET', `/v2/team/app/manifests/${reference}`)).status === 200;
  const hasBytes = (digest: string) => existsSync(join(dir, 'data', layout.blob(digest as `sha256:${string}`)));

  test('gc frees, beside a registry that serves', async () => {
    const { status, stdout, stderr } = await run('gc');
    assert.deepEqual([status, stderr], [0, '']);
    assert.match(stdout, /^layers +1 removed +4 kept$/m);
    assert.match(stdout, /^blobs +1 removed +6 kept$/m);
    assert.match(stdout, /^2\.00 KiB freed$/m);
    assert.ok(!hasBytes(lost));
    assert.ok(await has(untagged.digest));
    assert.ok(await has('latest'));
    assert.ok(existsSync(join(dir, 'data', layout.collected)), 'the next scheduled run comes later');
  });

  test('gc --dry-run --json removes nothing, not even a lease', async () => {
    const { status, stdout } = await run('gc', '--dry-run', '--json', '--untagged');
    assert.equal(status, 0);
    const report = JSON.parse(stdout);
    assert.deepEqual([report.dryRun, report.manifests.removed, report.layers.removed], [true, 1, 3]);
    assert.equal(typeof report.seconds, 'number');
    assert.ok(hasBytes(lost));
    assert.ok(!existsSync(join(dir, 'data', layout.collected)));
    assert.match((await run('gc', '--dry-run')).stdout, /2\.00 KiB would be freed; nothing was removed/);
  });

  test('gc --grace leaves alone what is younger', async () => {
    assert.match((await run('gc', '--grace', '48h')).stdout, /^layers +0 removed/m);
    const { status, stderr } = await run('gc', '--grace', '24');
    assert.equal(status, 2);
    assert.match(stderr, /24 has no unit; write such as 24h/);
    assert.equal((await run('gc', '--grace', 'long')).status, 2);
    assert.match((await run('gc', '--grace', '24h')).stdout, /^layers +1 removed/m);
  });

  test('gc does as the configuration says', async () => {
    const config = join(dir, 'config.yml');
    await writeFile(
      config,
      `storage:
  filesystem: {rootdirectory: ${dir}/data}
  tag: {immutable: [{tags: [v*]}]}
  maintenance:
    gc: {untagged: true}
    retention: {policies: [{keeplast: 1, tags: ['**']}]}
    uploadpurging: {age: 1h}
`,
    );
    await fixture.pushManifest('team/app', 'v1', image.data);
    await fixture.pushManifest('team/app', 'new', image.data);
    const { headers } = await fixture.call('POST', '/v2/team/app/blobs/uploads/');
    const uuid = headers.location!.split('/').at(-1)!;
    await writeFile(join(dir, 'data', layout.uploadStartedAt('team/app', uuid)), '2020-01-02T03:04:05Z');
    await setAge(2);
    const { status, stdout } = await run('gc', config);
    assert.equal(status, 0);
    for (const [what, count] of Object.entries({ tags: 1, manifests: 1, uploads: 1 }))
      assert.match(stdout, new RegExp(`^${what} +${count} removed`, 'm'));
    assert.deepEqual([await has('v1'), await has('new'), await has('latest')], [true, true, false]);
  });

  test('gc says that another one is running', async () => {
    await fixture.driver.create(layout.collectorLease, Buffer.from('{"host":"elsewhere","started":"now"}'));
    const { status, stderr } = await run('gc');
    assert.equal(status, 1);
    assert.match(stderr, /^registry-secure: a collector is running already, on elsewhere, since now; wait until/);
    assert.ok(hasBytes(lost));
  });

  test('gc makes nothing where there is no data', async () => {
    const { status, stderr } = await run('gc', '--root', join(dir, 'absent'));
    assert.equal(status, 1);
    assert.match(stderr, /there is no data folder/);
    assert.ok(!existsSync(join(dir, 'absent')));
  });

  test('garbage-collect is the command of registry:2, with its options and its lines', async () => {
    const config = join(dir, 'config.yml');
    await writeFile(config, `version: 0.1\nstorage: {filesystem: {rootdirectory: ${dir}/data}}\n`);
    const dry = await run('garbage-collect', '--dry-run', '-m', config);
    assert.deepEqual([dry.status, dry.stderr], [0, '']);
    const lines = dry.stdout.split('\n');
    for (const line of [
      'team/app',
      `team/app: marking manifest ${image.digest}`,
      `team/app: marking blob ${image.layer}`,
      `manifest eligible for deletion: ${untagged.digest}`,
      `blob eligible for deletion: ${lost}`,
      '3 blobs marked, 4 blobs and 1 manifests eligible for deletion',
    ])
      assert.ok(lines.includes(line), `${line}\n${dry.stdout}`);
    assert.ok(hasBytes(lost));
    const quiet = await run('garbage-collect', '-q', config);
    assert.deepEqual([quiet.status, quiet.stdout, quiet.stderr], [0, '', '']);
    assert.ok(!hasBytes(lost));
    assert.ok(await has(untagged.digest), 'only with -m');
    await run('garbage-collect', '--delete-untagged', config);
    assert.ok(!(await has(untagged.digest)));
    assert.ok(await has('latest'));
  });

  test('serve does it on its schedule, and not during maintenance', async t => {
    await fixture.stop({ keep: true });
    assert.equal((await run('maintenance', 'on')).status, 0);
    const registry = await LocalRegistry.start(dir, ['up'], {
      env: {
        REGISTRY_STORAGE_MAINTENANCE_GC_INTERVAL: '100ms',
        REGISTRY_STORAGE_MAINTENANCE_GC_UNTAGGED: 'true',
        REGISTRY_STORAGE_MAINTENANCE_UPLOADPURGING_INTERVAL: '100ms',
      },
    });
    t.after(() => registry.stop());
    await registry.call('GET', '/v2/');
    assert.ok(hasBytes(lost));
    assert.equal((await run('maintenance', 'off')).status, 0);
    await registry.until(() => /msg="collected garbage" bytes=\d+ blobs=4 layers=3 manifests=1/.test(registry.stderr));
    assert.match(registry.stderr, new RegExp(`msg="removing the manifest ${untagged.digest}" repository=team/app`));
    assert.ok(!hasBytes(lost));
    fixture = await RegistryFixture.start({ root: join(dir, 'data') });
    assert.ok(await has('latest'));
    // The folder is removed before `after` would do it.
    await registry.stop();
  });
});
