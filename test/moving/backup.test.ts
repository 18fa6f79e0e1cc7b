import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import {
  createReadStream,
  existsSync,
  readdirSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import type { Digest } from '../../src/reference.js';
import { FilesystemDriver } from '../../src/storage/filesystem.js';
import { archiveTo, type BackupOptions, backupTo, releaseBackup, restoreFrom } from '../../src/store/backup.js';
import type { FolderReport } from '../../src/store/copy-folder.js';
import { layout } from '../../src/store/layout.js';
import { type Finding, scrub } from '../../src/store/scrub.js';
import { Store } from '../../src/store/store.js';
import type { Validation } from '../../src/store/validation.js';
import { TarWriter } from '../../src/tar.js';
import { digestOf, indexOf, manifestOf, OCI_INDEX, RegistryFixture } from '../support/registry-fixture.js';

const VALIDATION: Validation = { urls: undefined, indexes: 'all', images: 'all' };

let registry: RegistryFixture;
let scratch: string;
beforeEach(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'registry-backup-'));
  registry = await RegistryFixture.start();
});
afterEach(async () => {
  await registry.stop();
  await rm(scratch, { recursive: true, force: true });
  assert.deepEqual(registry.faults, []);
});

const at = (name: string) => join(scratch, name);
const blobFile = (root: string, digest: Digest) => join(root, layout.blob(digest));

interface Told {
  readonly problems: string[];
}

function telling(): BackupOptions & Told {
  const problems: string[] = [];
  return { validation: VALIDATION, problems, onProblem: problem => problems.push(problem), onProgress: () => {} };
}

async function opened<T>(root: string, task: (driver: FilesystemDriver) => Promise<T>, readOnly = false): Promise<T> {
  const driver = new FilesystemDriver({ root, readOnly });
  await driver.open();
  return task(driver).finally(() => driver.close());
}

/** To a folder of the scratch folder, or an archive there where the name says so. */
async function backup(to: string, { share = false } = {}): Promise<Told & Partial<FolderReport>> {
  const options = telling();
  const source = new FilesystemDriver({ root: registry.root, readOnly: true });
  await source.open();
  if (!to.endsWith('.tar'))
    return { ...options, ...(await opened(at(to), target => backupTo(source, target, { ...options, share }))) };
  const chunks: Buffer[] = [];
  await archiveTo(source, async chunk => void chunks.push(Buffer.from(chunk)), options);
  writeFileSync(at(to), Buffer.concat(chunks));
  return options;
}

async function restore(
  from: string,
  root: string,
  { force = false, share = false, dryRun = false } = {},
): Promise<Told & FolderReport> {
  const options = { ...telling(), force, share, dryRun };
  const restoreIt = (driver: FilesystemDriver) =>
    from.endsWith('.tar')
      ? restoreFrom({ archive: createReadStream(at(from)) }, driver, options)
      : opened(at(from), source => restoreFrom(source, driver, options), true);
  return { ...options, ...(await opened(root, restoreIt, dryRun)) };
}

async function assertClean(root: string): Promise<void> {
  const findings: Finding[] = [];
  await opened(root, driver =>
    scrub(driver, new Store(driver, { largestManifest: 0, validation: VALIDATION }), {
      repair: false,
      validation: VALIDATION,
      patience: 1,
      onFinding: finding => findings.push(finding),
      onProgress: () => {},
    }),
  );
  assert.deepEqual(findings, [], root);
}

