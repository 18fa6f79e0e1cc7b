import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { hashSync } from 'bcryptjs';
import { makeMachineToken, presentedToken } from '../../src/auth/machine-tokens.js';
import { LocalRegistry } from '../support/local-registry.js';

const POLICY = `rules:
  - {who: [anonymous], may: [pull], on: ["public/**"]}
  - {who: [user:ci], may: [push], on: ["team/**"]}
`;

/** The one that has read a change first may have put off whoever goes on asking by the time that the other has. */
const REFUSED: readonly number[] = [401, 429];

describe('tokens of machines, and accounts', () => {
  let dir: string;
  let env: NodeJS.ProcessEnv;
  const run = (...args: string[]) => LocalRegistry.run(dir, [...args, '--dir', dir], { env });
  const works = async (...args: string[]) => {
    const { status, stdout, stderr } = await run(...args);
    assert.equal(status, 0, stderr);
    return { stdout, stderr };
  };
  const fails = async (message: RegExp, ...args: string[]) => {
    const { status, stdout, stderr } = await run(...args);
    assert.ok(status === 1 || status === 2, stderr);
    assert.match(stderr, message);
    assert.equal(stdout, '');
    assert.doesNotMatch(stderr, /^\s+at |rst_/m);
  };
  const idIn = (text: string) => /\b[0-9a-z]{12}\b/.exec(text)![0];
  const create = async (...args: string[]) => {
    const { stdout, stderr } = await works('token', 'create', '--user', 'ci', ...args);
    assert.match(stdout, /^rst_\w{50}\n$/, 'the token, and nothing else');
    return { secret: stdout.trim(), id: idIn(stderr) };
  };

  before(() => {
    dir = mkdtempSync(join(tmpdir(), 'registry-secure-token-'));
    writeFileSync(join(dir, 'policy.yml'), POLICY);
    const users = ['ci', 'alice'].map(name => `${name}:${hashSync('secret', 4)}\n`).join('');
    writeFileSync(join(dir, 'htpasswd'), users);
    env = {
      REGISTRY_AUTH: 'htpasswd',
      REGISTRY_AUTH_HTPASSWD_PATH: join(dir, 'htpasswd'),
      REGISTRY_ACCESS_POLICY: join(dir, 'policy.yml'),
      REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY: join(dir, 'data'),
    };
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  test('nothing is made where no registry has its data, nor of what is wrong', async () => {
    await fails(
      /there is no data folder .*data; check the path/,
      'token',
      'create',
      '--user',
      'ci',
      '--allow',
      'pull:**',
    );
    // One line: the audit log has no reason of its own.
    const config = ['--config', join(dir, 'missing.yml')];
    await fails(
      /^registry-secure: [^\n]*there is no such configuration file[^\n]*\n$/,
      ...['token', 'create', '--user', 'ci', '--allow', 'pull:**', ...config],
    );
    await fails(/"read" is no right; write pull, /, 'token', 'create', '--user', 'ci', '--allow', 'read:**');
    await fails(/required option '--allow/, 'token', 'create', '--user', 'ci');
    await fails(
      /expected a time with a unit/,
      'token',
      'create',
      '--user',
      'ci',
      '--allow',
      'pull:**',
      '--expires',
      '90',
    );
    await fails(
      /no user "bob" can log in by .*htpasswd; registry-secure user add bob/,
      'token',
      'create',
      '--user',
      'bob',
      '--allow',
      'pull:**',
    );
    await fails(/expected one line/, 'token', 'create', '--user', 'ci', '--allow', 'pull:**', '--description', 'a\nb');
    await fails(
      /no data folder/,
      'token',
      'create',
      '--user',
      'ci',
      '--allow',
      'pull:**',
      '--output',
      join(dir, 'never'),
    );
    assert.equal(existsSync(join(dir, 'never')), false, 'no token is left of what was not made');
    await fails(/say when the account ends; by --at/, 'user', 'expire', 'ci');
    await fails(/expected a day or a time/, 'user', 'expire', 'ci', '--at', 'tomorrow');
  });

  test('the life of a token on the command line', async () => {
    // The data is there from the first start on.
    await (await LocalRegistry.start(dir, ['serve', '--dir', dir], { env })).stop();
    const data = ['--root', join(dir, 'data')];
    assert.equal((await works('token', 'list', ...data)).stdout, 'no tokens\n');

    const dry = await works('token', 'create', '--user', 'ci', '--allow', 'pull:team/**', '--dry-run', ...data);
    assert.match(dry.stdout, /^would make a token for "ci", pull:team\/\*\*, until /);

    const { secret, id } = await create(
      '--allow',
      'pull:team/**',
      '--allow',
      'push:team/app',
      '--description',
      'night',
    );
    assert.equal(presentedToken(secret)?.id, id);
    const output = join(dir, 'secret');
    const filed = await works(
      'token',
      'create',
      '--user',
      'alice',
      '--allow',
      'pull:**',
      '--expires',
      'never',
      '--output',
      output,
    );
    assert.match(filed.stdout, /^token [0-9a-z]{12} for "alice", pull:\*\*, without an end is in .*secret\n$/);
    assert.equal(statSync(output).mode & 0o777, 0o600);
    assert.ok(presentedToken(readFileSync(output, 'utf8').trim())?.sound);
    await fails(/secret is there already/, 'token', 'create', '--user', 'ci', '--allow', 'pull:**', '--output', output);

    const list = JSON.parse((await works('token', 'list', '--json')).stdout);
    assert.deepEqual(
      list.map(({ user, allow, state, description }: Record<string, unknown>) => [user, allow, state, description]),
      [
        ['ci', ['pull:team/**', 'push:team/app'], 'active', 'night'],
        ['alice', ['pull:**'], 'active', undefined],
      ],
    );
    const days = (Date.parse(list[0].expires) - Date.parse(list[0].created)) / 86_400_000;
    assert.deepEqual([list[0].id, days, list[1].expires], [id, 90, undefined]);
    const text = (await works('token', 'list', '--user', 'ci')).stdout;
    assert.match(
      text,
      new RegExp(`^ID .*\\n${id} +ci +pull:team/\\*\\* push:team/app +\\S+ +never +active +night\\n$`),
    );
    for (const shown of [text, JSON.stringify(list)]) assert.doesNotMatch(shown, /rst_|[0-9a-f]{64}/);

    writeFileSync(join(dir, 'other'), `alice:${hashSync('secret', 4)}\n`);
    const removed = await works('user', 'remove', 'alice', '--file', 'other');
    assert.match(
      removed.stderr,
      /count again if there is one by that name: 1; registry-secure token revoke --user alice/,
    );

    await fails(/there is no token aaaaaaaaaaaa/, 'token', 'revoke', id, 'aaaaaaaaaaaa');
    await fails(/a token is named by its id/, 'token', 'revoke', secret);
    await fails(/say which tokens/, 'token', 'revoke');
    assert.match((await works('token', 'revoke', id, '--dry-run')).stdout, /would be revoked/);
    assert.equal(JSON.parse((await works('token', 'list', '--json')).stdout).length, 2);
    assert.equal((await works('token', 'revoke', id)).stdout, `token ${id} revoked\n`);
    assert.deepEqual(JSON.parse((await works('token', 'revoke', '--user', 'alice', '--json')).stdout).revoked, [
      list[1].id,
    ]);
    assert.equal((await works('token', 'list')).stdout, 'no tokens\n');
    assert.equal((await works('token', 'revoke', '--user', 'alice')).stdout, '"alice" has no tokens\n');
  });

  test('the life of an account on the command line', async () => {
    assert.match(
      (await works('user', 'disable', 'ci')).stdout,
      /^user "ci" is let in no more, disabled since 20\S+\n$/,
    );
    const disabled = (await works('user', 'list', '--file', 'htpasswd')).stdout;
    assert.match(disabled, /^ci {2}disabled since 20\S+\nalice\n$/);
    const listed = JSON.parse((await works('user', 'list', '--json', '--file', 'htpasswd')).stdout);
    assert.deepEqual([typeof listed[0].disabled, listed[1].disabled], ['string', undefined]);
    assert.match(
      (await works('user', 'expire', 'ci', '--at', '2020-01-31')).stdout,
      /no more, disabled since .*, with its end at 2020-01-31T00:00:00.000Z/,
    );
    assert.match((await works('user', 'enable', 'ci')).stdout, /^user "ci" is let in no more, with its end at 2020/);
    assert.match(
      (await works('user', 'list', '--file', 'htpasswd')).stdout,
      /^ci {2}expired 2020-01-31T00:00:00.000Z\nalice\n$/,
    );
    assert.match((await works('user', 'expire', 'ci', '--in', '90d')).stdout, /^user "ci" is let in, until 20/);
    assert.equal((await works('user', 'expire', 'ci', '--never')).stdout, 'user "ci" is let in\n');
    const unknown = await works('user', 'disable', 'zoe', '--json');
    assert.equal(JSON.parse(unknown.stdout).active, false);
    assert.match(unknown.stderr, /warning: no user "zoe" can log in by .*htpasswd/);
    // Whoever is of no file, such as users of a directory, is listed for the state of the account.
    assert.match(
      (await works('user', 'list', '--file', 'htpasswd')).stdout,
      /^ci\nalice\nzoe {2}disabled since 20\S+\n$/,
    );
    const [, , zoe] = JSON.parse((await works('user', 'list', '--json', '--file', 'htpasswd')).stdout);
    assert.deepEqual(Object.keys(zoe), ['name', 'disabled']);
    const add = ['user', 'add', 'zoe', '--file', 'htpasswd', '--password-stdin', '--dir', dir];
    const added = await LocalRegistry.run(dir, add, { env, input: 'secret' });
    assert.match(added.stderr, /^registry-secure: warning: this user is disabled since 20\S+, and let in by: /m);
    await works('user', 'enable', 'zoe');
    await works('user', 'remove', 'zoe', '--file', 'htpasswd');
    assert.equal((await works('user', 'list', '--file', 'htpasswd')).stdout, 'ci\nalice\n');
  });

  test('served by two processes: within the bounds, and gone within a second', async () => {
    const start = () => LocalRegistry.start(dir, ['serve', '--dir', dir], { env });
    const first = await start();
    const registries = [first, await start()];
    try {
      const status = (registry: LocalRegistry, path: string, credentials: object, method = 'GET') =>
        registry.call(method, path, credentials).then(reply => reply.status);
      const all = (path: string, credentials: object, method?: string) =>
        Promise.all(registries.map(registry => status(registry, path, credentials, method)));
      const { secret, id } = await create(
        '--allow',
        'pull:team/**',
        '--allow',
        'push:team/app',
        '--allow',
        'pull:other/**',
      );
      const basic = { auth: `ci:${secret}` };
      assert.deepEqual(await all('/v2/', basic), [200, 200], 'made and used at once');
      assert.deepEqual(await all('/v2/', { auth: `alice:${secret}` }), [401, 401], "another user's");
      const jwt = async (credentials: object) => ({
        token: JSON.parse((await first.call('GET', '/token', credentials)).body.toString()).token as string,
      });
      const bearer = await jwt(basic);
      const password = { auth: 'ci:secret' };
      const passwordToken = await jwt(password);
      for (const credentials of [basic, bearer]) {
        assert.deepEqual(await all('/v2/team/web/tags/list', credentials), [404, 404]);
        assert.deepEqual(await all('/v2/team/app/blobs/uploads/', credentials, 'POST'), [202, 202]);
        assert.deepEqual(
          await all('/v2/team/web/blobs/uploads/', credentials, 'POST'),
          [403, 403],
          'beyond its bounds',
        );
        assert.deepEqual(await all('/v2/other/app/tags/list', credentials), [403, 403], "beyond its user's rights");
        assert.deepEqual(await all('/v2/public/app/tags/list', credentials), [403, 403], 'not even what is public');
      }
      assert.deepEqual(await all('/v2/team/web/blobs/uploads/', password, 'POST'), [202, 202]);

      const gone = async (what: string, change: string[], ...credentials: object[]) => {
        await works(...change);
        const begun = performance.now();
        await first.until(async () => {
          const answers = await Promise.all(credentials.map(each => all('/v2/team/app/tags/list', each)));
          return answers.flat().every(code => REFUSED.includes(code));
        });
        // Looked at each half second; what is over that is this machine's load.
        const took = performance.now() - begun;
        console.log(`${what}: refused by both processes ${Math.round(took)} ms after the command`);
        assert.ok(took < 60_000, `${took} ms`);
      };
      const back = (...credentials: object[]) =>
        first.until(async () => {
          const answers = await Promise.all(credentials.map(each => all('/v2/team/app/tags/list', each)));
          return answers.flat().every(code => code === 404);
        });
      await gone('account disabled', ['user', 'disable', 'ci'], basic, bearer, password, passwordToken);
      assert.deepEqual(await all('/v2/', { auth: 'alice:secret' }), [200, 200]);
      await works('user', 'enable', 'ci');
      await back(basic, bearer, password, passwordToken);
      await gone(
        'account over',
        ['user', 'expire', 'ci', '--at', '2020-01-01'],
        basic,
        bearer,
        password,
        passwordToken,
      );
      await works('user', 'expire', 'ci', '--never');
      await back(basic, bearer, password, passwordToken);
      await gone('token revoked', ['token', 'revoke', id], basic, bearer);
      assert.deepEqual(await all('/v2/team/app/tags/list', passwordToken), [404, 404]);

      const other = { auth: `ci:${(await create('--allow', 'pull:**')).secret}` };
      await back(other);
      writeFileSync(join(dir, 'htpasswd'), readFileSync(join(dir, 'htpasswd'), 'utf8').replace(/^ci:.*\n/, ''));
      await first.until(async () => (await all('/v2/', other)).every(code => REFUSED.includes(code)));
      assert.match((await works('token', 'list')).stdout, / active\n$/);
      const used = JSON.parse((await works('token', 'list', '--json')).stdout)[0].used;
      assert.ok(Math.abs(Date.now() - Date.parse(used)) < 3_600_000);
      for (const { stdout, stderr } of registries)
        for (const text of [secret, other.auth.slice(3), bearer.token]) assert.ok(!`${stdout}${stderr}`.includes(text));
    } finally {
      await Promise.all(registries.map(registry => registry.stop()));
    }
  });

  test('guesses are bounded as those of passwords are, cost no bcrypt, and shut out no right token', async () => {
    writeFileSync(join(dir, 'htpasswd'), `ci:${hashSync('secret', 12)}\n`);
    const registry = await LocalRegistry.start(dir, ['serve', '--dir', dir], { env });
    try {
      const { secret } = await create('--allow', 'pull:**');
      const wrong = makeMachineToken().secret;
      const answers: number[] = [];
      const begun = performance.now();
      for (let i = 0; i < 15; i++) answers.push((await registry.call('GET', '/v2/', { auth: `ci:${wrong}` })).status);
      const took = performance.now() - begun;
      console.log(`15 wrong tokens: ${Math.round(took)} ms`);
      // One more is forgiven each six seconds, on a machine that takes so long.
      const forgiven = Math.ceil(took / 6_000) - 1;
      assert.deepEqual(answers.slice(0, 10), Array(10).fill(401));
      const later = answers.slice(10);
      assert.ok(later.every(code => REFUSED.includes(code)));
      assert.ok(later.filter(code => code === 401).length <= forgiven, `${later} in ${took} ms`);
      assert.equal((await registry.call('GET', '/v2/', { auth: `ci:${secret}` })).status, 200);
    } finally {
      await registry.stop();
    }
  });
});
