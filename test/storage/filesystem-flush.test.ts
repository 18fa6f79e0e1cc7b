import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { type Sync, sync } from '../../src/storage/filesystem/flusher.js';
import { FilesystemDriver } from '../../src/storage/filesystem.js';

/** What a disk does when it is told to flush: `undefined` lets the real one work. */
type Disk = (path: string, kind: 'file' | 'folder') => Promise<void> | undefined;

const systemError = (code: string) => Object.assign(new Error(`${code}: injected, fsync`), { code });
const TAG = 'docker/registry/v2/repositories/team/app/_manifests/tags/latest/current/link';

describe('flushes', () => {
  let root: string;
  let flushed: string[];
  let disk: Disk;
  let faults: string[];
  let driver: FilesystemDriver;

  const real: Disk = () => undefined;
  const watched: Sync = async (descriptor, path, kind) => {
    const name = relative(root, path);
    const shown = name.startsWith('registry-secure/tmp/') ? 'a temporary file' : name || 'the root';
    flushed.push(shown);
    await (disk(shown, kind) ?? sync(descriptor, path, kind));
  };
  const connect = async () => {
    const opened = new FilesystemDriver({ root, sync: watched, onFault: message => faults.push(message) });
    await opened.open();
    flushed = [];
    return opened;
  };
  /** The flushes of one action, in order. */
  const during = async (action: () => Promise<unknown>) => {
    flushed = [];
    await action();
    return flushed;
  };
  /** The folder and all above it, as they are flushed. */
  const chain = (folder: string): string[] =>
    folder.includes('/')
      ? [folder, ...chain(folder.slice(0, folder.lastIndexOf('/')))]
      : [folder, ...(folder === 'the root' ? [] : ['the root'])];
  const folderOf = (key: string) => key.slice(0, key.lastIndexOf('/'));
  const segment = async (key: string, size = 10) => {
    const writer = await driver.createSegment(key);
    try {
      for (let left = size; left > 0; left -= 65_536) await writer.write(Buffer.alloc(Math.min(left, 65_536), 1));
      await writer.close();
    } catch (error) {
      await writer.abort();
      throw error;
    }
  };
  /** Beside so many others it gets no batches that could go past the page cache. */
  const segmentAmongMany = async (key: string, size: number) => {
    const others = await Promise.all(Array.from({ length: 40 }, (_, n) => driver.createSegment(`uploads/others/${n}`)));
    try {
      await segment(key, size);
    } finally {
      for (const other of others) await other.abort();
    }
  };
  const temporaries = () => readdirSync(join(root, 'registry-secure/tmp'));

  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'registry-secure-'));
    [disk, faults, flushed] = [real, [], []];
    driver = await connect();
  });
  afterEach(() => rm(root, { recursive: true }));

  test('a new root is flushed into the folders that were made for it, and the one that holds them', async () => {
    const opened = new FilesystemDriver({ root: join(root, 'a/b/c'), sync: watched });
    const before = (await during(() => opened.open())).slice(0, 3);
    assert.deepEqual(before, ['a/b', 'a', 'the root']);
    assert.ok(!flushed.includes('..'), flushed.join());
  });

  test('write, create and assemble flush the file and then every folder up to the root', async () => {
    const [created, blob] = ['docker/registry/v2/a/_layers/link', 'docker/blobs/sha256/00/data'];
    await segment('uploads/1');
    for (const [action, expected] of [
      [() => driver.write(TAG, Buffer.from('x')), ['a temporary file', ...chain(folderOf(TAG))]],
      // Of the new folders only: the ones that both share are on the disk already.
      [
        () => driver.create(created, Buffer.from('x')),
        ['a temporary file', 'docker/registry/v2/a/_layers', 'docker/registry/v2/a', 'docker/registry/v2'],
      ],
      [
        () => driver.assemble(['uploads/1'], blob),
        ['uploads/1', 'docker/blobs/sha256/00', 'docker/blobs/sha256', 'docker/blobs', 'docker'],
      ],
    ] as const)
      assert.deepEqual(await during(action), expected);
  });

  test('a folder that is known to be on the disk needs no more than itself', async () => {
    await driver.write(TAG, Buffer.from('one'));
    assert.deepEqual(await during(() => driver.write(TAG, Buffer.from('two'))), ['a temporary file', folderOf(TAG)]);
    assert.deepEqual(await during(() => driver.remove(TAG)), [folderOf(TAG)]);
  });

  test('a folder that another process has removed and made again is flushed with all above', async () => {
    await driver.write(TAG, Buffer.from('x'));
    const repository = 'docker/registry/v2/repositories/team/app';
    for (const again of ['one', 'two', 'three']) {
      const other = new FilesystemDriver({ root });
      await other.removeAll(repository);
      await other.create(TAG, Buffer.from(again), { durable: false });
      const expected = chain(folderOf(TAG)).slice(0, chain(folderOf(TAG)).indexOf(folderOf(repository)) + 1);
      assert.deepEqual(await during(() => driver.write(TAG, Buffer.from('x'))), ['a temporary file', ...expected]);
    }
  });

  test('a folder that this process has removed and made again, too', async () => {
    await driver.write('docker/tags/latest/link', Buffer.from('x'));
    assert.deepEqual(await during(() => driver.removeAll('docker/tags')), ['docker']);
    assert.deepEqual(await during(() => driver.write('docker/tags/latest/link', Buffer.from('x'))), [
      'a temporary file',
      'docker/tags/latest',
      'docker/tags',
      'docker',
    ]);
  });

  test('who loses a creation flushes the folder before relying on the winner', async () => {
    await new FilesystemDriver({ root }).create('docker/leases/gc', Buffer.from('x'));
    assert.deepEqual(await during(() => driver.create('docker/leases/gc', Buffer.from('y'))), chain('docker/leases'));
  });

  test('names that are settled together are flushed at once, each folder one time', async () => {
    const [blob, link] = ['docker/blobs/12/data', 'docker/repositories/a/link'];
    await segment('docker/uploads/1');
    const unsettled = { settled: false };
    assert.deepEqual(await during(() => driver.assemble(['docker/uploads/1'], blob, unsettled)), ['docker/uploads/1']);
    assert.deepEqual(await during(() => driver.write(link, Buffer.from('x'), unsettled)), ['a temporary file']);
    const folders = await during(() => driver.settle([blob, link]));
    assert.deepEqual(folders.toSorted(), [...new Set([blob, link].flatMap(key => chain(folderOf(key))))].toSorted());
    assert.deepEqual(await during(() => driver.settle([blob, link])), [folderOf(blob), folderOf(link)]);
  });

  test('names that cannot be settled are not acknowledged, and it is the last change', async () => {
    await driver.write('docker/a/link', Buffer.from('x'), { settled: false });
    await driver.write('docker/b/link', Buffer.from('x'), { settled: false });
    disk = path => (path === 'docker/b' ? Promise.reject(systemError('EIO')) : undefined);
    await assert.rejects(driver.settle(['docker/a/link', 'docker/b/link']), { kind: 'unavailable' });
    assert.equal(faults.length, 1);
    await assert.rejects(driver.settle(['docker/a/link']), { kind: 'unavailable' });
  });

  test('what need not survive a power cut is not flushed', async () => {
    assert.deepEqual(await during(() => driver.create('docker/step', Buffer.from('x'), { durable: false })), []);
    assert.deepEqual(await during(() => driver.removeAll('docker', { durable: false })), []);
    assert.deepEqual(await during(() => segment('docker/segment')), []);
  });

  test('joined segments are flushed as one file before it gets its name', async () => {
    await segment('uploads/1');
    await segment('uploads/2');
    assert.deepEqual(await during(() => driver.assemble(['uploads/1', 'uploads/2'], 'docker/data')), [
      'a temporary file',
      'docker',
      'the root',
    ]);
  });

  test('a long upload is flushed on the way, where it goes through the page cache', async () => {
    assert.deepEqual(
      [...new Set(await during(() => segmentAmongMany('uploads/long', 80 * 1024 * 1024)))],
      ['uploads/long'],
      'before anybody asked for it',
    );
  });

  test('one flush of a folder serves all who changed it before it began, and nobody who came later', async () => {
    await driver.write('docker/tags/0', Buffer.from('x'));
    const flushes: (() => void)[] = [];
    let begun = () => {};
    disk = (_, kind) => {
      if (kind === 'file') return undefined;
      const flush = new Promise<void>(resolve => flushes.push(resolve));
      begun();
      return flush;
    };
    const begins = () =>
      new Promise<void>(resolve => {
        begun = resolve;
      });
    const answered: number[] = [];
    const write = (n: number) => driver.write(`docker/tags/${n}`, Buffer.from('x')).then(() => answered.push(n));
    let next = begins();
    const first = write(1);
    await next;
    const later = Promise.all([2, 3, 4, 5].map(write));
    // All four have their names, and none has an answer: the flush in progress may have missed them.
    while (readdirSync(join(root, 'docker/tags')).length < 6) await new Promise(resolve => setImmediate(resolve));
    assert.deepEqual([answered, flushes.length], [[], 1]);
    next = begins();
    flushes[0]!();
    await first;
    await next;
    assert.deepEqual([answered, flushes.length], [[1], 2]);
    disk = real;
    flushes[1]!();
    await later;
    assert.ok(flushed.filter(name => name === 'docker/tags').length <= 4, flushed.join());
  });

  test('after a failed flush nothing is acknowledged any more, and reads go on', async () => {
    const actions: [string, () => Promise<unknown>][] = [
      ['write', () => driver.write(TAG, Buffer.from('new'))],
      ['create', () => driver.create('docker/new/link', Buffer.from('x'))],
      ['lost create', () => driver.create('docker/there/link', Buffer.from('x'))],
      ['remove', () => driver.remove('docker/there/link')],
      ['removeAll', () => driver.removeAll('docker/there')],
      ['assemble one', () => driver.assemble(['uploads/1'], 'docker/blobs/data')],
      ['assemble many', () => driver.assemble(['uploads/1', 'uploads/2'], 'docker/blobs/data')],
      ['assemble none', () => driver.assemble([], 'docker/blobs/data')],
      ['long segment', () => segmentAmongMany('uploads/long', 80 * 1024 * 1024)],
    ];
    for (const [name, action] of actions) {
      for (let failing = 1; ; failing++) {
        await rm(root, { recursive: true });
        [disk, faults] = [real, []];
        driver = await connect();
        await driver.write(TAG, Buffer.from('old'));
        await driver.write('docker/there/link', Buffer.from('x'));
        await segment('uploads/1');
        await segment('uploads/2');
        let count = 0;
        disk = () => (++count === failing ? Promise.reject(systemError('EIO')) : undefined);
        const outcome = await action().then(
          () => undefined,
          (error: unknown) => error as Error & { kind?: string },
        );
        if (count < failing) {
          assert.equal(outcome, undefined, name);
          assert.ok(failing > 1, `${name} flushes`);
          break;
        }
        assert.equal(outcome?.name, 'StorageError', `${name}, flush ${failing}`);
        assert.equal(outcome.kind, 'unavailable');
        assert.equal(faults.length, 1, `${name}, flush ${failing}`);
        assert.match(faults[0]!, /read-only because flushing .* failed \(EIO\): check the disk, then restart/);
        for (const [, later] of actions)
          await assert.rejects(later(), { name: 'StorageError', kind: 'unavailable', message: faults[0]! });
        await assert.rejects(driver.touch(TAG), { kind: 'unavailable' });
        await assert.rejects(driver.createSegment('uploads/3'), { kind: 'unavailable' });
        assert.equal(faults.length, 1, 'told once');
        assert.match((await driver.get(TAG))!.toString(), /^(old|new)$/);
        assert.ok((await driver.list('docker')).length > 0);
        assert.deepEqual(temporaries(), [], `${name}, flush ${failing}`);
        // Started again on a mended disk.
        disk = real;
        driver = await connect();
        await driver.write(TAG, Buffer.from('new'));
      }
    }
  });

  test('of several in one failed flush all are told', async () => {
    await driver.write('docker/tags/0', Buffer.from('x'));
    disk = (_, kind) => (kind === 'folder' ? Promise.reject(systemError('EIO')) : undefined);
    const outcomes = await Promise.allSettled([1, 2, 3].map(n => driver.write(`docker/tags/${n}`, Buffer.from('x'))));
    assert.deepEqual(
      outcomes.map(outcome => outcome.status),
      ['rejected', 'rejected', 'rejected'],
    );
    assert.equal(faults.length, 1);
  });

  test('a full disk is told apart, leaves no temporaries and passes without a restart', async () => {
    for (const code of ['ENOSPC', 'EDQUOT'])
      for (const kind of ['file', 'folder']) {
        disk = (_, flushing) => (flushing === kind ? Promise.reject(systemError(code)) : undefined);
        const full = { name: 'StorageError', kind: 'full' };
        await assert.rejects(driver.write(TAG, Buffer.from('x')), full);
        await assert.rejects(driver.create(`docker/${code}/${kind}`, Buffer.from('x')), full);
        await segment(`uploads/${code}-${kind}`);
        await assert.rejects(driver.assemble([`uploads/${code}-${kind}`], 'docker/blobs/data'), full);
        assert.deepEqual(temporaries(), []);
        disk = real;
        await driver.write(TAG, Buffer.from('x'));
        assert.deepEqual(faults, []);
      }
  });
});
