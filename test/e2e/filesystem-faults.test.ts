import assert from 'node:assert/strict';
import { readdirSync, readFileSync, statfsSync, statSync } from 'node:fs';
import { mkdir, mkdtemp, rm, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { FilesystemDriver } from '../../src/storage/filesystem.js';
import { stale } from '../storage/races.js';
import { fillBlocks, fillInodes } from '../support/full.js';
import { must, requireTools, run } from '../support/process.js';
import type { Outcome, Step } from '../support/storage-process.js';

const PROCESS = fileURLToPath(new URL('../support/storage-process.js', import.meta.url));
const MIB = 1024 * 1024;

const REPOSITORY = 'docker/registry/v2/repositories/team/app';
const TAG = `${REPOSITORY}/_manifests/tags/latest/current/link`;
const LAYER = `${REPOSITORY}/_layers/sha256/1234/link`;
const RECORD = `${REPOSITORY}/_records/sha256/1234`;
const BLOB = 'docker/registry/v2/blobs/sha256/12/1234/data';
const foldersOf = (path: string): string[] =>
  path.includes('/') ? [dirname(path), ...foldersOf(dirname(path))] : ['ROOT'];
const PUSH: Step[] = [
  ['segment', `${REPOSITORY}/_uploads/1/1`, 'the blob'],
  ['assemble', BLOB, `${REPOSITORY}/_uploads/1/1`],
  ['create', LAYER, 'sha256:1234'],
  ['unsettled', RECORD, 'a record'],
  ['settle', RECORD],
  ['write', TAG, 'new'],
  ['remove', 'docker/doomed'],
];

let dir: string;
let count = 0;
before(async () => {
  requireTools('strace', 'mount', 'umount', 'losetup', 'mkfs.ext4', 'mkfs.xfs', 'truncate');
  if (process.getuid?.() !== 0) throw new Error('these tests mount file systems: run them as root');
  dir = await mkdtemp(join(tmpdir(), 'registry-secure-faults-'));
});
after(() => rm(dir, { recursive: true }));

/** Lets only the calls that are traced stop for strace, which is far quicker; it then sends no signals (strace 6.1). */
const FILTERED = '--seccomp-bpf';

/** Runs the steps in a process under strace, with one thread for the disk, so that its calls have one order. */
async function traced(root: string, steps: readonly Step[], ...options: string[]) {
  const log = join(dir, `trace-${++count}`);
  // `-y` shows the path of each descriptor, `-s` the lines that the process says whole.
  const strace = ['strace', '-f', '-qq', '-y', '-s', '4096', '-o', log, ...options];
  const { status, stdout, stderr } = await run([...strace, process.execPath, PROCESS, root, JSON.stringify(steps)], {
    env: { UV_THREADPOOL_SIZE: '1' },
  });
  // strace ends as the process did.
  assert.ok(status === 0 || status === null, stderr);
  const lines = stdout.split('\n').slice(0, -1);
  return {
    outcomes: lines.map(line => JSON.parse(line) as Outcome),
    trace: readFileSync(log, 'utf8'),
    killed: status === null,
  };
}

const temporaries = (root: string) => readdirSync(join(root, 'registry-secure/tmp'));

const volume = async () => {
  const root = join(dir, `volume-${++count}`);
  await mkdir(root);
  return root;
};

/** A volume with what the push replaces and removes. */
const oldVolume = async () => {
  const root = await volume();
  const driver = new FilesystemDriver({ root });
  await driver.open();
  await driver.write(TAG, Buffer.from('old'));
  await driver.write('docker/doomed', Buffer.from('x'));
  return root;
};

/** Another process finds what was acknowledged, and of what was not, all or nothing. */
async function verify(root: string, acknowledged: readonly Outcome[], what: string): Promise<void> {
  const driver = new FilesystemDriver({ root });
  await driver.open();
  const expect = async (step: string, key: string, before: string | undefined, after: string | undefined) => {
    const possible = acknowledged.some(outcome => outcome.step === step) ? [after] : [before, after];
    assert.ok(possible.includes((await driver.get(key))?.toString()), `${step}; ${what}`);
  };
  await expect(`assemble ${BLOB}`, BLOB, undefined, 'the blob');
  await expect(`create ${LAYER}`, LAYER, undefined, 'sha256:1234');
  await expect(`settle ${RECORD}`, RECORD, undefined, 'a record');
  await expect(`write ${TAG}`, TAG, 'old', 'new');
  await expect('remove docker/doomed', 'docker/doomed', 'x', undefined);
}

/** The calls that succeeded and the lines that were said, in the order in which they came back. */
function callsOf(trace: string, root: string): string[] {
  const begun = new Map<string, string>();
  return trace.split('\n').flatMap(line => {
    const [, thread, event] = /^(\d+) +(.*)$/.exec(line) ?? [];
    if (thread === undefined || event === undefined) return [];
    if (event.endsWith(' <unfinished ...>')) {
      begun.set(thread, event.slice(0, -' <unfinished ...>'.length));
      return [];
    }
    const whole = event.replace(/^<\.\.\. \w+ resumed>/, () => begun.get(thread) ?? '');
    const said = /^write\(1<.*"\{\\"step\\":\\"([^"\\]+)/.exec(whole)?.[1];
    if (said !== undefined) return [`said ${said}`];
    const [, call, paths] = /^(\w+)\((.*)\) += 0$/.exec(whole) ?? [];
    if (call === undefined || paths === undefined) return [];
    const short = paths
      .replace(/^\d+<(.*)>$/, '$1')
      .replaceAll('"', '')
      .replaceAll(/[^ ]*\/registry-secure\/tmp\/[0-9a-f-]{36}/g, 'TEMPORARY')
      .replaceAll(`${root}/`, '')
      .replaceAll(root, 'ROOT');
    return [`${call} ${short}`];
  });
}

describe('system calls', () => {
  test('every name is on the disk, with all folders above it, before the answer', async () => {
    const root = await volume();
    const steps: Step[] = [['create', 'docker/doomed', 'x'], ...PUSH, ['write', TAG, 'newer']];
    const traces = 'trace=fsync,fdatasync,rename,link,unlink,rmdir,write';
    const { trace } = await traced(root, steps, FILTERED, '-e', traces);
    const calls = callsOf(trace, root);
    const during = (step: string) => {
      const end = calls.lastIndexOf(`said ${step}`);
      return calls.slice(calls.findLastIndex((call, n) => n < end && call.startsWith('said')) + 1, end);
    };
    const fsyncs = (...paths: string[]) => paths.map(path => `fsync ${path}`);

    assert.deepEqual(during('create docker/doomed'), [
      'fdatasync TEMPORARY',
      'link TEMPORARY, docker/doomed',
      'unlink TEMPORARY',
      ...fsyncs('docker', 'ROOT'),
    ]);
    assert.deepEqual(during(`assemble ${BLOB}`), [
      `fdatasync ${REPOSITORY}/_uploads/1/1`,
      `link ${REPOSITORY}/_uploads/1/1, ${BLOB}`,
      ...fsyncs(...foldersOf(BLOB).filter(folder => folder !== 'ROOT')),
    ]);
    assert.deepEqual(during(`create ${LAYER}`), [
      'fdatasync TEMPORARY',
      `link TEMPORARY, ${LAYER}`,
      'unlink TEMPORARY',
      // Above v2 everything is known to be on the disk since the blob.
      ...fsyncs(...foldersOf(LAYER).filter(folder => !['docker/registry', 'docker', 'ROOT'].includes(folder))),
    ]);
    assert.deepEqual(during(`unsettled ${RECORD}`), ['fdatasync TEMPORARY', `rename TEMPORARY, ${RECORD}`]);
    assert.deepEqual(during(`settle ${RECORD}`), fsyncs(...foldersOf(RECORD).slice(0, 3)));
    assert.deepEqual(during(`remove docker/doomed`), ['unlink docker/doomed', ...fsyncs('docker')]);
    assert.deepEqual(during(`write ${TAG}`), [
      'fdatasync TEMPORARY',
      `rename TEMPORARY, ${TAG}`,
      ...fsyncs(dirname(TAG)),
    ]);
  });

  test('a flush that fails is never acknowledged, whichever it is', async () => {
    for (const call of ['fdatasync', 'fsync'])
      for (let nth = 1; ; nth++) {
        const root = await oldVolume();
        const { outcomes } = await traced(
          root,
          PUSH,
          FILTERED,
          '-e',
          `inject=${call}:error=EIO:when=${nth}`,
          '-e',
          `trace=${call}`,
        );
        const faults = outcomes.filter(({ step }) => step === 'fault');
        const at = outcomes.findIndex(({ failed }) => failed !== undefined);
        if (at < 0) {
          assert.deepEqual(faults, []);
          assert.ok(nth > 3, `${call} is called`);
          break;
        }
        const what = `${call} ${nth}: ${JSON.stringify(outcomes)}`;
        assert.equal(faults.length, 1, what);
        assert.match(faults[0]!.message!, /read-only because flushing .* failed \(EIO\): check the disk/, what);
        for (const { step, failed } of outcomes.slice(at))
          if (step !== 'fault') assert.equal(failed, step === 'open' ? 'OperatorError' : 'unavailable', what);
        assert.deepEqual(temporaries(root), [], what);
        await verify(root, outcomes.slice(0, at), what);
      }
  });

  test('killed at any call, it has done what it said and no half of anything', async () => {
    for (const call of ['mkdir', 'link', 'rename', 'unlink', 'fdatasync', 'fsync'])
      for (let nth = 1; ; nth++) {
        const root = await oldVolume();
        const inject = `inject=${call}:signal=SIGKILL:when=${nth}`;
        const { outcomes, killed } = await traced(root, PUSH, '-e', inject, '-e', `trace=${call}`);
        await verify(root, outcomes, `${call} ${nth}: ${JSON.stringify(outcomes)}`);
        if (killed) continue;
        assert.equal(outcomes.length, 1 + PUSH.length);
        assert.ok(nth > 1, `${call} is called`);
        break;
      }
  });

  test('a disk that fails while the volume is opened is one line with a fix', async () => {
    const { outcomes } = await traced(await volume(), [], '-e', 'inject=fsync:error=EIO', '-e', 'trace=fsync');
    assert.equal(outcomes.at(-1)?.failed, 'OperatorError');
    assert.match(outcomes.at(-1)!.message!, /^the data folder .* cannot be used: EIO/);
  });

  test('a file system without hard links is refused', async () => {
    const { outcomes } = await traced(await volume(), [], '-e', 'inject=link:error=EPERM', '-e', 'trace=link');
    assert.equal(outcomes[0]?.failed, 'OperatorError');
    assert.match(outcomes[0].message!, /the file system of the data folder .* has no hard links/);
  });
});

describe('full and read-only file systems', () => {
  const FULL = { name: 'StorageError', kind: 'full' };

  const mounted = async (make: (root: string) => Promise<unknown>, use: (root: string) => Promise<void>) => {
    const root = await volume();
    await make(root);
    try {
      await use(root);
    } finally {
      await must(['umount', root]);
    }
  };
  const tmpfs = (options: string) => (root: string) => must(['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', root]);
  const image =
    (mkfs: string, size: string, ...options: string[]) =>
    async (root: string) => {
      const file = join(dir, `image-${++count}`);
      await must(['truncate', '-s', size, file]);
      await must([mkfs, '-q', ...options, file]);
      await must(['mount', '-o', 'loop', file, root]);
    };
  const open = async (root: string) => {
    const driver = new FilesystemDriver({ root, onFault: assert.fail });
    await driver.open();
    return driver;
  };
  const segment = async (driver: FilesystemDriver, key: string, bytes: number) => {
    const writer = await driver.createSegment(key);
    try {
      for (let left = bytes; left > 0; left -= 65_536) await writer.write(Buffer.alloc(Math.min(left, 65_536), 1));
      return await writer.close();
    } catch (error) {
      await writer.abort();
      throw error;
    }
  };
  /** A volume that was used before can be read, and freed; one that is new is refused. */
  const opensWhenFull = async (root: string) => {
    const again = await open(root);
    assert.equal((await again.get(TAG))?.toString(), 'old');
    assert.equal(await again.impediment(), 'full');
    await assert.rejects(again.write(TAG, Buffer.from('new')), FULL);
    const fresh = new FilesystemDriver({ root: join(root, 'fresh') });
    await assert.rejects(fresh.open(), { name: 'OperatorError', message: /no space left for the data folder/ });
  };

  const survivesFullDisk = async (root: string) => {
    const driver = await open(root);
    await driver.write(TAG, Buffer.from('old'));
    await segment(driver, 'uploads/kept/1', MIB);
    await segment(driver, 'uploads/kept/2', MIB);
    // A segment that does not fit goes without a trace.
    const free = statfsSync(root).bfree;
    await assert.rejects(segment(driver, 'uploads/large', 64 * MIB), FULL);
    assert.equal(await driver.stat('uploads/large'), undefined);
    assert.ok(statfsSync(root).bfree >= free - 64, 'its place is free again');
    await fillBlocks(join(root, 'filler'));
    for (let n = 0; n < 3; n++) {
      await assert.rejects(driver.write(TAG, Buffer.alloc(100_000)), FULL);
      await assert.rejects(driver.create('docker/new', Buffer.alloc(100_000)), FULL);
      await assert.rejects(driver.assemble(['uploads/kept/1', 'uploads/kept/2'], BLOB), FULL);
    }
    assert.deepEqual(temporaries(root), []);
    assert.equal((await driver.get(TAG))?.toString(), 'old');
    await opensWhenFull(root);
    // Room again: the same process goes on, and the upload that failed is finished.
    await rm(join(root, 'filler'), { recursive: true });
    await driver.assemble(['uploads/kept/1', 'uploads/kept/2'], BLOB);
    assert.equal((await driver.stat(BLOB))?.size, 2 * MIB);
    await driver.write(TAG, Buffer.from('new'));
    assert.equal((await driver.get(TAG))?.toString(), 'new');
  };

  test('a tmpfs without a free block', () => mounted(tmpfs('size=6m'), survivesFullDisk));
  test('an ext4 without a free block', () => mounted(image('mkfs.ext4', '16M'), survivesFullDisk));

  test('no free inode', () =>
    mounted(tmpfs('size=50m,nr_inodes=500'), async root => {
      const driver = await open(root);
      await driver.write(TAG, Buffer.from('old'));
      await fillInodes(join(root, 'filler'));
      await assert.rejects(driver.write(TAG, Buffer.from('new')), FULL);
      await assert.rejects(driver.create(LAYER, Buffer.from('x')), FULL);
      await assert.rejects(driver.createSegment('uploads/1'), FULL);
      assert.deepEqual(temporaries(root), []);
      assert.equal((await driver.get(TAG))?.toString(), 'old');
      await opensWhenFull(root);
      await rm(join(root, 'filler'), { recursive: true });
      await driver.write(TAG, Buffer.from('new'));
      await driver.create(LAYER, Buffer.from('x'));
    }));

  for (const [what, make, full] of [
    ['a tmpfs without a free inode', tmpfs('size=50m,nr_inodes=500'), fillInodes],
    ['an ext4 without a free inode', image('mkfs.ext4', '16M', '-N', '512'), fillInodes],
    ['an ext4 without a free block', image('mkfs.ext4', '16M'), fillBlocks],
    ['an xfs without a free block', image('mkfs.xfs', '300M'), fillBlocks],
  ] as const)
    test(`what is stale can be removed from ${what}, by two at once`, () =>
      mounted(make, async root => {
        const drivers = [await open(root), await open(root)];
        const keys = Array.from({ length: 90 }, (_, n) => `docker/layers/${n}/link`);
        for (const key of keys) await drivers[0]!.write(key, Buffer.from('x'));
        const before = await stale(drivers[0]!, keys.at(-1)!);
        await drivers[0]!.touch(keys[1]!);
        await full(join(root, 'filler'));
        await assert.rejects(mkdir(join(root, 'docker/more')), { code: 'ENOSPC' });
        const removed = await Promise.all(
          keys.map(key => Promise.all(drivers.map(one => one.removeStale(key, before)))),
        );
        assert.deepEqual(
          removed.map(both => both.filter(Boolean).length),
          keys.map((_, n) => (n === 1 ? 0 : 1)),
        );
        assert.deepEqual(readdirSync(join(root, 'docker/layers/1')), ['link'], 'what was renewed is where it was');
        assert.equal((await drivers[0]!.list('docker/layers')).length, 1);
        // And again, when there is no room again: the spare folders are back.
        const more = Array.from({ length: 20 }, (_, n) => `docker/layers/more-${n}/link`);
        for (const key of more) await drivers[0]!.write(key, Buffer.from('x'));
        await full(join(root, 'filler'));
        for (const key of more)
          assert.equal(await drivers[1]!.removeStale(key, await stale(drivers[1]!, key)), true, key);
      }));

  test('without a spare folder nothing is removed, and nothing is lost', () =>
    mounted(tmpfs('size=50m,nr_inodes=500'), async root => {
      const driver = await open(root);
      await driver.write(TAG, Buffer.from('old'));
      await rm(join(root, 'registry-secure/spare'), { recursive: true });
      await fillInodes(join(root, 'filler'));
      const before = await stale(driver, TAG);
      await assert.rejects(driver.removeStale(TAG, before), FULL);
      assert.equal((await driver.get(TAG))?.toString(), 'old');
      assert.deepEqual(readdirSync(dirname(join(root, TAG))), ['link']);
      await rm(join(root, 'filler'), { recursive: true });
      assert.equal(await driver.removeStale(TAG, before), true);
      assert.ok(readdirSync(join(root, 'registry-secure/spare')).length > 0, 'there are spare ones for the next time');
    }));

  test('a file system that turns read-only', () =>
    mounted(image('mkfs.ext4', '16M'), async root => {
      const driver = await open(root);
      await driver.write(TAG, Buffer.from('old'));
      await must(['mount', '-o', 'remount,ro', root]);
      await assert.rejects(driver.write(TAG, Buffer.from('new')), { name: 'StorageError', kind: 'unavailable' });
      await assert.rejects(driver.remove(TAG), { name: 'StorageError', kind: 'unavailable' });
      assert.equal((await driver.get(TAG))?.toString(), 'old');
      await assert.rejects(open(root), { name: 'OperatorError', message: /is read-only/ });
      await must(['mount', '-o', 'remount,rw', root]);
      await driver.write(TAG, Buffer.from('new'));
    }));

  test('a disk that is plugged in again is another one to unfinished uploads, one that is mounted again is not', async () => {
    const file = join(dir, `image-${++count}`);
    await must(['truncate', '-s', '16M', file]);
    await must(['mkfs.ext4', '-q', file]);
    const root = await volume();
    const epoch = async (device: string) => {
      await must(['mount', device, root]);
      try {
        return (await open(root)).epoch;
      } finally {
        await must(['umount', root]);
      }
    };
    const plugged = async <T>(use: (device: string) => Promise<T>) => {
      const device = (await must(['losetup', '--find', '--show', file])).trim();
      try {
        return await use(device);
      } finally {
        await must(['losetup', '-d', device]);
      }
    };
    const [first, again] = await plugged(async device => [await epoch(device), await epoch(device)]);
    assert.equal(first, again);
    assert.notEqual(await plugged(epoch), first);
  });

  test('on xfs the first of several segments is shared, not copied', () =>
    mounted(image('mkfs.xfs', '400M'), async root => {
      const driver = await open(root);
      await segment(driver, 'uploads/1', 40 * MIB);
      await segment(driver, 'uploads/2', 10);
      const filler = join(root, 'filler');
      await fillBlocks(filler);
      // Room for a fifth of a copy.
      const blocks = join(filler, 'blocks');
      await truncate(blocks, statSync(blocks).size - 8 * MIB);
      await driver.assemble(['uploads/1', 'uploads/2'], BLOB);
      assert.equal((await driver.stat(BLOB))?.size, 40 * MIB + 10);
    }));
});
