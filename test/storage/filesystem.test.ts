import assert from 'node:assert/strict';
import { constants, type Dirent, lstatSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import {
  chmod,
  type FileHandle,
  mkdir,
  mkdtemp,
  open,
  rm,
  symlink,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { BufferBudget, Portion, SLAB } from '../../src/storage/filesystem/budget.js';
import { Calls } from '../../src/storage/filesystem/calls.js';
import { Flusher, sync } from '../../src/storage/filesystem/flusher.js';
import { removeFolder } from '../../src/storage/filesystem/folders.js';
import { FileSegment } from '../../src/storage/filesystem/segment.js';
import { FilesystemDriver } from '../../src/storage/filesystem.js';
import { collect } from './suite.js';

const MIB = 1024 * 1024;

const temporaryFolder = () => mkdtemp(join(tmpdir(), 'registry-secure-'));

describe('a filesystem volume', () => {
  let root: string;
  let driver: FilesystemDriver;
  beforeEach(async () => {
    root = await temporaryFolder();
    driver = new FilesystemDriver({ root });
    await driver.open();
  });
  afterEach(() => rm(root, { recursive: true }));

  const refused = (path: string, what: RegExp, fix: RegExp) =>
    assert.rejects(new FilesystemDriver({ root: path }).open(), (error: Error & { fix?: string }) => {
      assert.equal(error.name, 'OperatorError');
      assert.match(error.message, what);
      assert.match(error.fix ?? '', fix);
      return true;
    });
  const mode = (path: string) => lstatSync(join(root, path)).mode & 0o777;
  const temporaries = () => readdirSync(join(root, 'registry-secure/tmp'));

  test('is made when missing, with a private area that carries its version', async () => {
    const fresh = join(root, 'not/yet/there');
    await new FilesystemDriver({ root: fresh }).open();
    assert.equal(readFileSync(join(fresh, 'registry-secure/format'), 'utf8'), '1\n');
    assert.deepEqual(readdirSync(fresh), ['registry-secure']);
    assert.deepEqual(readdirSync(join(fresh, 'registry-secure/tmp')), []);
  });

  test('may be opened by several at once', async () => {
    const fresh = join(root, 'fresh');
    await Promise.all(Array.from({ length: 8 }, () => new FilesystemDriver({ root: fresh }).open()));
    assert.equal(readFileSync(join(fresh, 'registry-secure/format'), 'utf8'), '1\n');
  });

  test('of a newer format is not touched', async () => {
    writeFileSync(join(root, 'registry-secure/format'), '2\n');
    await refused(root, /registry-secure\/format says format 2, and this version knows 1 only/, /newer version/);
  });

  test('with a damaged format file is not touched', async () => {
    for (const content of ['', 'one\n', '1\n2\n', '-1']) {
      writeFileSync(join(root, 'registry-secure/format'), content);
      await refused(root, /registry-secure\/format is damaged/, /backup/);
    }
  });

  test('cannot be a file, nor lie below one', async () => {
    await writeFile(join(root, 'file'), '');
    await refused(join(root, 'file'), /file is not a folder/, /name another one/);
    await refused(join(root, 'file/below'), /file\/below is not a folder/, /name another one/);
  });

  test('of another user is refused with both names', async () => {
    const theirs = join(root, 'theirs');
    await mkdir(theirs, { mode: 0o555 });
    const { uid } = lstatSync(theirs);
    // The superuser may write everywhere, so he becomes somebody else here.
    const superuser = process.geteuid!() === 0;
    await chmod(root, 0o755);
    try {
      if (superuser) process.seteuid!(65534);
      const what = new RegExp(`no permission .*theirs belongs to uid ${uid}, this process is uid \\d+`);
      await refused(theirs, what, new RegExp(`run as uid ${uid}, or give it away: chown -R \\d+ .*theirs`));
      await refused(join(theirs, 'new'), what, /chown/);
    } finally {
      if (superuser) process.seteuid!(0);
    }
  });

  test('gets rid of the temporaries of dead processes, by their age', async () => {
    const path = (name: string) => join(root, 'registry-secure/tmp', name);
    for (const name of ['old', 'young']) await writeFile(path(name), '');
    await mkdir(path('folder/below'), { recursive: true });
    await writeFile(path('folder/below/link'), '');
    const longAgo = new Date(Date.now() - 25 * 3_600_000);
    for (const name of ['old', 'folder']) await utimes(path(name), longAgo, longAgo);
    await new FilesystemDriver({ root }).open();
    assert.deepEqual(temporaries(), ['young']);
  });

  test('shows images to all and keeps the private area to its user', async () => {
    const umask = process.umask(0o022);
    try {
      await driver.write('docker/link', Buffer.from('x'));
      await driver.create('docker/created', Buffer.from('x'));
      await driver.write('registry-secure/tokens/key', Buffer.from('x'));
      const writer = await driver.createSegment('docker/segment');
      await writer.close();
      assert.deepEqual(
        ['docker', 'docker/link', 'docker/created', 'docker/segment'].map(mode),
        [0o755, 0o644, 0o644, 0o644],
      );
      assert.deepEqual(
        ['registry-secure', 'registry-secure/tmp', 'registry-secure/tokens', 'registry-secure/tokens/key'].map(mode),
        [0o700, 0o700, 0o700, 0o600],
      );
    } finally {
      process.umask(umask);
    }
  });

  test('recovers when its temporary folder is deleted', async () => {
    await rm(join(root, 'registry-secure/tmp'), { recursive: true });
    await driver.write('link', Buffer.from('x'));
    assert.equal((await driver.get('link'))?.toString(), 'x');
    assert.equal(mode('registry-secure/tmp'), 0o700);
  });

  describe('where another is always quicker', () => {
    test('who makes an object in a folder that is being removed makes it', async t => {
      const { makeFolder } = Calls.prototype;
      // Whenever a folder has been made another has removed it before anything can be put there.
      t.mock.method(Calls.prototype, 'makeFolder', async function (this: Calls, path: string, mode: number) {
        await makeFolder.call(this, path, mode);
        rmSync(join(root, 'repository'), { recursive: true, force: true });
      });
      await driver.write('repository/tags/latest/link', Buffer.from('x'));
      assert.equal((await driver.get('repository/tags/latest/link'))?.toString(), 'x');
      assert.equal(await driver.create('repository/layers/1/link', Buffer.from('y')), true);
      assert.equal(mode('repository/layers/1'), 0o777 & ~process.umask());
      assert.deepEqual(temporaries(), []);
    });

    test('who removes a folder that is being filled removes it', async () => {
      const folder = join(root, 'repository/layers');
      let made = 0;
      /** Between each look into the folder and its removal another has made a file in it. */
      class Outrun extends Calls {
        override async list(path: string): Promise<Dirent[]> {
          const found = await super.list(path);
          await mkdir(folder, { recursive: true });
          await writeFile(join(folder, `${++made}`), '');
          return found;
        }
      }
      await mkdir(folder, { recursive: true });
      await removeFolder(
        folder,
        new Outrun({ isLocal: true }),
        () => {},
        () => join(root, 'registry-secure/tmp/moved'),
      );
      assert.deepEqual(readdirSync(folder), [`${made}`], 'what was made after it had gone');
      assert.deepEqual(temporaries(), []);
    });
  });

  test('has one epoch for all processes of this boot', async () => {
    const other = new FilesystemDriver({ root });
    await other.open();
    assert.match(driver.epoch, /^[0-9a-f-]{36}(:\d+){1,2}$/);
    if (process.platform === 'linux') assert.equal(other.epoch, driver.epoch);
  });

  test('may hold symbolic links to folders and files', async () => {
    await driver.write('elsewhere/team/link', Buffer.from('x'));
    await driver.write('repositories/own/link', Buffer.from('y'));
    await symlink(join(root, 'elsewhere/team'), join(root, 'repositories/team'));
    await symlink(join(root, 'elsewhere/team/link'), join(root, 'repositories/file'));
    await symlink(join(root, 'nowhere'), join(root, 'repositories/dangling'));
    assert.deepEqual(await driver.list('repositories'), [
      { name: 'file', folder: false },
      { name: 'own', folder: true },
      { name: 'team', folder: true },
    ]);
    assert.equal((await driver.get('repositories/team/link'))?.toString(), 'x');
    await driver.removeAll('repositories');
    assert.deepEqual(await driver.list('repositories'), []);
    assert.equal((await driver.get('elsewhere/team/link'))?.toString(), 'x', 'what a link points at stays');
  });

  test('a segment never takes the place of a file', async () => {
    await driver.write('link', Buffer.from('x'));
    await assert.rejects(driver.createSegment('link'), { name: 'StorageError', kind: 'unavailable' });
    assert.equal((await driver.get('link'))?.toString(), 'x');
  });

  test('a file that gets shorter under a reader is an error, not a shorter object', async () => {
    await driver.write('data', Buffer.alloc(8 * MIB));
    const stream = (await driver.read('data'))!;
    await truncate(join(root, 'data'), 3 * MIB);
    await assert.rejects(collect(stream), { name: 'StorageError', kind: 'unavailable' });
  });

  test('no descriptor and no temporary file is left by thousands of transfers that are given up', async () => {
    const descriptors = () => readdirSync(process.platform === 'linux' ? '/proc/self/fd' : '/dev/fd').length;
    // What a test before this one has left is closed by then.
    const steady = async () => {
      for (let last = -1; ; await pause(50)) {
        const now = descriptors();
        if (now === last) return now;
        last = now;
      }
    };
    await driver.write('data', Buffer.alloc(3 * MIB));
    const before = await steady();
    for (let n = 0; n < 3000; n++) {
      const stream = (await driver.read('data'))!;
      // Given up at once, after some bytes, and while a read runs.
      if (n % 3 === 1) await stream.next();
      const running = n % 3 === 2 ? stream.next() : undefined;
      await stream.return();
      await running;
    }
    for (let n = 0; n < 300; n++) {
      const writer = await driver.createSegment(`uploads/${n}`);
      writer.write(Buffer.alloc(n % 2 ? 10 : 2 * MIB));
      await writer.abort();
    }
    await Promise.all(Array.from({ length: 500 }, () => driver.get('absent')));
    await assert.rejects(driver.get('data', 1));
    assert.equal(await steady(), before);
    assert.deepEqual(await driver.list('uploads'), []);
    assert.deepEqual(temporaries(), []);
  });
});

describe('a file segment', () => {
  test('calls write again when it took a part only', async () => {
    const taken: Buffer[] = [];
    const handle = {
      writev: async (buffers: Buffer[], position: number) => {
        assert.equal(
          position,
          taken.reduce((sum, { length }) => sum + length, 0),
        );
        const part = Buffer.from(Buffer.concat(buffers).subarray(0, 70_001));
        taken.push(part);
        return { bytesWritten: part.length };
      },
      close: async () => {},
    } as unknown as FileHandle;
    const flusher = new Flusher('/', sync, () => {});
    const writer = new FileSegment(handle, '/nowhere', new BufferBudget(MIB), flusher);
    const chunks = Array.from({ length: 200 }, (_, n) => Buffer.alloc(9_999, n));
    for (const chunk of chunks) await writer.write(chunk);
    assert.equal(await writer.close(), 200 * 9_999);
    assert.ok(Buffer.concat(taken).equals(Buffer.concat(chunks)));
  });

  describe('of a large upload', () => {
    let folder: string;
    beforeEach(async () => {
      folder = await temporaryFolder();
    });
    afterEach(() => rm(folder, { recursive: true }));

    /** How many of 20 MiB went past the page cache, in chunks that fit nowhere. */
    const direct = async (budget: BufferBudget) => {
      const path = join(folder, 'segment');
      let past = 0;
      class Watched extends Flusher {
        override async inTurn<T>(action: () => Promise<T>): Promise<T> {
          const result = await super.inTurn(action);
          past += (result as { bytesWritten: number }).bytesWritten;
          return result;
        }
      }
      const writer = new FileSegment(await open(path, 'wx'), path, budget, new Watched('/', sync, () => {}));
      const chunks = Array.from({ length: Math.ceil((20 * MIB) / 16_001) }, (_, n) => Buffer.alloc(16_001, n));
      for (const chunk of chunks) await writer.write(chunk);
      const whole = Buffer.concat(chunks);
      assert.equal(await writer.close(), whole.length);
      assert.ok(readFileSync(path).equals(whole));
      return past;
    };
    const canDirect = () =>
      open(join(folder, 'probe'), constants.O_CREAT | constants.O_WRONLY | (constants.O_DIRECT ?? 0)).then(
        handle => handle.close().then(() => constants.O_DIRECT !== undefined),
        () => false,
      );

    test('whole batches go past the page cache, where that is possible, and its end through it', async () => {
      const past = await direct(new BufferBudget(32 * MIB));
      assert.equal(past > 0, await canDirect());
      assert.equal(past % SLAB, 0);
    });

    test('small batches of many transfers leave it to the kernel to make larger ones', async () => {
      const budget = new BufferBudget(32 * MIB);
      for (let n = 0; n < 100; n++) budget.enter();
      assert.equal(await direct(budget), 0);
    });

    test('a file system that turns it down has them as usual', async () => {
      class Unaligned extends BufferBudget {
        override take = () => Buffer.allocUnsafeSlow(SLAB + 1).subarray(1);
        override isAligned = () => true;
      }
      // Some take memory at any address, and so nothing is said of how much went which way.
      await direct(new Unaligned(32 * MIB));
    });

    test('buffers beyond the budget are no reason to wait', async () => {
      const budget = new BufferBudget(SLAB);
      const [first, second] = [budget.take(), budget.take()];
      assert.deepEqual([budget.isAligned(first), budget.isAligned(second)], [true, false]);
      budget.give(first);
      budget.give(second);
      assert.equal(budget.take().buffer, first.buffer);
      assert.equal(await direct(budget), 0);
    });
  });
});

test('a hundred transfers share the memory that a few use', () => {
  const budget = new BufferBudget(32 * MIB);
  for (let n = 0; n < 8; n++) budget.enter();
  assert.equal(budget.share(), MIB);
  for (let n = 8; n < 100; n++) budget.enter();
  assert.ok(budget.share() * 4 * 100 <= 32 * MIB);
  for (let n = 100; n < 10_000; n++) budget.enter();
  assert.equal(budget.share(), 64 * 1024);
  for (let n = 0; n < 10_000; n++) budget.leave();
  assert.equal(budget.share(), MIB);
});

test('a transfer has as much of its share as passes in a moment', t => {
  let now = 0;
  t.mock.method(performance, 'now', () => now);
  const budget = new BufferBudget(32 * MIB);
  const portion = new Portion(budget);
  const after = (ms: number) => {
    now += ms;
    return portion.next() / SLAB;
  };
  assert.deepEqual(
    Array.from({ length: 7 }, () => after(1)),
    [1, 2, 3, 4, 5, 6, 7],
  );
  assert.deepEqual(
    Array.from({ length: 6 }, () => after(1_000)),
    [3.5, 1.75, 1, 1, 1, 1],
  );
  for (let n = 0; n < 200; n++) budget.enter();
  assert.equal(after(1), 1);
});
