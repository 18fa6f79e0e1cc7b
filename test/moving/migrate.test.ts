import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, truncateSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { FilesystemDriver } from '../../src/storage/filesystem.js';
import { releaseBackup } from '../../src/store/backup.js';
import { LASTING, layout } from '../../src/store/layout.js';
import { type MigrateReport, migrate } from '../../src/store/migrate.js';
import { SETTLED } from '../storage/places.js';
import {
  descriptorOf,
  indexOf,
  manifestOf,
  OCI_INDEX,
  OCI_MANIFEST,
  RegistryFixture,
} from '../support/registry-fixture.js';

let registry: RegistryFixture;
let target: string;
let problems: string[];
beforeEach(async () => {
  target = await mkdtemp(join(tmpdir(), 'registry-migrate-'));
  const root = await mkdtemp(join(tmpdir(), 'registry-migrate-from-'));
  registry = await RegistryFixture.start({
    root,
    driver: new FilesystemDriver({ root, settled: SETTLED, sync: async () => {} }),
  });
});
afterEach(async () => {
  await registry.stop();
  await rm(target, { recursive: true });
  assert.deepEqual(registry.faults, []);
});

async function run({
  dryRun = false,
  share = false,
  onTarget = async (_: FilesystemDriver): Promise<void> => {},
} = {}): Promise<MigrateReport> {
  problems = [];
  const onProblem = (problem: string) => void problems.push(problem);
  const [source, place] = [registry.root, target].map(
    (root, at) => new FilesystemDriver({ root, readOnly: at === 0, sync: async () => {} }),
  ) as [FilesystemDriver, FilesystemDriver];
  await source.open();
  await place.open();
  await onTarget(place);
  return migrate(source, place, { jobs: 4, share, dryRun, onProgress: () => {}, onProblem });
}

/** What is to be the same on both sides, by its path. */
function contentOf(root: string): Record<string, string> {
  const files = readdirSync(root, { recursive: true, withFileTypes: true }).filter(entry => entry.isFile());
  return Object.fromEntries(
    files
      .map(file => join(file.parentPath, file.name))
      .map(path => [path.slice(root.length + 1), path] as const)
      .filter(([key]) => !key.includes('/_uploads/') && (key.startsWith('docker/') || isLasting(key)))
      .map(([key, path]) => [key, readFileSync(path, 'latin1')] as const)
      .sort(([one], [other]) => (one < other ? -1 : 1)),
  );
}

const isLasting = (key: string) => LASTING.some(folder => key === folder || key.startsWith(`${folder}/`));

const own = (key: string, content: string) =>
  new FilesystemDriver({ root: registry.root }).write(`registry-secure/${key}`, Buffer.from(content));

const MOMENTARY = ['maintenance', 'collector', 'collected', 'tmp/f', 'quarantine/g-h', 'removers/i'];

test('of each key it is known whether it goes along', () => {
  const digest = `sha256:${'0'.repeat(64)}` as const;
  const keys = Object.values(layout).map(key =>
    typeof key === 'string' ? key : (key as (...given: unknown[]) => string)(digest, digest, digest),
  );
  const own = keys.filter(key => key.startsWith('registry-secure/'));
  const stay = own.filter(key => !isLasting(key)).map(key => key.split('/')[1]);
  assert.deepEqual([...new Set(stay)].sort(), ['backup', 'collected', 'collector', 'maintenance', 'quarantine', 'tmp']);
  assert.ok(own.length > stay.length + LASTING.length);
});

