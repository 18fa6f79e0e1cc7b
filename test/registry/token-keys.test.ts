import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { FilesystemDriver } from '../../src/storage/filesystem.js';
import { layout } from '../../src/store/layout.js';
import { TokenKeys } from '../../src/store/token-keys.js';

const HOUR = 3_600_000;

describe('the keys of tokens', () => {
  let root: string;
  let driver: FilesystemDriver;
  before(async () => {
    root = await mkdtemp(join(tmpdir(), 'registry-keys-'));
    driver = new FilesystemDriver({ root, readOnly: false });
    await driver.open();
  });
  after(async () => {
    await driver.close();
    await rm(root, { recursive: true });
  });
  beforeEach(() => driver.removeAll(layout.tokenKeys));

  test('one is made at the first need, for nobody else to read', async () => {
    const keys = new TokenKeys(driver);
    const made = await Promise.all(Array.from({ length: 5 }, () => keys.current()));
    assert.equal(new Set(made.map(({ id }) => id)).size, 1);
    assert.equal(made[0]!.secret.length, 32);
    assert.deepEqual(await readdir(join(root, layout.tokenKeys)), [made[0]!.id]);
    assert.equal((await stat(join(root, layout.tokenKey(made[0]!.id)))).mode & 0o777, 0o600);
    assert.equal((await stat(join(root, layout.tokenKeys))).mode & 0o777, 0o700);
  });

  test('another process signs with the same, and knows one that was made since', async context => {
    const [one, other] = [new TokenKeys(driver), new TokenKeys(driver)];
    const first = await one.current();
    assert.deepEqual(await other.current(), first);
    // Another one is looked for at most once a second.
    let now = performance.now();
    context.mock.method(performance, 'now', () => now);
    await driver.removeAll(layout.tokenKeys);
    const second = await new TokenKeys(driver).current();
    now += 1_100;
    assert.deepEqual(await one.find(second.id), second);
    assert.equal(await one.find(first.id), undefined, 'removed');
    assert.equal(await one.find('../../../etc/passwd'), undefined);
  });

  test('each signs for a day and is known for another one', async context => {
    const start = Date.now();
    context.mock.timers.enable({ apis: ['Date'], now: start });
    const first = await new TokenKeys(driver).current();
    context.mock.timers.setTime(start + 23 * HOUR);
    assert.deepEqual(await new TokenKeys(driver).current(), first);
    context.mock.timers.setTime(start + 25 * HOUR);
    const second = await new TokenKeys(driver).current();
    assert.notEqual(second.id, first.id);
    assert.deepEqual(await new TokenKeys(driver).find(first.id), first);
    context.mock.timers.setTime(start + 50 * HOUR);
    assert.equal(await new TokenKeys(driver).find(first.id), undefined);
    const third = await new TokenKeys(driver).current();
    assert.deepEqual(await readdir(join(root, layout.tokenKeys)), [second.id, third.id].sort());
  });

  test('on a volume that takes no writes each process has its own', async () => {
    const readOnly = new FilesystemDriver({ root, readOnly: true });
    await readOnly.open();
    const keys = new TokenKeys(readOnly);
    const key = await keys.current();
    assert.deepEqual(await keys.find(key.id), key);
    assert.deepEqual(await keys.current(), key);
    assert.equal(await new TokenKeys(readOnly).find(key.id), undefined);
    await readOnly.close();
  });
});
