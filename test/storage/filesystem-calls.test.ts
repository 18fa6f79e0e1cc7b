import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { Calls } from '../../src/storage/filesystem/calls.js';

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
    const calls = new Calls({ isLocal: true });
    await nextTurn();
    assert.equal(calls.isMissing(join(dir, 'nowhere')), true);
    let atOnce = 0;
    const start = performance.now();
    for (; performance.now() - start < 5_000; atOnce++) {
      const there = calls.isThere(dir);
      if (isDone(there)) continue;
      assert.equal(await there, true);
      break;
    }
    assert.ok(atOnce > 0);
    assert.ok(performance.now() - start < 5_000, 'all in one turn of the event loop');
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

  test('that fail say so in either way', async () => {
    for (const isLocal of [true, false]) {
      const calls = new Calls({ isLocal });
      await nextTurn();
      await assert.rejects(async () => calls.link(join(dir, 'nowhere'), join(dir, 'there')), { code: 'ENOENT' });
      await assert.rejects(async () => calls.open(join(dir, 'nowhere', 'x'), 'wx'), { code: 'ENOENT' });
    }
  });
});