/** All files that make up images, with their content. */
function filesOf(root: string): Map<string, string> {
  const files = readdirSync(join(root, 'docker'), { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile())
    .map(entry => join(entry.parentPath, entry.name));
  return new Map(files.sort().map(path => [path.slice(root.length + 1), readFileSync(path, 'latin1')]));
}

function tagOf(root: string, repository: string, tag: string): string {
  return readFileSync(join(root, layout.tagLink(repository, tag)), 'latin1');
}

for (const [to, share] of [
  ['shared', true],
  ['folder', false],
  ['archive.tar', false],
] as const)
  test(`a backup (${to}) has all that tags lead to, and restored it is served as before`, async () => {
    const image = await registry.pushImage('team/app', 'v1');
    await registry.pushManifest('team/app', 'list', indexOf([image.data]), OCI_INDEX);
    await registry.pushBlob('team/app', Buffer.from('{}'));
    const other = manifestOf(Buffer.from('{}'), [], { annotations: { name: 'other' } });
    const sha512 = digestOf(other, 'sha512');
    await registry.pushManifest('team/app', `${sha512}?tag=other`, other);
    const subject = { mediaType: 'x', digest: image.digest, size: image.data.length };
    const signature = manifestOf(Buffer.from('{}'), [], { subject });
    await registry.pushManifest('team/app', digestOf(signature), signature);
    await registry.pushImage('deep/er/name', 'latest');
    const reached = filesOf(registry.root);
    // What no tag leads to stays behind.
    const untagged = manifestOf(Buffer.from('{}'), []);
    await registry.pushManifest('team/app', digestOf(untagged), untagged);
    await registry.pushBlob('team/app', randomBytes(10));

    assert.deepEqual((await backup(to, { share })).problems, []);
    const { problems, keptTags, tags } = await restore(to, at('new'), { share });
    assert.deepEqual([problems, keptTags, tags.written], [[], [], 4]);
    assert.deepEqual(filesOf(at('new')), reached);
    await assertClean(at('new'));
    const served = await RegistryFixture.start({ root: at('new') });
    for (const reference of ['v1', 'list', 'other', image.digest, sha512, digestOf(signature)]) {
      const path = `/v2/team/app/manifests/${reference}`;
      const [before, now] = [await registry.call('GET', path), await served.call('GET', path)];
      const digest = 'docker-content-digest';
      assert.deepEqual([now.status, now.body, now.headers[digest]], [200, before.body, before.headers[digest]]);
    }
    const referrers = await served.call('GET', `/v2/team/app/referrers/${image.digest}`);
    assert.equal((referrers.json() as { manifests: unknown[] }).manifests.length, 1);
    await served.stop();
  });

test('bytes are shared on one file system where that is asked for', async () => {
  const { layer } = await registry.pushImage('a', 'v1');
  const inode = (root: string) => statSync(blobFile(root, layer)).ino;
  assert.deepEqual((await backup('shared', { share: true })).blobs, { copied: 0, shared: 3, kept: 0, removed: 0 });
  assert.deepEqual((await backup('copied')).blobs, { copied: 3, shared: 0, kept: 0, removed: 0 });
  assert.equal(inode(at('shared')), inode(registry.root));
  assert.notEqual(inode(at('copied')), inode(registry.root));
  assert.equal(statSync(blobFile(at('copied'), layer)).mode & 0o777, 0o644);
});

test('each blob is read once, and none is there before it was, whether its bytes can be shared or not', async () => {
  const { digest, data, config, layer } = await registry.pushImage('a', 'v1');
  await registry.pushManifest('a', 'v2', data);
  const blobs = [digest, config, layer].map(digest => layout.blob(digest)).sort();
  const inode = (root: string, key: string) => statSync(join(root, key)).ino;
  const source = new FilesystemDriver({ root: registry.root, readOnly: true });
  await source.open();
  // What is no folder has no bytes to share.
  const bucket = new Proxy(source, {
    getPrototypeOf: () => Object.prototype,
    get: (driver, name) => {
      const value: unknown = Reflect.get(driver, name, driver);
      return typeof value === 'function' ? value.bind(driver) : value;
    },
  });
  for (const [from, shared] of [
    [source, 3],
    [bucket, 0],
  ] as const) {
    const to = at(`to-${shared}`);
    const read: string[] = [];
    let progress: readonly number[] = [];
    const options = { ...telling(), onProgress: (...told: number[]) => (progress = told), share: true };
    await opened(to, async target => {
      for (const driver of [source, target]) {
        const usual = FilesystemDriver.prototype.read;
        driver.read = async (key, range) => {
          const stream = await usual.call(driver, key, range);
          const blob =
            driver === source ? key : (blobs.find(blob => inode(registry.root, blob) === inode(to, key)) ?? key);
          assert.ok(!existsSync(join(to, blob)), 'nobody sees it before');
          read.push(blob);
          return stream;
        };
      }
      assert.equal((await backupTo(from, target, options)).blobs.shared, shared);
    });
    assert.deepEqual([options.problems, read.sort()], [[], blobs]);
    assert.ok(progress[0]! > 0);
    assert.equal(progress[0], progress[1]);
    await assertClean(to);
  }
});

test('a backup in the middle of 200 pushes and more is whole, and has what was answered before it', async () => {
  const answered: Array<[repository: string, tag: string, digest: Digest]> = [];
  let pushed = 0;
  let begin: () => void;
  const middle = new Promise<void>(resolve => {
    begin = resolve;
  });
  let underWay = true;
  const worker = async (name: number) => {
    for (let count = 0; count < 25 || underWay; count++) {
      const [repository, tag] = [`r${(name + count) % 3}`, `t${name}-${count}`];
      const { digest } = await registry.pushImage(repository, tag);
      if (pushed < 100) answered.push([repository, tag, digest]);
      // It moves on the way.
      await registry.pushImage(repository, 'latest');
      pushed += 2;
      if (pushed === 100) begin();
    }
  };
  const pushes = Promise.all([0, 1, 2, 3].map(worker));
  await middle;
  const before = answered.slice();
  const made = await Promise.all([backup('folder', { share: true }), backup('archive.tar')]).finally(() => {
    underWay = false;
  });
  await pushes;
  for (const { problems } of made) assert.deepEqual(problems, []);
  assert.ok(before.length >= 50);
  for (const from of ['folder', 'archive.tar']) {
    const to = at(`new-${from}`);
    await restore(from, to);
    await assertClean(to);
    for (const [repository, tag, digest] of before) assert.equal(tagOf(to, repository, tag), digest);
    for (const repository of ['r0', 'r1', 'r2']) assert.match(tagOf(to, repository, 'latest'), /^sha256:/);
  }
});

describe('a backup in a folder that has one', () => {
  test('is brought up to date: what is new is added, what is gone is removed, the rest is left alone', async () => {
    const old = await registry.pushImage('a', 'old');
    const same = await registry.pushImage('a', 'same');
    await registry.pushImage('gone', 'v1');
    await backup('folder');
    const before = statSync(blobFile(at('folder'), same.layer));
    await registry.call('DELETE', `/v2/a/manifests/${old.digest}`);
    await registry.call('DELETE', '/api/v1/repositories/gone');
    await registry.pushImage('a', 'new');
    await registry.pushImage('b', 'v1');

    const { blobs, tags } = await backup('folder');
    assert.deepEqual(blobs, { copied: 6, shared: 0, kept: 3, removed: 6 });
    assert.deepEqual(tags, { written: 2, same: 1, removed: 2 });
    const after = statSync(blobFile(at('folder'), same.layer));
    assert.deepEqual([after.ino, after.ctimeMs], [before.ino, before.ctimeMs]);
    await backup('fresh');
    assert.deepEqual(filesOf(at('folder')), filesOf(at('fresh')));
  });

  test('keeps what the registry has lost', async () => {
    const rotten = await registry.pushImage('a', 'v1');
    const gone = await registry.pushImage('a', 'v2');
    await backup('folder');
    writeFileSync(blobFile(registry.root, rotten.layer), randomBytes(100));
    writeFileSync(blobFile(registry.root, gone.digest), 'corrupt');
    await registry.pushImage('a', 'v3');
    const { problems } = await backup('folder');
    assert.deepEqual(problems, [`a:v2 is broken: the manifest ${gone.digest} is corrupt`]);
    await assertClean(at('folder'));
    assert.equal(tagOf(at('folder'), 'a', 'v2'), gone.digest, 'as it was');
    assert.match(tagOf(at('folder'), 'a', 'v3'), /^sha256:/);
  });

  test('is refused where it would destroy something else', async () => {
    await registry.pushImage('a', 'v1');
    await backup('served');
    await opened(at('served'), releaseBackup);
    const other = await RegistryFixture.start({ root: at('other') });
    await other.pushImage('b', 'v1');
    await other.stop({ keep: true });
    for (const to of ['served', 'other'])
      await assert.rejects(backup(to), {
        name: 'OperatorError',
        message: /holds images that no backup has put there, or that have been served since/,
      });
  });

  test('loses nothing where the registry has no images, as when its volume is not mounted', async () => {
    await registry.pushImage('a', 'v1');
    await backup('folder');
    const before = filesOf(at('folder'));
    await registry.call('DELETE', '/api/v1/repositories/a');
    await assert.rejects(backup('folder'), { name: 'OperatorError', message: /the data folder has no images/ });
    assert.deepEqual(filesOf(at('folder')), before);
    assert.deepEqual((await backup('fresh')).problems, []);
    assert.equal((await backup('fresh')).tags?.written, 0, 'an empty backup of an empty registry can be made again');
  });
});

test('what is corrupt is left out, and said', async () => {
  const image = await registry.pushImage('a', 'v1');
  const whole = await registry.pushImage('a', 'v2');
  writeFileSync(blobFile(registry.root, image.layer), randomBytes(100));
  for (const to of ['shared', 'folder', 'archive.tar']) {
    const { problems } = await backup(to, { share: to === 'shared' });
    assert.deepEqual(problems, [`a:v1 is broken: ${image.layer} is corrupt`]);
    const root = at(`new-${to}`);
    assert.equal((await restore(to, root)).tags.written, 1);
    assert.equal(tagOf(root, 'a', 'v2'), whole.digest);
    assert.ok(!existsSync(join(root, layout.tagLink('a', 'v1'))));
  }
});

test('what moves or goes while it is copied is no problem', async () => {
  const image = await registry.pushImage('a', 'v1');
  const gone = await registry.pushImage('a', 'v2');
  const moved = await registry.pushImage('a', 'v3');
  const source = new FilesystemDriver({ root: registry.root, readOnly: true });
  await source.open();
  const { get } = source;
  let pulled = false;
  // Once the tags are listed, and before any manifest is read.
  source.get = async (key, limit) => {
    if (!pulled && key.includes('/blobs/')) {
      pulled = true;
      await registry.call('DELETE', `/v2/a/manifests/${gone.digest}`);
      await rm(blobFile(registry.root, gone.digest));
      await registry.pushManifest('a', 'v3', image.data);
      await rm(blobFile(registry.root, moved.layer));
    }
    return get.call(source, key, limit);
  };
  const options = telling();
  await opened(at('folder'), target => backupTo(source, target, { ...options, share: false }));
  assert.deepEqual(options.problems, []);
  assert.equal(tagOf(at('folder'), 'a', 'v3'), image.digest);
  assert.ok(!existsSync(join(at('folder'), layout.tagLink('a', 'v2'))));
  await assertClean(at('folder'));
});

describe('restoring into a registry that has images', () => {
  for (const from of ['folder', 'archive.tar'])
    test(`from ${from}: adds, keeps tags that have moved since, and moves them only when asked`, async () => {
      const old = await registry.pushImage('a', 'moved');
      const lost = await registry.pushImage('a', 'lost');
      await backup(from);
      const newer = await registry.pushImage('a', 'moved');
      await registry.pushImage('a', 'added');
      await registry.call('DELETE', `/v2/a/manifests/${lost.digest}`);

      const before = filesOf(registry.root);
      const dry = await restore(from, registry.root, { dryRun: true });
      assert.deepEqual(filesOf(registry.root), before);
      const kept = [{ repository: 'a', tag: 'moved', here: newer.digest, there: old.digest }];
      const { tags, keptTags, blobs } = await restore(from, registry.root);
      for (const report of [dry, { tags, keptTags, blobs }])
        assert.deepEqual(
          [report.tags, report.keptTags, report.blobs.kept],
          [{ written: 1, same: 0, removed: 0 }, kept, 6],
        );
      assert.equal((await registry.call('GET', '/v2/a/manifests/lost')).status, 200);
      assert.equal(tagOf(registry.root, 'a', 'moved'), newer.digest);
      await restore(from, registry.root, { force: true });
      assert.equal(tagOf(registry.root, 'a', 'moved'), old.digest);
      assert.equal((await registry.call('HEAD', '/v2/a/manifests/added')).status, 200);
      await assertClean(registry.root);
    });

  test('puts back the bytes that are missing', async () => {
    const image = await registry.pushImage('a', 'v1');
    await backup('folder');
    await rm(blobFile(registry.root, image.layer));
    await rm(join(registry.root, layout.layerLink('a', image.config)));
    const { blobs } = await restore('folder', registry.root);
    assert.deepEqual(blobs, { copied: 1, shared: 0, kept: 2, removed: 0 });
    await assertClean(registry.root);
  });
});

describe('an archive', () => {
  const write = async (name: string, files: ReadonlyArray<readonly [string, string | Buffer]>) => {
    const chunks: Buffer[] = [];
    const tar = new TarWriter(async chunk => void chunks.push(Buffer.from(chunk)));
    for (const [key, content] of files) {
      const data = Buffer.from(content);
      await tar.add(
        key,
        data.length,
        new Date(),
        (async function* () {
          yield data;
        })(),
      );
    }
    await tar.end();
    writeFileSync(at(name), Buffer.concat(chunks));
  };

  test('that ends early is refused, and leaves whole images only', async () => {
    for (let count = 0; count < 5; count++) await registry.pushImage('a', `v${count}`);
    await backup('archive.tar');
    const { size } = statSync(at('archive.tar'));
    for (const part of [0.9, 0.5, 0.3]) {
      truncateSync(at('archive.tar'), Math.floor(size * part));
      await assert.rejects(restore('archive.tar', at('new')), { name: 'OperatorError', message: /it ends early/ });
      await assertClean(at('new'));
    }
  });

  test('whose files are in any order is restored', async () => {
    await registry.pushImage('a', 'v1');
    const files = [...filesOf(registry.root)].map(([key, data]) => [`./${key}`, Buffer.from(data, 'latin1')] as const);
    await write('packed.tar', files.reverse());
    assert.deepEqual((await restore('packed.tar', at('new'))).problems, []);
    assert.deepEqual(filesOf(at('new')), filesOf(registry.root));
  });

  test('cannot write elsewhere, nor link what is not there, nor pass bytes for others', async () => {
    const good = Buffer.from('good');
    const [digest, absent] = [digestOf(good), digestOf(Buffer.from('absent'))];
    await write('hostile.tar', [
      ['../../escaped', 'x'],
      ['/etc/escaped', 'x'],
      ['docker/registry/v2/repositories/../../../../escaped/_layers/sha256/x/link', 'x'],
      ['docker/registry/v2/repositories/UPPER/_manifests/tags/v1/current/link', digest],
      ['registry-secure/maintenance', '{}'],
      [layout.blob(absent), 'other bytes'],
      [layout.blob(digest), good],
      [layout.layerLink('a', digest), digest],
      [layout.layerLink('b', absent), digest],
      [layout.revisionLink('a', absent), absent],
      [layout.tagLink('a', 'v1'), absent],
      [layout.tagLink('a', 'v2'), 'nonsense'],
      [layout.record('a', digest), 'no JSON'],
    ]);
    const { problems } = await restore('hostile.tar', at('new'));
    assert.equal(problems.length, 5, problems.join('\n'));
    assert.deepEqual([...filesOf(at('new')).keys()], [layout.blob(digest), layout.layerLink('a', digest)]);
    assert.ok(!existsSync(join(at('new'), layout.maintenance)));
    assert.deepEqual(readdirSync(scratch).sort(), ['hostile.tar', 'new']);
  });

  test('that is none is refused', async () => {
    writeFileSync(at('text.tar'), 'no archive'.repeat(1000));
    await assert.rejects(restore('text.tar', at('new')), { message: /no tar archive: a header is wrong/ });
  });
});