test('everything goes: tags and their past, what has no tag, signatures, accounts and keys; uploads and leases stay', async () => {
  const first = await registry.pushImage('team/app', 'v1');
  const image = await registry.pushImage('team/app', 'v1');
  await registry.pushImage('team/app', 'sig', { subject: descriptorOf(image.data, OCI_MANIFEST) });
  await registry.pushManifest('team/app', 'index', indexOf([image.data, first.data]), OCI_INDEX);
  await registry.pushImage('other', 'v1');
  const config = Buffer.from('{"lonely":1}');
  await registry.pushBlob('other', config);
  await registry.pushManifest(
    'other',
    descriptorOf(manifestOf(config, []), OCI_MANIFEST).digest,
    manifestOf(config, []),
  );
  await registry.pushBlob('blobs/only', Buffer.from('pushed, and not yet used'));
  assert.equal((await registry.call('POST', '/v2/under/way/blobs/uploads/')).status, 202);
  for (const key of ['accounts/a', 'machine-tokens/b', 'token-keys/c', 'audit/heads/d', 'ended-sessions/e'])
    await own(key, key);
  for (const key of MOMENTARY) await own(key, '{}');

  const dry = await run({ dryRun: true });
  assert.deepEqual(contentOf(target), {});
  const done = await run();
  assert.deepEqual([problems, dry.blobs.copied, dry.tags.written], [[], done.blobs.copied, 4]);
  assert.equal(done.state.written, 5);
  const expected = contentOf(registry.root);
  assert.ok(Object.keys(expected).length > 40);
  assert.deepEqual(contentOf(target), expected);
  for (const key of MOMENTARY) assert.ok(!existsSync(join(target, 'registry-secure', key)));
  assert.ok(!existsSync(join(target, 'docker/registry/v2/repositories/under')));
});

test('given again it takes what is new and lets go what is gone, until somebody serves the place', async () => {
  const gone = await registry.pushImage('team/app', 'v1');
  await registry.pushImage('team/gone', 'v1');
  await own('machine-tokens/revoked', '{}');
  const first = await run();
  assert.deepEqual([first.tags.written, first.blobs.copied, first.state.written], [2, 6, 1]);
  const same = await run();
  assert.deepEqual([same.tags, same.blobs.copied, same.state.same], [{ written: 0, same: 2, removed: 0 }, 0, 1]);

  await registry.pushImage('team/app', 'v2');
  assert.equal((await registry.call('DELETE', `/v2/team/app/manifests/${gone.digest}`)).status, 202);
  await rm(join(registry.root, layout.repository('team/gone')), { recursive: true });
  await rm(join(registry.root, 'registry-secure/machine-tokens/revoked'));
  const before = contentOf(target);
  const dry = await run({ dryRun: true });
  assert.deepEqual(contentOf(target), before);
  const next = await run();
  assert.deepEqual(
    [dry.tags, dry.blobs, dry.state],
    [next.tags, next.blobs, next.state],
    'a dry run says what would be removed',
  );
  assert.deepEqual([next.tags, next.blobs.copied, next.state.removed], [{ written: 1, same: 0, removed: 2 }, 3, 1]);
  assert.deepEqual(problems, []);
  const served = await RegistryFixture.start({ root: target });
  assert.equal(
    (await served.call('GET', '/v2/team/app/tags/list')).body.toString(),
    '{"name":"team/app","tags":["v2"]}',
  );
  assert.equal((await served.call('GET', '/v2/team/gone/tags/list')).status, 404);
  assert.equal((await served.call('HEAD', `/v2/team/app/manifests/${gone.digest}`)).status, 404);
  await served.stop({ keep: true });

  const place = new FilesystemDriver({ root: target });
  await place.open();
  await releaseBackup(place);
  await assert.rejects(run(), { name: 'OperatorError', message: /that have been served since/ });
});

test('a registry that begins to serve the place loses nothing to a pass that is running', async () => {
  await registry.pushImage('team/gone', 'v1');
  await own('machine-tokens/revoked', '{}');
  await run();
  await rm(join(registry.root, layout.repository('team/gone')), { recursive: true });
  await rm(join(registry.root, 'registry-secure/machine-tokens/revoked'));
  await registry.pushImage('team/app', 'v1');
  const before = contentOf(target);
  // When everything is read and nothing is removed yet.
  const release = async (place: FilesystemDriver) => {
    const { write } = place;
    place.write = async (key, data, settling) => {
      await write.call(place, key, data, settling);
      if (key === layout.tagLink('team/app', 'v1')) await releaseBackup(place);
    };
  };
  await assert.rejects(run({ onTarget: release }), { message: /served or written to since this began/ });
  const after = contentOf(target);
  for (const [key, content] of Object.entries(before)) assert.equal(after[key], content, key);
  assert.ok(layout.tagLink('team/app', 'v1') in after);
});

