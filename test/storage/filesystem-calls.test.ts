import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, type TestContext, test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { Calls } from '../../src/storage/filesystem/calls.js';
import { ProcessorWait } from '../../src/storage/filesystem/processor-wait.js';

describe('system calls of small changes', () => {
  let dir: string;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'calls-'));
  });
  after(() => rm(dir, { recursive: true, force: true }));

  const isDone = (result: unknown) => !(result instanceof Promise);

  test('go to threads where a network may lie before the file system', async () => {
    const calls = new Calls({ isLocal: false });
    const file = calls.open(join(dir, 'far'), 'wx', 0o600);
    assert.ok(!isDone(file));
    await calls.write(await file, Buffer.from('x'));
    await calls.close(await file);
    assert.equal(calls.isMissing(join(dir, 'nowhere')), false, 'without a look nothing is known');
    const missing = calls.isThere(join(dir, 'nowhere'));
    assert.ok(!isDone(missing));
    assert.equal(await missing, false);
  });

  test('are done at once elsewhere, until they have held up the others for long enough', async () => {
    // Where this thread has to wait for a processor meanwhile, none is done at once.
    for (let attempt = 0, atOnce = 0; atOnce === 0; attempt++) {
      assert.ok(attempt < 100, 'all went to the threads');
      const calls = new Calls({ isLocal: true });
      await nextTurn();
      if (!calls.isMissing(join(dir, 'nowhere'))) continue;
      let there = calls.isThere(dir);
      for (const start = performance.now(); isDone(there) && performance.now() - start < 20_000; atOnce++)
        there = calls.isThere(dir);
      assert.ok(!isDone(there), 'all in one turn of the event loop');
      assert.equal(await there, true);
    }
  });

  /** Calls of which each takes as long as it is told, and has waited for a processor for as long as that. */
  function timed(t: TestContext) {
    const time = { now: 0, waited: 0 as number | undefined };
    let [took, waited] = [0, 0];
    // The clock goes on between its readings: those before a call and behind it are two of them.
    t.mock.method(performance, 'now', () => {
      time.now += took;
      return time.now;
    });
    const wait = {
      now() {
        if (time.waited !== undefined) time.waited += waited;
        return time.waited;
      },
    };
    const calls = new Calls({ isLocal: true }, wait);
    const isAtOnce = async (next = 0, nextWaited = 0) => {
      await nextTurn();
      [took, waited] = [next, nextWaited];
      const there = calls.isThere(dir);
      [took, waited] = [0, 0];
      assert.equal(await there, true);
      return isDone(there);
    };
    return { time, isAtOnce };
  }

  test('go to threads for a while after one that waited for the disk, and for longer after another', async t => {
    const { time, isAtOnce } = timed(t);
    time.waited = 1;
    assert.ok(await isAtOnce(6));
    assert.ok(!(await isAtOnce()));
    time.now += 25;
    assert.ok(await isAtOnce(6));
    time.now += 25;
    assert.ok(!(await isAtOnce()), 'twice as long');
    time.now += 20;
    assert.ok(await isAtOnce());
  });

  test('go on at once where they waited for a processor only', async t => {
    const { time, isAtOnce } = timed(t);
    time.waited = 1;
    assert.ok(await isAtOnce(6, 6));
    assert.ok(!(await isAtOnce()), 'of the first one nothing is known');
    time.now += 25;
    for (let busy = 0; busy < 10; busy++) assert.ok(await isAtOnce(6, 6));
    assert.ok(await isAtOnce(12, 6));
    assert.ok(!(await isAtOnce()), 'it has waited for the disk too');
  });

  test('go to threads where the system does not say what they waited for', async t => {
    const { time, isAtOnce } = timed(t);
    time.waited = undefined;
    assert.ok(await isAtOnce(6));
    time.now += 25;
    assert.ok(await isAtOnce(6));
    assert.ok(!(await isAtOnce()));
  });

  test('how long a thread has waited is what Linux counts', { skip: process.platform !== 'linux' }, () => {
    const counted = () => Number(readFileSync('/proc/thread-self/schedstat', 'latin1').split(' ')[1]) / 1e6;
    const before = counted();
    const now = ProcessorWait.ofMain.now()!;
    assert.ok(before <= now && now <= counted());
  });

  test('of large files go to threads', async () => {
    const calls = new Calls({ isLocal: true });
    const [small, large] = [join(dir, 'small'), join(dir, 'large')];
    await Promise.all([writeFile(small, 'x'), writeFile(large, Buffer.alloc(100_000))]);
    await nextTurn();
    const removed = calls.unlink(large);
    assert.ok(!isDone(removed));
    await removed;
    await calls.unlink(small);
    assert.deepEqual([await calls.isThere(small), await calls.isThere(large)], [false, false]);
  });

  test('a look finds nothing without an error, and a small file is read at once or not at all', async () => {
    const [short, long] = [join(dir, 'short'), join(dir, 'long')];
    await Promise.all([writeFile(short, 'x'.repeat(1023)), writeFile(long, 'x'.repeat(1024))]);
    for (const isLocal of [true, false]) {
      const calls = new Calls({ isLocal });
      await nextTurn();
      assert.equal(await calls.stat(join(dir, 'nowhere')), undefined);
      assert.equal((await calls.stat(short))?.size, 1023);
      if (!isLocal) assert.equal(calls.readNow(short), undefined);
    }
    // Where this thread has to wait for a processor meanwhile, none is done at once.
    for (let attempt = 0; ; attempt++) {
      assert.ok(attempt < 100, 'none was read at once');
      const calls = new Calls({ isLocal: true });
      await nextTurn();
      const read = calls.readNow(short);
      if (read === undefined) continue;
      assert.equal(read.toString(), 'x'.repeat(1023));
      assert.equal(calls.readNow(long), undefined);
      break;
    }
  });

  test('that fail say so in either way', async () => {
    for (const isLocal of [true, false]) {
      const calls = new Calls({ isLocal });
      await nextTurn();
      await assert.rejects(async () => calls.link(join(dir, 'nowhere'), join(dir, 'there')), { code: 'ENOENT' });
      await assert.rejects(async () => calls.open(join(dir, 'nowhere', 'x'), 'wx'), { code: 'ENOENT' });
    }
  });
});
