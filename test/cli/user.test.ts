import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { hashSync } from 'bcryptjs';
import { run } from '../support/process.js';
import { program } from '../support/registry.js';

let dir: string;
const user = (args: string[], input = '', env = {}) => run(program('user', ...args), { cwd: dir, input, env });

async function works(args: string[], input = '') {
  const output = await user(args, input);
  assert.equal(output.status, 0, output.stderr);
  return output;
}

/** One line on standard error, nothing on standard output, and no stack. */
async function fails(args: string[], status: number, message: RegExp, input = '') {
  const output = await user(args, input);
  assert.equal(output.status, status, output.stderr);
  assert.match(output.stderr, message);
  assert.equal(output.stdout, '');
  assert.ok(!/^\s+at /m.test(output.stderr) && !output.stderr.includes('canary'), output.stderr);
  return output;
}

before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'registry-secure-user-'));
});
after(() => rm(dir, { recursive: true }));

describe('registry-secure user', () => {
  test('the life of a user', async () => {
    const { stdout } = await works(['add', 'alice', '--password-stdin'], 'secret\n');
    assert.match(stdout, /^user "alice" added to .*auth\/htpasswd\n$/);
    assert.equal((await stat(join(dir, 'auth', 'htpasswd'))).mode & 0o777, 0o600);
    await works(['verify', 'alice', '--password-stdin'], 'secret');
    await fails(['verify', 'alice', '--password-stdin'], 1, /^registry-secure: "alice" cannot log in/, 'canary');
    await fails(['verify', 'bob', '--password-stdin'], 1, /^registry-secure: "bob" cannot log in/, 'secret');

    await writeFile(join(dir, 'password'), 'changed\r\n', { mode: 0o600 });
    await works(['passwd', 'alice', '--password-file', 'password']);
    await works(['verify', 'alice', '--password-file', join(dir, 'password')]);

    await works(['add', 'bob', '--password-stdin', '--dir', dir], 'secret');
    assert.equal((await works(['list'])).stdout, 'alice\nbob\n');
    await works(['remove', 'alice', '--file', 'auth/htpasswd']);
    assert.equal((await works(['list'])).stdout, 'bob\n');
    await fails(['remove', 'alice'], 1, /has no user "alice"; registry-secure user add alice --file /);
  });

  test('processes that change the file at once take turns', async () => {
    const file = join(dir, 'busy');
    const names = ['a', 'b', 'c', 'd'];
    await Promise.all(names.map(name => works(['add', name, '--file', file, '--password-stdin'], 'secret')));
    assert.deepEqual((await works(['list', '--file', file])).stdout.trim().split('\n').sort(), names);
  });

  test('what is odd in a file is told beside the users, and in full as JSON', async () => {
    const file = join(dir, 'mixed');
    await writeFile(file, `a:${hashSync('x', 4)}\nb:{SHA}canary\na:${hashSync('x', 4)}\n`);
    const { stdout, stderr } = await works(['list', '--file', file]);
    assert.equal(stdout, 'a\n');
    assert.match(
      stderr,
      /^registry-secure: warning: .*mixed, line 1: "a": .*\nregistry-secure: warning: .*line 2: "b": /,
    );
    const json = JSON.parse((await works(['list', '--json', '--file', file])).stdout);
    assert.deepEqual(
      json.map((entry: object) => Object.values({ ...entry, problem: undefined })),
      [
        ['a', 1, 4, false, undefined],
        ['b', 2, false, undefined],
        ['a', 3, 4, true, undefined],
      ],
    );
    assert.match(json[1].problem, /not bcrypt/);
  });

  test('the plain line of the old recipe: the error prints the command that mends it', async () => {
    const file = join(dir, 'plain');
    await writeFile(file, 'testuser canary\n');
    const { stderr } = await fails(['list', '--file', file], 1, /plain, line 1: no colon/);
    const [, command] = /: registry-secure user (.*)$/m.exec(stderr) ?? assert.fail(stderr);
    await works([...command!.split(' '), '--password-stdin'], 'secret');
    assert.match(await readFile(file, 'utf8'), /^testuser:\$2y\$10\$\S{53}\n$/);
  });

  test('a password that cannot be had, or cannot be used', async () => {
    await fails(['add', 'carol'], 1, /no terminal to ask for the password on; pipe it in with --password-stdin/);
    await fails(['add', 'carol', '--password-file', 'none'], 1, /none does not exist; give the path/);
    await fails(['add', 'carol', '--password-stdin'], 1, /the password is empty/, '\n');
    await fails(['add', 'carol', '--password-stdin'], 1, /has 73 bytes/, `canary${'x'.repeat(67)}\n`);
    await fails(['add', 'carol', '--password-stdin'], 1, /control characters/, 'canary\ncanary\n');
    await fails(['add', 'carol', '--password-stdin'], 1, /too long for a password/, 'canary'.repeat(1000));
    await fails(['add', 'carol', '--password-stdin', '--password-file', 'x'], 2, /cannot be used with/);
    await fails(['add', 'a:b', '--password-stdin'], 1, /the name of a user holds a colon/, 'secret');
    await fails(['add'], 2, /missing required argument/);
    await fails(['add', 'carol', 'canary'.slice(0, 3)], 2, /too many arguments/);
  });

  test('a missing file, and a folder in its place', async () => {
    await fails(
      ['list', '--dir', join(dir, 'none')],
      1,
      /does not exist; make it: registry-secure user add NAME --file /,
    );
    await fails(['add', 'a', '--file', '.', '--password-stdin'], 1, /is a folder, not a file/, 'secret');
  });

  test('the file that the variable of the registry names, unless --dir or --file is given', async () => {
    const env = { REGISTRY_AUTH_HTPASSWD_PATH: join(dir, 'variable') };
    const { status, stderr } = await user(['add', 'dave', '--password-stdin'], 'secret', env);
    assert.equal(status, 0, stderr);
    assert.match(await readFile(join(dir, 'variable'), 'utf8'), /^dave:/);
    assert.equal((await user(['list'], '', env)).stdout, 'dave\n');
    assert.equal((await user(['list', '--dir', dir], '', env)).stdout, 'bob\n');
  });

  test('the file that a configuration names', async () => {
    await writeFile(join(dir, 'config.yml'), `auth: {htpasswd: {path: ${join(dir, 'configured')}}}\n`);
    await works(['add', 'erin', '--config', 'config.yml', '--password-stdin'], 'secret');
    assert.match(await readFile(join(dir, 'configured'), 'utf8'), /^erin:/);
    assert.equal((await works(['list', '--config', 'config.yml'])).stdout, 'erin\n');
    await works(['verify', 'erin', '--config', 'config.yml', '--password-stdin'], 'secret');
    await writeFile(join(dir, 'config.yml'), 'auth: {none: {}}\n');
    await fails(['list', '--config', 'config.yml'], 1, /has no auth.htpasswd; name the password file with --file$/m);
  });
});