test('a place that is served and has no images yet loses neither its keys nor its tokens', async () => {
  await registry.pushImage('team/app', 'v1');
  const place = new FilesystemDriver({ root: target });
  await place.open();
  await place.write('registry-secure/collected', Buffer.from('of the moment'));
  const key = layout.tokenKey('1-a');
  await place.write(key, Buffer.from('k'));
  for (const dryRun of [true, false])
    await assert.rejects(run({ dryRun }), { message: /has been served: it holds registry-secure\/token-keys\/1-a/ });
  assert.deepEqual(contentOf(target), { [key]: 'k' });
  await place.remove(key);
  assert.equal((await run()).tags.written, 1);
});

test('what is corrupt is named and left out, and nothing is removed then', async () => {
  const { layer } = await registry.pushImage('team/app', 'v1');
  await registry.pushImage('team/gone', 'v1');
  await run();
  await registry.pushImage('team/app', 'v2');
  const broken = await registry.pushImage('team/app', 'v3');
  truncateSync(join(registry.root, layout.blob(broken.layer)), 50);
  truncateSync(join(registry.root, layout.blob(broken.digest)), 50);
  await rm(join(registry.root, layout.repository('team/gone')), { recursive: true });
  const report = await run();
  assert.deepEqual(problems.map(problem => problem.replace(/sha256:\w+/g, 'D')).sort(), [
    'team/app:v3 lacks the manifest D',
    'team/app@D is broken: D is corrupt',
    'team/app@D is broken: D is corrupt',
  ]);
  assert.deepEqual([report.tags.written, report.tags.removed, report.blobs.removed], [1, 0, 0]);
  assert.ok(existsSync(join(target, layout.tagLink('team/gone', 'v1'))));
  assert.ok(existsSync(join(target, layout.blob(layer))));
  assert.ok(!existsSync(join(target, layout.blob(broken.layer))));
});

test('a tag that was deleted and made anew between two looks has no other past in the place than in the source', async () => {
  const links = (root: string) => Object.keys(contentOf(root)).filter(key => key.includes('/tags/'));
  const { digest } = await registry.pushImage('team/app', 'v1');
  await registry.pushImage('team/app', 'v1');
  await run();
  assert.equal(links(target).length, 3);
  assert.deepEqual(links(target), links(registry.root));
  assert.equal((await registry.call('DELETE', '/v2/team/app/manifests/v1')).status, 202);
  await registry.pushImage('team/app', 'v1');
  const before = links(target);
  await run({ dryRun: true });
  assert.deepEqual(links(target), before);
  await run();
  assert.equal(links(target).length, 2);
  assert.deepEqual(links(target), links(registry.root));
  assert.ok(layout.revisionLink('team/app', digest) in contentOf(target), 'the image itself is there as in the source');
});

test('while others push, delete and move tags: the last look has all of it, and no look has a tag without its image', async () => {
  let looks = 0;
  const pushes = (async () => {
    for (let at = 0; at < 15 || looks < 3; at++) {
      const { digest } = await registry.pushImage(`team/app${at % 3}`, `v${at % 7}`);
      if (at % 5 === 0) await registry.call('DELETE', `/v2/team/app${at % 3}/manifests/${digest}`);
    }
  })();
  for (; looks < 3; looks++) {
    await run({ share: true });
    assert.deepEqual(problems, []);
    const there = contentOf(target);
    for (const [key, digest] of Object.entries(there))
      if (key.endsWith('/current/link')) assert.ok(layout.blob(digest as `sha256:${string}`) in there, key);
  }
  await pushes;
  await run({ share: true });
  assert.deepEqual(problems, []);
  // The bytes of what was deleted are the collector's.
  const links = (root: string) => Object.entries(contentOf(root)).filter(([key]) => key.endsWith('/link'));
  assert.ok(links(target).length > 30);
  assert.deepEqual(links(target), links(registry.root));
});
