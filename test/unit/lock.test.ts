import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { withLock } from '../../src/lock.js';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'lock-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

const module = JSON.stringify(new URL('../../src/lock.js', import.meta.url).href);

/** Another process that takes the lock and tells; it keeps it until its input ends. */
async function holder(path: string) {
  const script = `import { withLock } from ${module};
    await withLock(${JSON.stringify(path)}, async () => { console.log('held'); for await (const _ of process.stdin); });`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['pipe', 'pipe', 'inherit'] });
  await once(child.stdout, 'data');
  return child;
}

test('callers take turns', async () => {
  const path = join(dir, 'lock');
  let inside = 0;
  let most = 0;
  const done = await Promise.all(
    Array.from({ length: 8 }, (_, index) =>
      withLock(path, async () => {
        most = Math.max(most, ++inside);
        await turn();
        inside--;
        return index;
      }),
    ),
  );
  assert.equal(most, 1);
  assert.deepEqual(done, [0, 1, 2, 3, 4, 5, 6, 7]);
  assert.deepEqual(readdirSync(dir), [], 'nothing is left behind');
});

test('a task that fails frees the lock', async () => {
  const path = join(dir, 'lock');
  await assert.rejects(
    withLock(path, async () => {
      throw new Error('failed');
    }),
    /^Error: failed$/,
  );
  assert.equal(await withLock(path, async () => 'next'), 'next');
});

test('another process that lives is waited for', async () => {
  const path = join(dir, 'lock');
  const child = await holder(path);
  let entered = false;
  const waiting = withLock(path, async () => {
    entered = true;
  });
  for (let index = 0; index < 5; index++) await turn();
  assert.equal(entered, false);
  assert.equal(JSON.parse(readFileSync(path, 'utf8')).pid, child.pid);
  child.stdin.end();
  await waiting;
  assert.equal(entered, true);
  if (child.exitCode === null) await once(child, 'exit');
});

test('the lock of a process that was killed is broken at once, by one of those who wait', async () => {
  const path = join(dir, 'lock');
  const child = await holder(path);
  child.kill('SIGKILL');
  await once(child, 'exit');
  let inside = 0;
  await Promise.all(
    Array.from({ length: 5 }, () =>
      withLock(path, async () => {
        assert.equal(++inside, 1);
        await turn();
        inside--;
      }),
    ),
  );
  assert.deepEqual(readdirSync(dir), []);
});

test('a lock that nobody touches any more is broken, also one of another machine and an empty one', async () => {
  const paths = [join(dir, 'foreign'), join(dir, 'empty')];
  writeFileSync(paths[0]!, JSON.stringify({ token: 'a-token', pid: 1, machine: 'elsewhere' }));
  writeFileSync(paths[1]!, '');
  await Promise.all(paths.map(path => withLock(path, async () => undefined, 100)));
  assert.deepEqual(readdirSync(dir), []);
});

test('a lock is broken although another process has died while it broke it', async () => {
  const path = join(dir, 'lock');
  writeFileSync(path, JSON.stringify({ token: 'a-token', pid: 1, machine: 'elsewhere' }));
  writeFileSync(`${path}.a-token`, '');
  assert.equal(await withLock(path, async () => 'held', 100), 'held');
  assert.deepEqual(readdirSync(dir), []);
});

test('who has lost the lock learns of it, and leaves the lock of the next one alone', async () => {
  const path = join(dir, 'lock');
  await withLock(path, async held => {
    assert.equal(await held(), true);
    writeFileSync(path, JSON.stringify({ token: 'a-token', pid: process.pid, machine: 'elsewhere' }));
    assert.equal(await held(), false);
  });
  assert.deepEqual(readdirSync(dir), ['lock']);
});
