import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, type TestContext, test } from 'node:test';
import { type StorageDriver, StorageError } from '../../src/storage/driver.js';
import { FilesystemDriver } from '../../src/storage/filesystem.js';
import { Accounts, changeAccount, listAccounts, readAccount } from '../../src/store/accounts.js';
import { layout } from '../../src/store/layout.js';
import {
  addMachineToken,
  lastUseOf,
  listMachineTokens,
  MachineTokenStore,
  revokeMachineToken,
} from '../../src/store/machine-tokens.js';

const HOUR = 3_600_000;
const ONE = 'aaaaaaaaaaa1';
const TWO = 'aaaaaaaaaaa2';
const token = (id: string, more: object = {}) => ({
  id,
  user: 'ci',
  allow: ['pull:team/**'],
  hash: 'a'.repeat(64),
  created: '2026-01-01T00:00:00.000Z',
  ...more,
});

/** A driver whose reads fail while it is told so. */
function failing(driver: StorageDriver): StorageDriver & { broken: boolean } {
  const fail = () => Promise.reject(new StorageError('unavailable', 'no disk'));
  const state = { broken: false };
  return new Proxy(driver, {
    set: (_target, _key, value) => {
      state.broken = value;
      return true;
    },
    get: (target, key) => {
      if (key === 'broken') return state.broken;
      const value = target[key as keyof StorageDriver];
      if (typeof value !== 'function') return value;
      return state.broken ? fail : (value as () => unknown).bind(target);
    },
  }) as StorageDriver & { broken: boolean };
}

