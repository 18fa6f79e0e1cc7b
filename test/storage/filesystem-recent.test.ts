import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type TestContext, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Mount } from '../../src/storage/filesystem/mount.js';
import { Recent } from '../../src/storage/filesystem/recent.js';
import { FilesystemDriver } from '../../src/storage/filesystem.js';
import { Random } from '../support/random.js';
import { SETTLED } from './places.js';

const PROCESS = fileURLToPath(new URL('../support/changing-process.js', import.meta.url));

async function folder(t: TestContext): Promise<string> {
  const root = await mkdtemp(join(tmpdir(), 'registry-recent-'));
  t.after(() => rm(root, { recursive: true }));
  return root;
}

async function opened(root: string, settled = SETTLED): Promise<FilesystemDriver> {
  const driver = new FilesystemDriver({ root, settled });
  await driver.open();
  return driver;
}

/** Another process, which changes files below the root; what it has answered has happened. */
function changer(t: TestContext, root: string) {
  const child = spawn(process.execPath, [PROCESS], { stdio: ['pipe', 'pipe', 'inherit'] });
  t.after(() => child.kill());
  const answers = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return async (how: string, key: string, text = ''): Promise<void> => {
    child.stdin.write(`${how} ${join(root, key)} ${text}\n`);
    assert.equal((await answers.next()).value, 'done');
  };
}

test('a change that another process has answered is seen by the next read, however it was made', async t => {
  const root = await folder(t);
  const driver = await opened(root);
  const change = changer(t, root);
  const random = new Random(7);
  await change('made', 'a/link', '000000');
  let kept = 0;
  for (let round = 1; round <= 400; round++) {
    const text = String(round).padStart(6, '0');
    // All of the same size, so that only times and numbers tell.
    await change(random.pick(['over', 'over', 'renamed', 'anew']), 'a/link', text);
    // Some are met when they are no longer young.
    if (round % 8 === 1) await pause(SETTLED + 5);
    let last: Buffer | undefined;
    const looks = random.between(0, 3);
    for (let look = 0; look <= looks; look++) {
      // Where anything is recalled, it is what is there now.
      assert.equal((driver.recall('a/link')?.content ?? text).toString(), text);
      const content = await driver.get('a/link');
      assert.equal(content?.toString(), text);
      if (content === last) kept++;
      last = content;
      assert.equal((await driver.stat('a/link'))?.size, 6);
      // Some changes come within a tick of the clock, some when what was read is kept.
      if (round % 8 === 0) await pause(look === 0 ? SETTLED + 5 : 0);
    }
    if (round % 8 === 0) {
      for (let look = 0; look < 2; look++) await driver.get('a/link');
      const [one, other] = [await driver.get('a/link'), await driver.get('a/link')];
      assert.equal(other, one, 'kept by now, and handed out as it is');
      assert.equal(driver.recall('a/link')?.content, one);
      kept++;
    }
  }
  assert.ok(kept >= 50, `kept ${kept} times`);
});

test('what comes and goes in a folder is seen by the next list, and no change by the same list', async t => {
  const root = await folder(t);
  const driver = await opened(root);
  const change = changer(t, root);
  await change('made', 'tags/a/link', '1');
  const names = async () => (await driver.list('tags')).map(({ name }) => name);
  for (let round = 1; round <= 100; round++) {
    await change('made', 'tags/b/link', '1');
    if (round % 4 === 1) await pause(SETTLED + 5);
    assert.deepEqual(await names(), ['a', 'b']);
    if (round % 4 === 0) {
      await pause(SETTLED + 5);
      await names();
      await names();
      const known = await driver.list('tags');
      assert.equal(await driver.list('tags'), known, 'the very same');
      assert.equal(driver.recall('tags')?.entries, known);
      assert.deepEqual(await driver.list('tags', { after: 'a' }), [{ name: 'b', folder: true }]);
      assert.deepEqual(await driver.list('tags', { limit: 1 }), [{ name: 'a', folder: true }]);
    }
    await change('gone', 'tags/b');
    assert.deepEqual((driver.recall('tags')?.entries ?? [{ name: 'a', folder: true }]).length, 1);
    if (round % 4 === 0) await pause(SETTLED + 5);
    assert.deepEqual(await names(), ['a']);
  }
  await change('gone', 'tags');
  assert.deepEqual(await names(), []);
  assert.equal(await driver.get('tags/a/link'), undefined);
});

test('what is gone is not there, whatever was known of it', async t => {
  const root = await folder(t);
  const [driver, other] = [await opened(root), await opened(root)];
  for (let round = 0; round < 50; round++) {
    await driver.write('x/link', Buffer.from('there'));
    await pause(round % 10 === 0 ? SETTLED + 5 : 0);
    for (let look = 0; look < 3; look++) assert.equal((await driver.get('x/link'))?.toString(), 'there');
    await other.remove('x/link');
    assert.equal(driver.recall('x/link'), undefined);
    assert.equal(await driver.get('x/link'), undefined);
    assert.equal(await driver.stat('x/link'), undefined);
  }
});

