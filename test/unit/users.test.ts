import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { HtpasswdCredentials } from '../../src/auth/credentials.js';
import { OperatorError } from '../../src/errors.js';
import { ensureUsers } from '../../src/server/users.js';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'users-'));
});
afterEach(() => rm(dir, { recursive: true }));

test('of several starts at once one makes the user, and the password that is left is the right one', async () => {
  const file = join(dir, 'auth', 'htpasswd');
  const all = await Promise.all(Array.from({ length: 4 }, () => ensureUsers({ file, terminal: false })));
  assert.deepEqual(all.map(({ action }) => action).sort(), ['created', 'reused', 'reused', 'reused']);
  const password = (await readFile(join(dir, 'auth', 'initial-password'), 'utf8')).trim();
  assert.equal(await (await HtpasswdCredentials.open(file)).verify('admin', password, '127.0.0.1'), true);
  assert.deepEqual((await readdir(join(dir, 'auth'))).sort(), ['htpasswd', 'initial-password']);
});

test('what keeps the first user from being made is said in one line, and leaves no user without a password', async () => {
  const file = join(dir, 'htpasswd');
  await mkdir(join(dir, 'initial-password'));
  await assert.rejects(
    ensureUsers({ file, terminal: false }),
    error => error instanceof OperatorError && error.message.includes(dir) && error.fix !== undefined,
  );
  assert.deepEqual(await readdir(dir), ['initial-password']);
});