describe('state that all processes share', () => {
  let root: string;
  let driver: FilesystemDriver;
  before(async () => {
    root = await mkdtemp(join(tmpdir(), 'registry-shared-'));
    driver = new FilesystemDriver({ root, readOnly: false });
    await driver.open();
  });
  after(async () => {
    await driver.close();
    await rm(root, { recursive: true });
  });
  beforeEach(async () => {
    for (const folder of [layout.machineTokens, layout.machineTokenUses, layout.accounts])
      await driver.removeAll(folder);
  });

  /** Makes time pass for the caches. */
  function clock(context: TestContext): (milliseconds: number) => void {
    let now = performance.now();
    context.mock.method(performance, 'now', () => now);
    return milliseconds => {
      now += milliseconds;
    };
  }

  describe("machines' tokens", () => {
    test('are kept for nobody else to read, and are what they were', async () => {
      const whole = token(ONE, { expires: '2027-01-01T00:00:00.000Z', description: 'the night build' });
      assert.equal(await addMachineToken(driver, whole), true);
      assert.equal(await addMachineToken(driver, token(ONE, { user: 'mallory' })), false);
      assert.deepEqual(await listMachineTokens(driver), { tokens: [whole], damaged: [] });
      assert.equal((await stat(join(root, layout.machineToken(ONE)))).mode & 0o777, 0o600);
      assert.equal((await stat(join(root, layout.machineTokens))).mode & 0o777, 0o700);
    });

    test('are seen, and seen to be gone, by another process within half a second; at once by who would be refused', async context => {
      const pass = clock(context);
      const other = new MachineTokenStore(driver);
      assert.equal(await other.find(ONE, false), undefined);
      await addMachineToken(driver, token(ONE));
      pass(51);
      assert.equal(await other.find(ONE, false), undefined);
      assert.deepEqual(await other.find(ONE, true), token(ONE));
      await revokeMachineToken(driver, ONE);
      pass(501);
      assert.equal(await other.find(ONE, false), undefined);
    });

    test('many requests at once look once', async context => {
      const pass = clock(context);
      const list = context.mock.method(driver, 'list');
      const store = new MachineTokenStore(driver);
      await Promise.all(Array.from({ length: 50 }, () => store.find(ONE, true)));
      assert.equal(list.mock.callCount(), 1);
      pass(499);
      await store.find(ONE, false);
      assert.equal(list.mock.callCount(), 1);
      list.mock.restore();
    });

    test('do not count when the storage cannot be read for a second, and count again when it can', async context => {
      const pass = clock(context);
      const disk = failing(driver);
      const store = new MachineTokenStore(disk);
      await addMachineToken(driver, token(ONE));
      assert.ok(await store.find(ONE, false));
      disk.broken = true;
      pass(900);
      assert.ok(await store.find(ONE, false), 'a short failure is nothing');
      pass(200);
      await assert.rejects(store.find(ONE, false), StorageError);
      await assert.rejects(new MachineTokenStore(disk).find(ONE, false), StorageError, 'nothing was ever seen');
      disk.broken = false;
      assert.ok(await store.find(ONE, false));
    });

    test('that are damaged count for nothing, and the others count', async () => {
      await addMachineToken(driver, token(TWO));
      const damaged = [
        '',
        '{',
        'null',
        JSON.stringify({ ...token(ONE), hash: 'short' }),
        JSON.stringify({ ...token(ONE), user: undefined }),
        JSON.stringify({ ...token(ONE), allow: 'pull:**' }),
        JSON.stringify({ ...token(ONE), expires: 'some day' }),
        JSON.stringify({ ...token(ONE), expires: null }),
      ];
      for (const text of damaged) {
        await writeFile(join(root, layout.machineToken(ONE)), text, { mode: 0o600 });
        assert.deepEqual(await listMachineTokens(driver), { tokens: [token(TWO)], damaged: [ONE] }, text);
        const store = new MachineTokenStore(driver);
        assert.equal(await store.find(ONE, true), undefined);
        assert.ok(await store.find(TWO, true));
      }
      assert.equal(await revokeMachineToken(driver, ONE), true);
    });

    test('a name that is none reaches no file', async () => {
      for (const name of ['../token-keys/x', '..', '', 'AAAAAAAAAAA1'])
        assert.equal(await revokeMachineToken(driver, name), false);
    });

    test('the last use is written at most once an hour by all together, and not for one that is revoked', async context => {
      const pass = clock(context);
      const write = context.mock.method(driver, 'write');
      const written = () => write.mock.calls.length;
      await addMachineToken(driver, token(ONE));
      const [one, other] = [new MachineTokenStore(driver), new MachineTokenStore(driver)];
      assert.equal(await lastUseOf(driver, ONE), undefined);
      await one.noteUse(ONE);
      assert.ok(Date.now() - (await lastUseOf(driver, ONE))!.getTime() < HOUR);
      assert.equal(written(), 1);
      await one.noteUse(ONE);
      await other.noteUse(ONE);
      assert.equal(written(), 1, 'another process has noted it');
      pass(HOUR);
      await one.noteUse(ONE);
      assert.equal(written(), 1, 'by the time of the file it is less than an hour');
      await revokeMachineToken(driver, ONE);
      await new MachineTokenStore(driver).noteUse(ONE);
      assert.equal(await lastUseOf(driver, ONE), undefined);
    });

    test('a volume that takes no writes is enough to be let in', async () => {
      await addMachineToken(driver, token(ONE));
      const readOnly = new FilesystemDriver({ root, readOnly: true });
      await readOnly.open();
      const store = new MachineTokenStore(readOnly);
      assert.ok(await store.find(ONE, false));
      await store.noteUse(ONE);
      await readOnly.close();
      assert.equal(await lastUseOf(driver, ONE), undefined);
    });
  });

  describe('accounts', () => {
    const disable = (user: string) => changeAccount(driver, user, () => ({ disabled: '2026-01-01T00:00:00.000Z' }));
    const usual = (user: string) => changeAccount(driver, user, () => ({}));

    test('whatever a user is called, in any spelling', async () => {
      const accounts = () => new Accounts(driver);
      for (const name of ['alice', '../../etc', 'a/b', 'ä', 'x'.repeat(255), '.']) {
        assert.equal(await accounts().isActive(name), true);
        await disable(name);
        assert.equal(await accounts().isActive(name), false, name);
        assert.equal(await accounts().isActive(`${name}2`), true);
      }
      assert.equal(await accounts().isActive('a\u0308'), false, 'another spelling of ä');
      assert.equal((await listAccounts(driver)).size, 6);
      await usual('ä');
      assert.equal((await listAccounts(driver)).has('ä'), false, 'nothing is kept of a usual one');
    });

    test('end at their time, to the millisecond', async context => {
      const end = Date.parse('2027-01-01T00:00:00.000Z');
      await changeAccount(driver, 'alice', () => ({ expires: new Date(end).toISOString() }));
      context.mock.timers.enable({ apis: ['Date'], now: end - 1 });
      const accounts = new Accounts(driver);
      assert.equal(await accounts.isActive('alice'), true);
      context.mock.timers.setTime(end);
      assert.equal(await accounts.isActive('alice'), false);
    });

    test('a change is seen by another process within half a second, and many requests look once', async context => {
      const pass = clock(context);
      const get = context.mock.method(driver, 'get');
      const accounts = new Accounts(driver);
      await Promise.all(Array.from({ length: 50 }, () => accounts.isActive('alice')));
      assert.equal(get.mock.callCount(), 1);
      await disable('alice');
      pass(499);
      assert.equal(await accounts.isActive('alice'), true);
      pass(2);
      assert.equal(await accounts.isActive('alice'), false);
      await usual('alice');
      pass(501);
      assert.equal(await accounts.isActive('alice'), true);
      get.mock.restore();
    });

    test('who comes again and again is looked up beside, and waits for no storage', async context => {
      const pass = clock(context);
      const accounts = new Accounts(driver);
      await accounts.isActive('alice');
      await disable('alice');
      pass(300);
      assert.equal(accounts.isActive('alice'), true, 'at once, from what is young enough');
      for (let turn = 0; accounts.isActive('alice') !== false; turn++) {
        assert.ok(turn < 6000, 'what was looked up counts without being asked for');
        await new Promise(resolve => setTimeout(resolve, 5));
      }
    });

    test('nobody is let in when the storage cannot be read for a second', async context => {
      const pass = clock(context);
      const disk = failing(driver);
      const accounts = new Accounts(disk);
      assert.equal(await accounts.isActive('alice'), true);
      disk.broken = true;
      pass(900);
      assert.equal(await accounts.isActive('alice'), true);
      await assert.rejects(async () => accounts.isActive('bob'), StorageError, 'never seen');
      pass(200);
      await assert.rejects(async () => accounts.isActive('alice'), StorageError);
      disk.broken = false;
      assert.equal(await accounts.isActive('alice'), true);
    });

    test('a record that cannot be made out lets nobody in', async () => {
      await disable('alice');
      const [name] = (await driver.list(layout.accounts)).map(entry => entry.name);
      const file = join(root, layout.account(name!));
      assert.match(await readFile(file, 'utf8'), /"user":"alice"/);
      for (const text of [
        '',
        '{',
        'null',
        '[]',
        '{"user":"alice","disabled":7}',
        '{"user":"alice","expires":"soon"}',
      ]) {
        await writeFile(file, text);
        assert.equal(await new Accounts(driver).isActive('alice'), false, text);
        assert.ok((await readAccount(driver, 'alice')).disabled);
      }
    });
  });
});
