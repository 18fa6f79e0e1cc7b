import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { type FileHandle, mkdtemp, open, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { hashSync } from 'bcryptjs';
import { BcryptPool } from '../../src/auth/bcrypt-pool.js';
import type { BcryptCheck } from '../../src/auth/bcrypt-worker.js';
import { HtpasswdCredentials } from '../../src/auth/credentials.js';

/** The real pool, which also keeps an account of the work it was asked for. */
class CountingPool extends BcryptPool {
  readonly checks: BcryptCheck[] = [];
  override check(check: Parameters<BcryptPool['check']>[0]): Promise<boolean> {
    this.checks.push(check);
    return super.check(check);
  }
}

/** What a check costs: how many hashes, at which cost. */
const work = ({ passwords, cost }: BcryptCheck) => [passwords.length, cost];

const LONG = 'x'.repeat(72);
const HERE = '127.0.0.1';
let folder: string;
let file: string;
const line = (name: string, password: string, cost = 4) => `${name}:${hashSync(password, cost)}\n`;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'registry-secure-credentials-'));
  file = join(folder, 'htpasswd');
});
after(() => rm(folder, { recursive: true }));

async function opened(...lines: string[]) {
  await writeFile(file, lines.join(''));
  const pool = new CountingPool();
  return { pool, credentials: await HtpasswdCredentials.open(file, pool) };
}

describe('the users of an htpasswd file', () => {
  test('a right password is hashed once, a wrong one each time', async () => {
    const { pool, credentials } = await opened(line('alice', 'secret'));
    assert.equal(await credentials.verify('alice', 'secret', HERE), true);
    assert.equal(credentials.remembers('alice', 'secret'), true, 'known by now, and at once');
    assert.equal(pool.checks.length, 1);
    for (let i = 0; i < 2; i++) assert.equal(await credentials.verify('alice', 'wrong', HERE), false);
    assert.equal(pool.checks.length, 3);
    assert.equal(await credentials.verify('alic', 'esecret', HERE), false, 'user and password are kept apart');
  });

  test('what was right is checked again after five minutes, used or not', async context => {
    const { pool, credentials } = await opened(line('alice', 'secret'));
    const start = performance.now();
    let minutes = 0;
    context.mock.method(performance, 'now', () => start + minutes * 60_000);
    assert.equal(await credentials.verify('alice', 'secret', HERE), true);
    for (minutes = 1; minutes < 5; minutes++) {
      await new Promise(setImmediate);
      assert.equal(credentials.remembers('alice', 'secret'), true);
    }
    assert.equal(pool.checks.length, 1);
    minutes = 5.1;
    // The cache looks at the clock once a millisecond.
    await new Promise(resolve => setTimeout(resolve, 5));
    assert.equal(credentials.remembers('alice', 'secret'), false);
    assert.equal(await credentials.verify('alice', 'secret', HERE), true);
    assert.equal(credentials.remembers('alice', 'secret'), true);
  });

  test('checks of the same credentials at the same time are one', async () => {
    const { pool, credentials } = await opened(line('alice', 'secret'));
    const results = await Promise.all(Array.from({ length: 100 }, () => credentials.verify('alice', 'secret', HERE)));
    assert.ok(results.every(Boolean));
    const wrong = await Promise.all(Array.from({ length: 100 }, () => credentials.verify('bob', 'secret', HERE)));
    assert.ok(!wrong.some(Boolean));
    assert.equal(pool.checks.length, 2);
  });

  test('an unknown user is as much work as a wrong password, whatever the costs in the file', async () => {
    const { pool, credentials } = await opened(line('low', 'secret', 4), line('high', 'secret', 6), 'sha:{SHA}x\n');
    for (const user of ['low', 'high', 'sha', 'nobody', 'constructor'])
      assert.equal(await credentials.verify(user, 'wrong', HERE), false);
    for (const user of ['low', 'nobody']) assert.equal(await credentials.verify(user, 'u\u0308', HERE), false);
    assert.deepEqual(pool.checks.map(work), [...Array(5).fill([1, 6]), ...Array(2).fill([2, 6])]);
  });

  test('a password over 72 bytes is refused after the same work, though bcrypt would look at 72 only', async () => {
    const { pool, credentials } = await opened(line('alice', LONG));
    assert.equal(await credentials.verify('alice', LONG, HERE), true);
    assert.equal(await credentials.verify('alice', `${LONG}y`, HERE), false);
    assert.equal(await credentials.verify('nobody', `${LONG}y`, HERE), false);
    assert.equal(
      await credentials.verify('alice', `${'ü'.repeat(36)}y`, HERE),
      false,
      'bytes are counted, not characters',
    );
    assert.deepEqual(pool.checks.map(work), Array(4).fill([1, 4]));
  });

  test('a password is tried as it was sent, then in NFC', async () => {
    const { credentials } = await opened(line('new', 'schl\u00fcssel'), line('old', 'schlu\u0308ssel'));
    for (const sent of ['schl\u00fcssel', 'schlu\u0308ssel'])
      assert.equal(await credentials.verify('new', sent, HERE), true);
    assert.equal(await credentials.verify('old', 'schlu\u0308ssel', HERE), true);
    assert.equal(await credentials.verify('old', 'schl\u00fcssel', HERE), false);
  });

  test('a file without users refuses everybody after the usual work', async () => {
    const { pool, credentials } = await opened('');
    assert.equal(await credentials.verify('alice', '', HERE), false);
    assert.deepEqual(pool.checks.map(work), [[1, 10]]);
  });
});

