import assert from 'node:assert/strict';
import { chmod, lstat, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { compareSync, hashSync } from 'bcryptjs';
import { addUser, changePassword, randomPassword, removeUser } from '../../src/auth/htpasswd-edit.js';
import { loadHtpasswd } from '../../src/auth/htpasswd-file.js';
import { replaceFile } from '../../src/auth/replace-file.js';

let folder: string;
let file: string;
const OLD = hashSync('old', 4).replace('$2b$', '$2y$');

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'registry-secure-edit-'));
  file = join(folder, 'htpasswd');
});
afterEach(() => rm(folder, { recursive: true }));

const text = () => readFile(file, 'utf8');
const mode = async (path = file) => (await stat(path)).mode & 0o777;
const leftovers = async (path = folder) => (await readdir(path)).filter(name => name !== 'htpasswd');
const verifies = async (name: string, password: string) =>
  compareSync(password, (await loadHtpasswd(file)).users.get(name)!);

describe('a change to an htpasswd file', () => {
  test('the first user makes the file, its folder, mode 0600, and a hash in the spelling of Apache at cost 10', async () => {
    file = join(folder, 'new', 'auth', 'htpasswd');
    assert.deepEqual(await addUser(file, 'alice', 'secret'), []);
    assert.match(await text(), /^alice:\$2y\$10\$[./A-Za-z0-9]{53}\n$/);
    assert.equal(await mode(), 0o600);
    assert.ok(await verifies('alice', 'secret'));
    assert.deepEqual(await leftovers(join(folder, 'new', 'auth')), []);
  });

  test('other lines, comments and line ends stay; mode stays', async () => {
    await writeFile(file, `# people\r\na:${OLD}\r\n\r\n  # machines\r\nb:{SHA}x`);
    await chmod(file, 0o640);
    const warnings = await addUser(file, 'c', 'secret');
    assert.match(warnings.join('\n'), /line 5: "b": a SHA-1 hash/);
    assert.match(await text(), /^# people\r\na:\S{60}\r\n\r\n {2}# machines\r\nb:\{SHA\}x\r\nc:\S{60}\r\n$/);
    assert.equal(await mode(), 0o640);
    await changePassword(file, 'a', 'new');
    assert.match(await text(), /^# people\r\na:\$2y\$10\$\S{53}\r\n\r\n {2}# machines\r\nb:/);
    await removeUser(file, 'b');
    assert.match(await text(), /^# people\r\na:\S{60}\r\n\r\n {2}# machines\r\nc:\S{60}\r\n$/);
    assert.deepEqual(await leftovers(), []);
  });

  test('a symbolic link stays one', async () => {
    await mkdir(join(folder, 'real'));
    await writeFile(join(folder, 'real', 'users'), '');
    await symlink('real/users', file);
    await addUser(file, 'a', 'secret');
    assert.ok((await lstat(file)).isSymbolicLink());
    assert.ok(await verifies('a', 'secret'));
    assert.deepEqual(await readdir(join(folder, 'real')), ['users']);
    await rm(join(folder, 'real', 'users'));
    await assert.rejects(addUser(file, 'a', 'secret'), { message: /symbolic link to a file that does not exist/ });
  });

  test('the plain line of the old recipe is replaced, and until then nothing else is written', async () => {
    await writeFile(file, 'testuser test123\n');
    await assert.rejects(addUser(file, 'alice', 'secret'), {
      message: /line 1: no colon/,
      fix: `replace the line by a hashed password: registry-secure user add testuser --file ${file}`,
    });
    assert.equal(await text(), 'testuser test123\n');
    await addUser(file, 'testuser', 'secret');
    assert.match(await text(), /^testuser:\$2y\$\S+\n$/);
  });

  test('of a user with several lines one stays, or none', async () => {
    await writeFile(file, `a:${OLD}\nb:${OLD}\na:${OLD}\n`);
    await changePassword(file, 'a', 'new');
    assert.match(await text(), /^a:\$2y\$10\S+\nb:\S+\n$/);
    await writeFile(file, `a:${OLD}\nb:${OLD}\na:${OLD}\n`);
    await removeUser(file, 'a');
    assert.equal(await text(), `b:${OLD}\n`);
    assert.match((await removeUser(file, 'b')).join(), /has no user who can log in/);
    assert.equal(await text(), '');
  });

  test('who is there, or not, is told', async () => {
    await assert.rejects(changePassword(file, 'a', 'x'), { message: /does not exist/ });
    await assert.rejects(removeUser(file, 'a'), { message: /does not exist/ });
    await addUser(file, 'a', 'secret');
    await assert.rejects(addUser(file, 'a', 'x'), { message: /has the user "a" already/, fix: /user passwd a --file/ });
    await assert.rejects(changePassword(file, 'b', 'x'), { message: /has no user "b"/, fix: /user add b --file/ });
    await assert.rejects(removeUser(file, 'b'), { message: /has no user "b"/ });
    assert.ok(await verifies('a', 'secret'));
  });

  test('a name or password that could not work is refused', async () => {
    const names = ['', 'a:b', 'a\nb', '#a', ' a', 'a ', 'x'.repeat(256), 'a\u0085', '\ufffd'];
    for (const name of names)
      await assert.rejects(addUser(file, name, 'secret'), { name: 'OperatorError', message: /^the name of a user / });
    const canary = 'canary'.repeat(13);
    for (const password of ['', canary, 'ü'.repeat(37), 'canary\tcanary', 'canary\n', 'canary\x7f', 'canary\0'])
      await assert.rejects(addUser(file, 'a', password), (error: Error) => {
        assert.match(error.message, /^the password /);
        assert.ok(!error.message.includes('canary'));
        return true;
      });
    assert.deepEqual(await readdir(folder), []);
    await addUser(file, 'x'.repeat(255), 'ü'.repeat(36));
  });

  test('names and passwords are written in NFC', async () => {
    await addUser(file, 'ju\u0308rgen', 'schlu\u0308ssel');
    assert.ok((await text()).startsWith('j\u00fcrgen:'));
    assert.ok(await verifies('j\u00fcrgen', 'schl\u00fcssel'));
    await removeUser(file, 'ju\u0308rgen');
  });

  test('a folder that cannot be written, and a folder in the place of the file', async () => {
    await assert.rejects(addUser('/proc/htpasswd', 'a', 'secret'), {
      name: 'OperatorError',
      message: /^\/proc.* cannot be (written|made)/,
    });
    await assert.rejects(addUser(join(file, 'x\0'), 'a', 'secret'), { name: 'OperatorError' });
    await rm(file, { recursive: true, force: true });
    await mkdir(file);
    await assert.rejects(addUser(file, 'a', 'secret'), { message: /is a folder, not a file/ });
    assert.deepEqual(await leftovers(), []);
  });

  test('a password that is made up is random, and free of characters that are mistaken for others', () => {
    const passwords = new Set(Array.from({ length: 100 }, randomPassword));
    assert.equal(passwords.size, 100);
    for (const password of passwords) assert.match(password, /^[a-km-np-z2-9]{5}(-[a-km-np-z2-9]{5}){3}$/);
  });
});

describe('changes at once', () => {
  test('all count', async () => {
    const names = Array.from({ length: 6 }, (_, index) => `user${index}`);
    await Promise.all(names.map(name => addUser(file, name, 'secret')));
    assert.deepEqual([...(await loadHtpasswd(file)).users.keys()].sort(), names.sort());
    assert.deepEqual(await leftovers(), []);
  });

  test('one that may not go on at the last moment changes nothing', async () => {
    await writeFile(file, 'old');
    await assert.rejects(
      replaceFile(file, 'new', await stat(file), async () => false),
      { name: 'OperatorError', message: /locked by another process meanwhile/ },
    );
    assert.equal(await text(), 'old');
    assert.deepEqual(await leftovers(), []);
  });
});