test('what changed a moment ago is not kept', async t => {
  const root = await folder(t);
  const driver = await opened(root, 3_600_000);
  await driver.write('x', Buffer.from('young'));
  const reads = [await driver.get('x'), await driver.get('x'), await driver.get('x')];
  assert.equal(new Set(reads).size, 3);
});

test('a list with a symbolic link is read each time: what is behind it changes without the folder', async t => {
  const root = await folder(t);
  const driver = await opened(root);
  await mkdir(join(root, 'list'));
  await symlink(join(root, 'behind'), join(root, 'list', 'link'));
  await pause(SETTLED + 5);
  for (let look = 0; look < 3; look++) assert.deepEqual(await driver.list('list'), []);
  await mkdir(join(root, 'behind'));
  assert.deepEqual(await driver.list('list'), [{ name: 'link', folder: true }]);
});

test('what is kept of a long list counts as what it takes', async t => {
  const root = await folder(t);
  await mkdir(join(root, 'list'));
  const recent = new Recent(root, { isLocal: true }, 0);
  recent.open();
  await pause(20);
  recent.meet('list');
  const seen = await recent.look('list');
  const before = recent.size;
  recent.keep('list', seen, { entries: Array.from({ length: 1000 }, (_, n) => ({ name: `tag${n}`, folder: true })) });
  assert.ok(recent.size - before > 80_000, `${recent.size - before}`);
});

test('of what was seen a moment ago the limit, the end and the kind count as ever', async t => {
  const root = await folder(t);
  const driver = await opened(root);
  await mkdir(join(root, 'list'));
  for (const size of [0, 11, 1023, 1024, 1025]) {
    const text = 'x'.repeat(size);
    await writeFile(join(root, `of ${size}`), text);
    for (let look = 0; look < 3; look++) assert.equal((await driver.get(`of ${size}`))?.toString(), text);
    if (size > 0)
      for (let look = 0; look < 3; look++)
        await assert.rejects(driver.get(`of ${size}`, size - 1), /more than the limit/);
  }
  for (let look = 0; look < 3; look++) {
    assert.equal(await driver.get('list'), undefined);
    assert.equal(await driver.get('of 11/x'), undefined);
    assert.equal(await driver.stat('of 11/x'), undefined);
    assert.equal(await driver.stat('nowhere'), undefined);
    await driver.list('list');
  }
  // Also of what was just written, and of the volume when somebody has emptied it.
  await driver.write('a/link', Buffer.from('one'));
  assert.equal((await driver.get('a/link'))?.toString(), 'one');
  await rm(join(root, 'registry-secure'), { recursive: true });
  await driver.write('a/link', Buffer.from('two'));
  assert.equal((await driver.get('a/link'))?.toString(), 'two');
});

test('what no look would take any more is let go, and what is looked at stays', { timeout: 120_000 }, async t => {
  const root = await folder(t);
  for (const name of ['kept', 'left']) await writeFile(join(root, name), 'x');
  const recent = new Recent(root, { isLocal: true }, 0);
  recent.open();
  recent.meet('kept');
  const one = recent.size;
  recent.meet('left');
  assert.ok(recent.size > one);
  while (recent.size > one) {
    // A machine that stands still for longer than a look is good for has it forgotten: it is met again.
    if ((await recent.look('kept')) === undefined) recent.meet('kept');
    await pause(50);
  }
  assert.ok(await recent.look('kept'));
  while (recent.size > 0) await pause(50);
  assert.equal(recent.look('kept'), undefined);
  recent.meet('kept');
  assert.equal(recent.size, one);
});

test('more looks than one turn has room for wait for the next one; a foreign file system is never looked at', async t => {
  const root = await folder(t);
  await writeFile(join(root, 'x'), 'x');
  const recent = new Recent(root, { isLocal: true }, 0);
  recent.meet('x');
  assert.equal(recent.look('x'), undefined, 'before it is open');
  recent.open();
  recent.meet('x');
  const looks = Array.from({ length: 1000 }, () => recent.look('x'));
  assert.ok(!(looks[0] instanceof Promise) && looks[0] !== undefined);
  assert.ok(looks.at(-1) instanceof Promise);
  for (const look of looks) assert.equal((await look)?.size, 1);

  const mount = new Mount('/proc');
  await mount.remember();
  const foreign = new Recent('/proc', mount, 0);
  foreign.open();
  foreign.meet('version');
  assert.equal(foreign.look('version'), undefined);
});