describe('a reload', () => {
  test('refuses a removed user and an old password at once, and keeps what is known of the others', async () => {
    const others = line('carol', 'secret');
    const { pool, credentials } = await opened(line('alice', 'secret'), line('bob', 'secret'), others);
    for (const user of ['alice', 'bob', 'carol']) assert.equal(await credentials.verify(user, 'secret', HERE), true);
    await writeFile(`${file}.new`, line('bob', 'changed') + others);
    await rename(`${file}.new`, file);
    await credentials.reload();
    assert.equal(credentials.remembers('alice', 'secret'), false);
    assert.equal(await credentials.verify('alice', 'secret', HERE), false);
    assert.equal(credentials.remembers('bob', 'secret'), false);
    assert.equal(await credentials.verify('bob', 'secret', HERE), false);
    assert.equal(await credentials.verify('bob', 'changed', HERE), true);
    const before = pool.checks.length;
    assert.equal(credentials.remembers('carol', 'secret'), true);
    assert.equal(pool.checks.length, before);
  });

  test('during a check decides: who was removed meanwhile is refused', async () => {
    const { credentials } = await opened(line('alice', 'secret'));
    let release!: () => void;
    const held = new Promise<void>(resolve => {
      release = resolve;
    });
    const slow = await HtpasswdCredentials.open(file, { check: () => held.then(() => true) });
    const verdict = slow.verify('alice', 'secret', HERE);
    await truncate(file);
    await Promise.all([slow.reload(), credentials.reload()]);
    release();
    assert.equal(await verdict, false);
    assert.equal(await credentials.verify('alice', 'secret', HERE), false);
  });

  test('of a bad file keeps the users from before, and says what is wrong', async () => {
    const { credentials } = await opened(line('alice', 'secret'));
    await writeFile(file, `${line('bob', 'secret')}testuser test123\n`);
    await assert.rejects(credentials.reload(), { name: 'OperatorError', message: /line 2: no colon/ });
    assert.equal(await credentials.verify('alice', 'secret', HERE), true);
    assert.equal(await credentials.verify('bob', 'secret', HERE), false);
    await rm(file);
    await assert.rejects(credentials.reload(), { name: 'OperatorError', message: /does not exist/ });
    assert.equal(await credentials.verify('alice', 'secret', HERE), true);
  });

  test('waits for a file that is being rewritten in place', async context => {
    const whole = line('alice', 'secret') + line('bob', 'secret');
    const { credentials } = await opened(whole);
    await writeFile(file, whole.slice(0, 20));
    // The rest comes after the first look, while by the clock the file has just changed, however slow this machine is.
    context.mock.timers.enable({ apis: ['Date'], now: Date.now() });
    const handle = await open(file);
    const prototype = Object.getPrototypeOf(handle) as FileHandle;
    await handle.close();
    const { read } = prototype;
    let rest: NodeJS.Timeout | undefined;
    context.mock.method(prototype, 'read', async function (this: FileHandle, ...args: Parameters<typeof read>) {
      const result = await read.apply(this, args);
      rest ??= setTimeout(() => writeFileSync(file, whole), 10);
      return result;
    });
    await credentials.reload();
    assert.ok(rest);
    assert.deepEqual(credentials.warnings, []);
    assert.equal(await credentials.verify('bob', 'secret', HERE), true);
  });
});

describe('what is no htpasswd file', () => {
  const open = (path: string) => HtpasswdCredentials.open(path, { check: async () => true });
  test('a missing file, a folder, a device, a huge file, Latin-1', async () => {
    await rm(file, { force: true });
    await assert.rejects(open(file), {
      message: /does not exist/,
      fix: `make it: registry-secure user add NAME --file ${file}`,
    });
    await assert.rejects(open(join(folder, 'none', 'htpasswd')), { message: /does not exist/ });
    await assert.rejects(open(folder), {
      message: /is a folder, not a file/,
      fix: /^remove it, then: registry-secure user add/,
    });
    await assert.rejects(open('/dev/null'), { message: /not a regular file/ });
    await writeFile(file, Buffer.from('jürgen:x\n', 'latin1'));
    await assert.rejects(open(file), { message: /is not UTF-8/ });
    await truncate(file, 8 * 1024 * 1024 + 1);
    await assert.rejects(open(file), { message: /is larger than 8 MiB/ });
  });
});
