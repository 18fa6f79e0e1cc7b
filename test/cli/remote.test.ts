import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { LocalRegistry } from '../support/local-registry.js';

const POLICY = `rules:
  - {who: [user:admin], may: [admin], on: ["**"]}
  - {who: [authenticated], may: [push], on: ["users/{user}/*"]}
`;

/** The commands that take --server, against a registry that runs, from a folder of their own. */
describe('the command line through the API', () => {
  let dir: string;
  let away: string;
  let registry: LocalRegistry;
  let server: readonly string[];

  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'registry-secure-server-'));
    away = await mkdtemp(join(tmpdir(), 'registry-secure-client-'));
    await writeFile(join(dir, 'policy.yml'), POLICY);
    registry = await LocalRegistry.start(dir, ['up', '--ip', '127.0.0.1'], {
      env: { REGISTRY_ACCESS_POLICY: join(dir, 'policy.yml') },
    });
    await writeFile(join(away, 'mine'), registry.password);
    server = ['--server', `127.0.0.1:${registry.port}`, '--ca', join(dir, 'certs/ca.crt')];
  });
  after(async () => {
    await registry.stop('SIGKILL');
    await Promise.all([dir, away].map(folder => rm(folder, { recursive: true })));
  });

  const run = (args: readonly string[], input = '', env: NodeJS.ProcessEnv = {}) =>
    LocalRegistry.run(away, args, { input, env: { HOME: away, ...env } });
  const asAdmin = ['--as', 'admin', '--as-password-file', 'mine'];
  const must = async (args: readonly string[], input = '', env: NodeJS.ProcessEnv = {}) => {
    const { status, stdout, stderr } = await run([...args, ...server], input, env);
    assert.equal(status, 0, stderr);
    return stdout;
  };
  const fails = async (args: readonly string[], input = '', env: NodeJS.ProcessEnv = {}) => {
    const { status, stdout, stderr } = await run(args, input, env);
    assert.deepEqual([status, stdout], [1, ''], stderr);
    return stderr;
  };

  test('users are added, listed, checked, changed and removed as in a file', async () => {
    const host = `127.0.0.1:${registry.port}`;
    assert.equal(
      await must(['user', 'add', 'bob', '--password-stdin', ...asAdmin], 'first\n'),
      `user "bob" added to ${host}\n`,
    );
    assert.equal((await registry.call('GET', '/v2/', { auth: 'bob:first' })).status, 200);
    assert.equal(await must(['user', 'list', ...asAdmin]), 'admin\nbob\n');
    const list = JSON.parse(await must(['user', 'list', '--json', ...asAdmin]));
    assert.deepEqual(list, [
      { name: 'admin', usable: true },
      { name: 'bob', usable: true },
    ]);
    assert.match(await must(['user', 'verify', 'bob', '--password-stdin'], 'first'), /can log in/);
    assert.match(await fails(['user', 'verify', 'bob', '--password-stdin', ...server], 'other'), /cannot log in/);

    // The own password, by its user: the current one comes from the login.
    const own = ['user', 'passwd', 'bob', '--as', 'bob', '--as-password-stdin', '--password-file', 'next'];
    await writeFile(join(away, 'next'), 'second');
    assert.equal(await must(own, 'first'), `password of "bob" changed in ${host}\n`);
    assert.equal((await registry.call('GET', '/v2/', { auth: 'bob:second' })).status, 200);
    await must(['user', 'passwd', 'bob', '--password-stdin', ...asAdmin], 'third');
    assert.equal((await registry.call('GET', '/v2/', { auth: 'bob:third' })).status, 200);

    assert.match(await fails(['user', 'list', '--as', 'bob', '--as-password-stdin', ...server], 'third'), /no right/);
    assert.equal(await must(['user', 'remove', 'bob', ...asAdmin]), `user "bob" removed from ${host}\n`);
    assert.match(await fails(['user', 'remove', 'bob', ...asAdmin, ...server]), /there is no such user/);
  });

  test('tokens are made, listed and revoked, and accounts disabled, let in and ended', async () => {
    await must(['user', 'add', 'ci', '--password-stdin', ...asAdmin], 'secret');
    const secret = (await must(['token', 'create', '--user', 'ci', '--allow', 'push:users/**', ...asAdmin])).trim();
    const status = async () => (await registry.call('GET', '/v2/', { auth: `ci:${secret}` })).status;
    assert.equal(await status(), 200);
    const own = ['--as', 'ci', '--as-password-stdin'];
    const listed = JSON.parse(await must(['token', 'list', '--json', ...own], 'secret'));
    assert.deepEqual(
      listed.map(({ user, allow, state }: Record<string, unknown>) => [user, allow, state]),
      [['ci', ['push:users/**'], 'active']],
    );
    assert.match(await must(['token', 'list', ...asAdmin]), /^ID .*\n[0-9a-z]{12} {2}ci {2}/);
    assert.equal(
      await must(['user', 'disable', 'ci', ...asAdmin]).then(said => said.replace(/since .*/, '')),
      'user "ci" is let in no more, disabled \n',
    );
    await registry.until(async () => (await status()) === 401);
    assert.equal(await must(['user', 'enable', 'ci', ...asAdmin]), 'user "ci" is let in\n');
    await registry.until(async () => (await status()) === 200);
    const ended = await must(['user', 'expire', 'ci', '--at', '2099-01-01', ...asAdmin]);
    assert.equal(ended, 'user "ci" is let in, until 2099-01-01T00:00:00.000Z\n');
    assert.match(await must(['user', 'list', ...asAdmin]), /^ci {2}until 2099-01-01/m);
    assert.equal(await must(['user', 'expire', 'ci', '--never', ...asAdmin]), 'user "ci" is let in\n');
    const [{ id }] = listed;
    assert.equal(await must(['token', 'revoke', id, ...own], 'secret'), `token ${id} revoked\n`);
    await registry.until(async () => (await status()) === 401);
    assert.match(await fails(['token', 'revoke', id, ...own, ...server], 'secret'), /there is no such token/);
    await must(['user', 'remove', 'ci', ...asAdmin]);
  });

  test('rights are explained and the policy is checked as with a file', async () => {
    const local = (args: readonly string[]) => run([...args, '--policy', join(dir, 'policy.yml')]);
    const question = ['access', 'explain', 'alice', 'push', 'users/alice/app'];
    const there = await must([...question, ...asAdmin]);
    assert.equal(there, 'alice may push:\n  policy.yml:3:5: allows\n');
    assert.equal((await local(question)).stdout.replaceAll(`${dir}/`, ''), there);
    const no = await run(['access', 'explain', 'alice', 'delete', 'users/alice/app', ...asAdmin, ...server, '--json']);
    assert.equal(no.status, 1);
    assert.deepEqual(JSON.parse(no.stdout), {
      user: 'alice',
      action: 'delete',
      repository: 'users/alice/app',
      allowed: false,
      rules: [{ place: 'policy.yml:3:5', says: 'another right' }],
    });
    assert.equal(await must(['access', 'check', ...asAdmin]), `127.0.0.1:${registry.port}: 2 rules, 0 groups, well\n`);
  });

  test('the login comes from docker, a file, a variable or standard input, and never from the command line', async () => {
    const host = `127.0.0.1:${registry.port}`;
    assert.match(await fails(['user', 'list', ...server]), /nobody is logged in .*--as NAME/);
    await mkdir(join(away, '.docker'));
    const auth = Buffer.from(`admin:${registry.password}`).toString('base64');
    await writeFile(join(away, '.docker/config.json'), JSON.stringify({ auths: { [host]: { auth } } }));
    assert.equal(await must(['user', 'list']), 'admin\n');
    await rm(join(away, '.docker'), { recursive: true });
    const env = { REGISTRY_SECURE_PASSWORD_FILE: join(away, 'mine') };
    assert.equal(await must(['user', 'list', '--as', 'admin'], '', env), 'admin\n');
    assert.equal(await must(['user', 'list', '--as', 'admin', '--as-password-stdin'], registry.password), 'admin\n');
    const wrong = await fails(['user', 'list', '--as', 'admin', '--as-password-stdin', ...server], 'canary-4711');
    assert.match(wrong, /does not take the login of "admin"/);
    assert.doesNotMatch(wrong, /canary/);
    const both = ['user', 'add', 'x', '--password-stdin', '--as', 'admin', '--as-password-stdin'];
    assert.equal((await run([...both, ...server])).status, 2);
    assert.equal((await run(['user', 'list', '--file', 'x', ...server])).status, 2);
    const alone = await run(['user', 'list', '--as', 'admin']);
    assert.deepEqual([alone.status, alone.stderr], [2, 'registry-secure: --ca and --as are about --server; name it\n']);
    assert.match(
      await fails(['user', 'list', '--as', 'admin', ...server]),
      /--as-password-stdin, or .*--as-password-file/,
    );
  });

  test('what would be left out in silence is refused', async () => {
    const explain = ['access', 'explain', 'bob', 'pull', 'users/bob/app'];
    for (const args of [
      [...explain, '--group', 'dev'],
      ['access', 'check', '--groups', 'mine'],
      ['token', 'list', '--config', 'mine'],
      ['user', 'disable', 'bob', '--root', 'data'],
    ]) {
      const { status, stdout, stderr } = await run([...args, ...asAdmin, ...server]);
      assert.deepEqual([status, stdout], [2, ''], stderr);
      assert.match(stderr, /^registry-secure: --\w+ and --server do not go together; /);
    }
    const url = await run(['user', 'list', '--server', `https://127.0.0.1:${registry.port}`, ...asAdmin]);
    assert.deepEqual(
      [url.status, url.stderr],
      [2, 'registry-secure: --server takes no URL; write HOST or HOST:PORT\n'],
    );
  });

  test('no password goes to a server that nobody vouches for', async () => {
    const unknown = ['--server', `127.0.0.1:${registry.port}`, ...asAdmin];
    assert.match(await fails(['user', 'list', ...unknown]), /was not signed by this authority/);
    assert.match(await fails(['user', 'list', '--server', '127.0.0.1:1', ...asAdmin]), /refuses the connection/);
    // In the folder of the registry its own authority counts.
    const here = await LocalRegistry.run(dir, ['user', 'list', ...unknown.slice(0, 4), '--as-password-stdin'], {
      input: registry.password,
    });
    assert.equal(here.stdout, 'admin\n', here.stderr);
  });
});
