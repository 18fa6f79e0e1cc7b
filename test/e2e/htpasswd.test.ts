import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, chown, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { HtpasswdCredentials } from '../../src/auth/credentials.js';
import type { LegacyHash } from '../../src/auth/legacy-hash.js';
import { must, requireTools, run } from '../support/process.js';
import { program } from '../support/registry.js';

describe("Apache's htpasswd and ours on the same file", () => {
  let dir: string;
  let file: string;
  before(async () => {
    requireTools('htpasswd', 'script', 'unshare', 'mount', 'setpriv', 'strace');
    dir = await mkdtemp(join(tmpdir(), 'registry-secure-htpasswd-'));
    file = join(dir, 'htpasswd');
  });
  after(() => rm(dir, { recursive: true }));

  const ours = (args: string[], input: string) =>
    run(program('user', ...args, '--file', file, '--password-stdin'), { input });
  /** The exit codes of both, which say whether a login would succeed. */
  const verdicts = async (name: string, password: string) => [
    (await run(['htpasswd', '-iv', file, name], { input: password })).status === 0,
    (await ours(['verify', name], password)).status === 0,
  ];

  test('each reads what the other wrote', async () => {
    await must(['htpasswd', '-ciB', file, 'apache'], { input: 'of apache' });
    assert.equal((await ours(['add', 'ours'], 'of ours')).status, 0);
    await must(['htpasswd', '-iB', '-C', '8', file, 'later'], { input: 'schlüssel' });
    for (const [name, password] of [
      ['apache', 'of apache'],
      ['ours', 'of ours'],
      ['later', 'schlüssel'],
    ] as const) {
      assert.deepEqual(await verdicts(name, password), [true, true], name);
      assert.deepEqual(await verdicts(name, `${password}x`), [false, false], name);
    }
    assert.deepEqual(await verdicts('nobody', 'of ours'), [false, false]);
  });

  test('each changes and removes what the other wrote, and keeps the rest', async () => {
    await writeFile(file, `# people\n${await readFile(file, 'utf8')}`);
    assert.equal((await ours(['passwd', 'apache'], 'new')).status, 0);
    await must(['htpasswd', '-iB', file, 'ours'], { input: 'newer' });
    assert.deepEqual(await verdicts('apache', 'new'), [true, true]);
    assert.deepEqual(await verdicts('apache', 'of apache'), [false, false]);
    assert.deepEqual(await verdicts('ours', 'newer'), [true, true]);
    await must(['htpasswd', '-D', file, 'later']);
    await must(program('user', 'remove', 'apache', '--file', file));
    assert.match(await readFile(file, 'utf8'), /^# people\nours:\$2y\$\S+\n$/);
  });

  test('what Apache hashes in its older ways lets in who is asked for by name, and nobody else', async () => {
    const old = join(dir, 'old');
    await must(['htpasswd', '-ciB', old, 'current'], { input: 'secret' });
    const ways = [
      ['apr1', '-im'],
      ['sha1', '-is'],
      ['crypt', '-id'],
      ['sha2-crypt', '-i2'],
      ['sha2-crypt', '-i5'],
    ] as const;
    for (const [, flag] of ways) await must(['htpasswd', flag, old, `user${flag}`], { input: 'schlüssel' });
    const lets = async (source: HtpasswdCredentials, name: string, password: string) =>
      source.verify(name, password, '127.0.0.1');
    for (const legacy of [[], ['apr1'], ['sha1'], ['crypt'], ['sha2-crypt']] as LegacyHash[][]) {
      const source = await HtpasswdCredentials.open(old, undefined, legacy);
      assert.equal(await lets(source, 'current', 'secret'), true);
      for (const [kind, flag] of ways) {
        assert.equal(await lets(source, `user${flag}`, 'schlüssel'), legacy.includes(kind), `${flag} with ${legacy}`);
        assert.equal(await lets(source, `user${flag}`, 'Schlüssel'), false, flag);
      }
      assert.equal(
        source.warnings.some(warning => /whoever reads the file guesses/.test(warning)),
        legacy.length > 0,
      );
    }
  });

  test('a file that is mounted on its own is rewritten in place, which is said', async () => {
    const source = join(dir, 'source');
    const command = program('user', 'add', 'mounted', '--file', file, '--password-stdin').map(word => `'${word}'`);
    await must(['htpasswd', '-ciB', source, 'before'], { input: 'x' });
    await writeFile(source, `# ${'long '.repeat(100)}\n${await readFile(source, 'utf8')}`, { mode: 0o640 });
    const { ino } = await stat(source);
    const script = `mount --bind "$1" "$2" && exec ${command.join(' ')}`;
    const { status, stderr } = await run(['unshare', '--mount', 'sh', '-euc', script, 'sh', source, file], {
      input: 'secret',
    });
    assert.equal(status, 0, stderr);
    assert.match(stderr, /was rewritten in place, since it is mounted on its own/);
    assert.match(await readFile(source, 'utf8'), /^# (long )+\nbefore:\S+\nmounted:\S+\n$/);
    assert.equal((await stat(source)).ino, ino);
  });

  test('owner and mode stay; whoever may write a file but not give it away rewrites it in place', async () => {
    await writeFile(file, '');
    await chmod(file, 0o640);
    await chown(file, 1234, 2345);
    assert.equal((await ours(['add', 'kept'], 'secret')).stderr, '');
    const { uid, gid, mode } = await stat(file);
    assert.deepEqual([uid, gid, mode & 0o777], [1234, 2345, 0o640]);

    const shared = join(dir, 'shared');
    await mkdir(shared);
    await chown(shared, 3456, 3456);
    await writeFile(join(shared, 'users'), '');
    await chmod(dir, 0o755);
    await chmod(join(shared, 'users'), 0o666);
    const { ino } = await stat(join(shared, 'users'));
    const add = program('user', 'add', 'shared', '--file', join(shared, 'users'), '--password-stdin');
    const identity = ['setpriv', '--reuid=3456', '--regid=3456', '--clear-groups'];
    const { status, stderr } = await run([...identity, ...add], { input: 'secret' });
    assert.equal(status, 0, stderr);
    assert.match(stderr, /was rewritten in place, since it belongs to another user/);
    const after = await stat(join(shared, 'users'));
    assert.deepEqual([after.ino, after.uid], [ino, 0]);
    assert.deepEqual(await readdir(shared), ['users']);
  });

  test('a kill at any step leaves the old file or the new one, and nothing in the way of the next change', async () => {
    const crash = join(dir, 'crash');
    const users = join(crash, 'htpasswd');
    await mkdir(crash);
    const add = (name: string) => program('user', 'add', name, '--file', users, '--password-stdin');
    const list = async () => (await must(program('user', 'list', '--file', users))).trim().split('\n');
    await must(add('first'), { input: 'secret' });
    const steps = [
      ['the new content is flushed', 'fsync:signal=SIGKILL:when=1', false],
      ['it is renamed', 'rename:signal=SIGKILL:when=1', false],
      ['the folder is flushed', 'fsync:signal=SIGKILL:when=2', true],
      ['the lock is removed', 'unlink:signal=SIGKILL:when=1', true],
    ] as const;
    let expected = ['first'];
    for (const [index, [step, injected, lands]] of steps.entries()) {
      const strace = ['strace', '-f', '-qq', '-o', '/dev/null', '-e', `inject=${injected}`];
      // `when` counts for each thread.
      const env = { UV_THREADPOOL_SIZE: '1' };
      const { status } = await run([...strace, ...add(`user${index}`)], { input: 'secret', env });
      assert.notEqual(status, 0, `killed before ${step}`);
      if (lands) expected = [...expected, `user${index}`];
      assert.deepEqual(await list(), expected, `killed before ${step}`);
      assert.ok((await readdir(crash)).includes('htpasswd.lock'), step);
      await must(add(`next${index}`), { input: 'secret' });
      expected = [...expected, `next${index}`];
      assert.deepEqual(await list(), expected);
      assert.deepEqual(await readdir(crash), ['htpasswd'], step);
    }
  });

  /** What a real terminal shows and the exit code, when each answer is typed once its question is there. */
  async function typed(args: string[], dialogue: ReadonlyArray<readonly [question: string, keys: string]>) {
    const command = program('user', ...args, '--file', file).map(word => `'${word}'`);
    const child = spawn('script', ['-qec', command.join(' '), '/dev/null']);
    const left = [...dialogue];
    let shown = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      shown += text;
      if (left[0] && shown.endsWith(left[0][0])) child.stdin.write(left.shift()![1]);
    });
    const [status] = await once(child, 'close');
    assert.deepEqual(left, [], shown);
    return { status, shown };
  }

  test('the password is asked for twice on a terminal, and never shown', async () => {
    await rm(file);
    const again = 'The same again: ';
    const added = await typed(
      ['add', 'alice'],
      [
        ['Password for "alice": ', 'canarx\x7fy\r'],
        [again, 'canary\r'],
      ],
    );
    assert.equal(added.status, 0, added.shown);
    assert.match(added.shown, /^Password for "alice": \r\nThe same again: \r\nuser "alice" added to \S+\r\n$/);
    assert.deepEqual(await verdicts('alice', 'canary'), [true, true]);
    assert.equal((await typed(['verify', 'alice'], [['Password of "alice": ', 'canary\r']])).status, 0);
    const question = 'New password for "alice": ';
    const differing = await typed(
      ['passwd', 'alice'],
      [
        [question, 'canary1\r'],
        [again, 'canary2\r'],
      ],
    );
    assert.equal(differing.status, 1);
    assert.match(differing.shown, /the two passwords are not the same; nothing was changed/);
    assert.equal((await typed(['passwd', 'alice'], [[question, 'canary\x03']])).status, 130);
    assert.deepEqual(await verdicts('alice', 'canary'), [true, true]);
  });
});
