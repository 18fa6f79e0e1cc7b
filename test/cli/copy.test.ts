import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { LocalRegistry } from '../support/local-registry.js';
import { digestOf, manifestOf, OCI_MANIFEST, RegistryFixture } from '../support/registry-fixture.js';

/** Between two registries that ask for logins, with authorities of their own, from a third machine's folder. */
describe('copy', () => {
  let away: string;
  let dirs: readonly string[];
  let source: LocalRegistry;
  let target: LocalRegistry;

  before(async () => {
    away = await mkdtemp(join(tmpdir(), 'registry-secure-copy-'));
    dirs = ['source', 'target'].map(name => join(away, name));
    for (const dir of dirs) await mkdir(dir);
    const start = (dir: string) => LocalRegistry.start(dir, ['up', '--ip', '127.0.0.1', '--workers', '1']);
    [source, target] = await Promise.all([start(dirs[0]!), start(dirs[1]!)]);
    const authorities = await Promise.all(dirs.map(dir => readFile(join(dir, 'certs/ca.crt'))));
    await writeFile(join(away, 'both.crt'), Buffer.concat(authorities));
    const kept = [source, target].map(({ port, password }) => [
      `127.0.0.1:${port}`,
      { auth: Buffer.from(`admin:${password}`).toString('base64') },
    ]);
    await writeFile(join(away, 'config.json'), JSON.stringify({ auths: Object.fromEntries(kept) }));
    for (const [repository, tag] of [
      ['team/app', 'v1'],
      ['team/app', 'v2'],
      ['other/tool', 'v1'],
    ] as const)
      await push(source, repository, tag, `${repository}:${tag}`);
  });
  after(async () => {
    await Promise.all([source.stop(), target.stop()]);
    await rm(away, { recursive: true });
  });

  async function push(registry: LocalRegistry, repository: string, tag: string, content: string): Promise<void> {
    const auth = `admin:${registry.password}`;
    const config = Buffer.from(JSON.stringify({ content }));
    const blob = `/v2/${repository}/blobs/uploads/?digest=${digestOf(config)}`;
    assert.equal((await registry.call('POST', blob, { auth, body: config })).status, 201);
    const path = `/v2/${repository}/manifests/${tag}`;
    const headers = { 'Content-Type': OCI_MANIFEST };
    assert.equal((await registry.call('PUT', path, { auth, headers, body: manifestOf(config, []) })).status, 201);
  }

  const run = (args: readonly string[], env: NodeJS.ProcessEnv = {}) =>
    LocalRegistry.run(away, ['copy', ...args, '--ca', 'both.crt'], {
      env: { HOME: away, DOCKER_CONFIG: away, ...env },
    });
  const from = (rest = '') => `127.0.0.1:${source.port}${rest}`;
  const to = (rest = '') => `127.0.0.1:${target.port}${rest}`;
  const tags = async (repository: string) => {
    const answer = await target.call('GET', `/v2/${repository}/tags/list`, { auth: `admin:${target.password}` });
    return answer.status === 200 ? JSON.parse(answer.body.toString()).tags : [];
  };

  test('one image, with the logins that docker keeps', async () => {
    const dry = await run([from('/team/app:v1'), to(), '--dry-run']);
    assert.deepEqual([dry.status, dry.stderr], [0, '']);
    assert.match(dry.stdout, /^team\/app:v1: would be copied \(\d+ B\)\n1 new, .*: nothing was copied\n$/);
    assert.deepEqual(await tags('team/app'), []);
    const done = await run([from('/team/app:v1'), to('/mine/app:stable')]);
    assert.deepEqual([done.status, done.stderr], [0, '']);
    assert.match(
      done.stdout,
      /^team\/app:v1 -> mine\/app:stable: copied \(\d+ B\)\n1 new, 0 moved, 0 the same, 0 failed: 1 layers/,
    );
    assert.deepEqual(await tags('mine/app'), ['stable']);
  });

  test('a whole registry, through a folder, by patterns, and only what is new', async () => {
    const folder = await run([from(), './data', '--all', '--json']);
    assert.deepEqual([folder.status, folder.stderr], [0, '']);
    const { images, list } = JSON.parse(folder.stdout);
    assert.deepEqual(images, { new: 3, moved: 0, same: 0, failed: 0 });
    assert.deepEqual(list.map((one: { to: string }) => one.to).sort(), ['other/tool:v1', 'team/app:v1', 'team/app:v2']);
    const some = await run(['./data', to('/mirror'), '--match', 'team/*:v2', '--match', 'other/**']);
    assert.equal(some.status, 0, some.stderr);
    assert.deepEqual([await tags('mirror/team/app'), await tags('mirror/other/tool')], [['v2'], ['v1']]);
    const rest = JSON.parse((await run(['./data', to('/mirror'), '--all', '--json'])).stdout);
    assert.deepEqual(rest.images, { new: 1, moved: 0, same: 2, failed: 0 });
    const repository = await run(['./data#team/app', to('/renamed'), '--all']);
    assert.equal(repository.status, 0, repository.stderr);
    assert.deepEqual(await tags('renamed'), ['v1', 'v2']);
  });

  test('one repository that may not be listed is told, and the others are copied', async () => {
    const registry = await RegistryFixture.start({
      authorise: (_, action, repository) => !(action === 'pull' && repository === 'team/hidden'),
    });
    try {
      for (const name of ['team/app', 'team/hidden', 'team/tool']) await registry.pushImage(name, 'v1');
      const host = `127.0.0.1:${registry.port}`;
      const some = await run([host, './open', '--all', '--src-plain-http', '--json']);
      assert.equal(some.status, 1);
      const { images, unlisted, list } = JSON.parse(some.stdout);
      assert.deepEqual(images, { new: 2, moved: 0, same: 0, failed: 0 });
      assert.deepEqual(list.map((one: { to: string }) => one.to).sort(), ['team/app:v1', 'team/tool:v1']);
      const problem = `${host} says: requested access to the resource is denied; log in first, such as by: docker login ${host}`;
      assert.deepEqual(unlisted, [{ repository: 'team/hidden', problem }]);
      const again = await run([host, './open', '--all', '--src-plain-http']);
      assert.equal(again.status, 1);
      assert.ok(again.stderr.endsWith(`\nregistry-secure: team/hidden was not copied: ${problem}\n`), again.stderr);
      assert.match(again.stdout, /^0 new, 0 moved, 2 the same, 0 failed, 1 repository not listed: /);
      const alone = await run([`${host}/team/hidden`, './open', '--all', '--src-plain-http']);
      assert.deepEqual([alone.status, alone.stdout], [1, '']);
      assert.ok(alone.stderr.endsWith(`\nregistry-secure: ${problem}\n`), alone.stderr);
      const listed = await LocalRegistry.run(away, ['image', 'list', host, '--plain-http'], {
        env: { HOME: away, DOCKER_CONFIG: away },
      });
      assert.equal(listed.status, 1);
      assert.match(listed.stdout, /^team\/app:v1 .*\nteam\/tool:v1 .*\n$/);
      assert.ok(listed.stderr.endsWith(`\nregistry-secure: team/hidden is not listed: ${problem}\n`), listed.stderr);
    } finally {
      await registry.stop();
    }
  });

  test('watched: what is pushed there comes here, until Ctrl-C', async () => {
    const args = ['copy', from('/team/watched'), to(), '--all', '--watch', '200ms', '--ca', join(away, 'both.crt')];
    await push(source, 'team/watched', 'first', '1');
    const env = { HOME: away, DOCKER_CONFIG: away };
    const registry = LocalRegistry.watch(away, args, { env });
    await registry.until(async () => (await tags('team/watched')).includes('first'));
    await push(source, 'team/watched', 'second', '2');
    await registry.until(() => /team\/watched:second: copied/.test(registry.stdout));
    assert.deepEqual(await tags('team/watched'), ['first', 'second']);
    assert.equal(await registry.stop('SIGINT'), null);
  });

  test('a credential helper is asked where docker uses one; a login can be given', async () => {
    const bin = join(away, 'bin');
    await mkdir(bin);
    await mkdir(join(away, 'helped'));
    await writeFile(join(away, 'helped/config.json'), JSON.stringify({ credsStore: 'test' }));
    const answer = JSON.stringify({ ServerURL: 'x', Username: 'admin', Secret: source.password });
    await writeFile(
      join(bin, 'docker-credential-test'),
      `#!/bin/sh\nread host\n[ "$1 $host" = "get ${from()}" ] || exit 1\necho '${answer}'\n`,
    );
    await chmod(join(bin, 'docker-credential-test'), 0o755);
    await writeFile(join(away, 'password'), target.password, { mode: 0o600 });
    const env = { DOCKER_CONFIG: join(away, 'helped'), PATH: `${bin}:${process.env.PATH}` };
    const login = ['--dst-as', 'admin', '--dst-password-file', 'password'];
    const done = await run([from('/other/tool:v1'), to('/helped/tool:v1'), ...login], env);
    assert.deepEqual([done.status, done.stderr], [0, '']);
    assert.deepEqual(await tags('helped/tool'), ['v1']);
    const missing = await run([from('/other/tool:v1'), to('/x:y'), ...login], { ...env, PATH: process.env.PATH });
    assert.match(missing.stderr, /docker-credential-test, which is not here; install it/);
  });

  test('what cannot be: said in one line, with the way out and the exit code', async () => {
    const refusals: Array<[args: string[], status: number, message: RegExp]> = [
      [[from('/team/app'), to()], 2, /names no tag; add REPOSITORY:TAG, or copy all of it with --all/],
      [[from(), to()], 2, /names no image/],
      [['team/app:v1', to()], 2, /names no registry; write the host before it/],
      [[from('/Team/app:v1'), to()], 2, /"Team\/app" is no name of a repository/],
      [['ftp://x/y', to()], 2, /no place that images can be copied from or to/],
      [[from('/team/app:v1'), from('/team/app:v1')], 2, /both ends are the same/],
      [[from('/team/app:v1'), to(), '--all'], 2, /names one image, and --all and --match name more/],
      [[from('/team/app'), to('/a:b'), '--all'], 2, /many are to be copied; leave out its tag/],
      [[from('/team/app:none'), to()], 1, /has no team\/app:none/],
      [['./nowhere#team/app:v1', to()], 1, /nowhere/],
    ];
    for (const [args, status, message] of refusals) {
      const refused = await run(args);
      assert.deepEqual([refused.status, refused.stderr.match(message)?.length], [status, 1], refused.stderr);
    }
    const noTerminal = await run([from('/team/app:v1'), to(), '--dst-as', 'admin']);
    assert.match(
      noTerminal.stderr,
      /no terminal to ask for the password of "admin" on; name a file with --dst-password-file/,
    );
    const plain = await run([from('/team/app:v1'), to(), '--src-plain-http', '--dry-run']);
    assert.equal(plain.status, 1);
    assert.match(
      plain.stderr,
      /^registry-secure: warning: 127\.0\.0\.1:\d+ is reached without TLS: whoever is in between/,
    );
    await mkdir(join(away, 'empty'));
    const nobody = await run([from('/team/app:v1'), to()], { DOCKER_CONFIG: join(away, 'empty') });
    assert.equal(nobody.status, 1);
    assert.match(nobody.stderr, /log in first, such as by: docker login 127\.0\.0\.1:\d+/);
    const distrusted = await LocalRegistry.run(
      away,
      ['copy', from('/team/app:v1'), to(), '--src-as', 'x', '--src-password-file', 'password'],
      {
        env: { HOME: away, DOCKER_CONFIG: away },
      },
    );
    assert.match(distrusted.stderr, /was not signed by this authority/);
  });
});
