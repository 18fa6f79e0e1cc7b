import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { link, mkdir, mkdtemp, rename, rm, symlink, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { FilesystemDriver } from '../../src/storage/filesystem.js';
import { raceRemovals, stale } from './races.js';
import { collect } from './suite.js';

const PROCESS = fileURLToPath(new URL('../support/stale-process.js', import.meta.url));

describe('removal of stale files', () => {
  let root: string;
  let driver: FilesystemDriver;
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'registry-secure-'));
    driver = new FilesystemDriver({ root });
    await driver.open();
  });
  afterEach(() => rm(root, { recursive: true }));

  const path = (key: string) => join(root, key);
  const text = async (key: string) => (await driver.get(key))?.toString();
  const longAgo = new Date(Date.now() - 3_600_000);

  test('in another process never takes what is touched or replaced', async () => {
    const other = new FilesystemDriver({ root });
    await other.open();
    const child = spawn(process.execPath, [PROCESS, root], { stdio: ['pipe', 'pipe', 'inherit'] });
    const exited = once(child, 'exit');
    try {
      const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
      assert.equal((await lines.next()).value, 'ready');
      let tries = 0;
      const remove = (key: string, before: Date) => {
        child.stdin.write(`${key} ${before.getTime()}\n`);
        return async () => {
          child.stdin.write('stop\n');
          tries += Number((await lines.next()).value);
        };
      };
      // Each round has one that may have come before all else: what comes on top of those was a race.
      for (let rounds = 0; tries <= rounds; rounds += 100) {
        assert.ok(rounds < 1000, 'no removal ran beside a write');
        await raceRemovals({ at: `blobs/${rounds}`, drivers: [driver, other], rounds: 100, remove });
      }
    } finally {
      child.stdin.end();
      await exited;
    }
  });

  test('an object that is as old as the limit stays, whatever its fraction of a millisecond', async () => {
    for (const fraction of [0.2, 0.5, 0.7]) {
      await driver.write('blobs/1', Buffer.from('one'));
      const seconds = Math.floor(longAgo.getTime() / 1000) + (500 + fraction) / 1000;
      await utimes(path('blobs/1'), seconds, seconds);
      const { modified } = (await driver.stat('blobs/1'))!;
      assert.equal(await driver.removeStale('blobs/1', modified), false, String(fraction));
      assert.equal(await driver.removeStale('blobs/1', new Date(modified.getTime() + 1)), true, String(fraction));
    }
  });

  /** What a process that died left behind, at each of its steps. */
  const LEFT: Readonly<Record<string, (key: string) => Promise<void>>> = {
    'with the folder made': key => mkdir(path(`${key}~doomed`)),
    'with the file taken': async key => {
      await mkdir(path(`${key}~doomed`));
      await rename(path(key), path(`${key}~doomed/1`));
    },
    'with the file put back': async key => {
      await mkdir(path(`${key}~doomed`));
      await rename(path(key), path(`${key}~doomed/1`));
      await link(path(`${key}~doomed/1`), path(key));
    },
  };

  for (const [when, leave] of Object.entries(LEFT)) {
    test(`that died ${when} is undone by whoever misses the file`, async () => {
      const actions: Readonly<Record<string, (key: string) => Promise<unknown>>> = {
        stat: async key => (await driver.stat(key))?.size,
        get: text,
        read: async key => (await collect((await driver.read(key))!)).toString(),
        touch: key => driver.touch(key),
        create: async key => !(await driver.create(key, Buffer.from('other'))),
      };
      await Promise.all(
        Object.entries(actions).map(async ([name, action]) => {
          const key = `${name}/link`;
          await driver.write(key, Buffer.from('content'));
          await leave(key);
          assert.deepEqual(await driver.list(name), [{ name: 'link', folder: false }], name);
          assert.ok(await action(key), name);
          assert.equal(readFileSync(path(key), 'utf8'), 'content', name);
        }),
      );
    });

    test(`that died ${when} does not bring back what is removed`, async () => {
      await driver.write('a/link', Buffer.from('content'));
      await leave('a/link');
      assert.equal(await driver.remove('a/link'), true);
      assert.equal(await driver.stat('a/link'), undefined);
      assert.equal(await driver.remove('a/link'), false);

      await driver.write('b/link', Buffer.from('content'));
      const before = await stale(driver, 'b/link');
      await leave('b/link');
      assert.equal(await driver.removeStale('b/link', before), true);
      assert.equal(await driver.stat('b/link'), undefined);
      assert.equal(existsSync(path('b')), false, 'nothing is left');
    });

    test(`that died ${when} does not hide what is written later`, async () => {
      await driver.write('a/link', Buffer.from('old'));
      const before = await stale(driver, 'a/link');
      await leave('a/link');
      await driver.write('a/link', Buffer.from('new'));
      assert.equal(await text('a/link'), 'new');
      assert.equal(await driver.removeStale('a/link', before), false);
      assert.equal(await text('a/link'), 'new');
    });
  }

  test('waits for one that is at work, and puts back only what it has abandoned', async () => {
    for (let attempt = 0; ; attempt++) {
      const key = `${attempt}/link`;
      await driver.write(key, Buffer.from('content'));
      const began = performance.now();
      await LEFT['with the file taken']!(key);
      let answered = false;
      const reading = text(key).finally(() => {
        answered = true;
      });
      for (let n = 0; n < 20; n++) await driver.stat('elsewhere');
      const early = answered;
      await rm(path(`${key}~doomed`), { recursive: true });
      // On a busy machine all that may have taken as long as it waits.
      if (performance.now() - began < 800) {
        assert.equal(early, false);
        assert.equal(await reading, undefined);
        return;
      }
      await reading;
      assert.ok(attempt < 100, 'the machine was never quiet enough');
    }
  });

  test('lists an object that is being removed once, and as an object', async () => {
    await driver.write('records/1', Buffer.from('1'));
    await driver.write('records/2', Buffer.from('2'));
    await LEFT['with the file taken']!('records/1');
    await LEFT['with the file put back']!('records/2');
    const entries = [
      { name: '1', folder: false },
      { name: '2', folder: false },
    ];
    assert.deepEqual(await driver.list('records'), entries);
    assert.deepEqual(await driver.list('records', { after: '1' }), entries.slice(1));
  });

  test('leaves symbolic links alone, wherever they lead', async () => {
    await mkdir(path('a'));
    await writeFile(path('a/data'), 'x');
    await utimes(path('a/data'), longAgo, longAgo);
    await symlink('data', path('a/link'));
    await symlink('nowhere', path('a/dangling'));
    assert.equal(await driver.removeStale('a/link', new Date()), false);
    assert.equal(await driver.removeStale('a/dangling', new Date()), false);
    assert.equal(await text('a/link'), 'x');
    assert.equal(await text('a/dangling'), undefined);
  });

  test('takes no folder along that another file needs, nor the root', async () => {
    await driver.write('a/1/link', Buffer.from('x'));
    await driver.write('a/2', Buffer.from('x'));
    await driver.removeStale('a/1/link', await stale(driver, 'a/1/link'));
    assert.deepEqual(readdirSync(path('a')), ['2']);
    await driver.removeStale('a/2', await stale(driver, 'a/2'));
    assert.deepEqual(readdirSync(root), ['registry-secure']);
  });

  test('is not fooled by a file system that counts in whole seconds', async () => {
    await driver.write('a/link', Buffer.from('x'));
    const time = Math.floor(Date.now() / 1000) - 10;
    await utimes(path('a/link'), time, time);
    assert.equal(await driver.removeStale('a/link', new Date(time * 1000)), false, 'changed in that very second');
    assert.equal(await driver.removeStale('a/link', new Date(time * 1000 + 1)), true);
  });

  test('gives an object the time at which it is complete', async () => {
    const writer = await driver.createSegment('segments/1');
    await writer.write(Buffer.from('x'));
    await writer.close();
    await utimes(path('segments/1'), longAgo, longAgo);
    const started = Date.now();
    await driver.assemble(['segments/1'], 'a/data');
    assert.ok((await driver.stat('a/data'))!.modified.getTime() >= started);
  });
});
