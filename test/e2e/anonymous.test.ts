import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Docker } from '../support/docker.js';
import { writeBuildFolder } from '../support/image.js';
import { Namespace } from '../support/namespace.js';
import { Podman } from '../support/podman.js';
import { Registry } from '../support/registry.js';

const password = 'correct horse battery staple';

const POLICY = `rules:
  - {who: [anonymous], may: [pull], on: ["public/**"]}
  - {who: [user:alice], may: [push, delete], on: ["**"]}
  - {who: [user:bob], may: [pull], on: ["team/**"]}
`;

/** Public images without a login beside others with one: what docker cannot do with passwords alone. */
describe('anonymous pull beside authenticated push', { timeout: 300_000 }, () => {
  let namespace: Namespace;
  let registry: Registry;
  let docker: Docker;
  let podman: Podman;
  let open: string;
  let closed: string;

  before(async () => {
    namespace = await Namespace.create();
    const dir = join(namespace.dir, 'registry');
    mkdirSync(dir);
    writeFileSync(join(dir, 'policy.yml'), POLICY);
    const up = ['up', '--addr', `${namespace.ip}:5000`, '--ip', namespace.ip, '--user', 'alice'];
    const env = { REGISTRY_ACCESS_POLICY: join(dir, 'policy.yml') };
    [registry, docker] = await Promise.all([
      Registry.start(namespace, [...up, '--password-stdin', '--allow-deletes'], { input: `${password}\n`, env }),
      Docker.start(namespace),
    ]);
    await registry.command(['user', 'add', 'bob', '--password-stdin'], { input: `${password}\n` });
    podman = new Podman(namespace);
    for (const client of ['docker', 'podman', 'containerd']) await registry.trust(client);
    [open, closed] = ['public/app', 'team/app'].map(name => `${registry.host}/${name}:1`) as [string, string];
    const folder = join(namespace.dir, 'build');
    writeBuildFolder(folder, [1_000_000, 10_000]);
    await docker.build(folder, open);
    await docker.must(['tag', open, closed]);
  });
  after(() => namespace?.close());

  const login = (user: string, secret = password) =>
    [['login', '-u', user, '--password-stdin', registry.host], { input: secret }] as const;
  const forget = () => docker.must(['image', 'rm', open, closed]);

  /** Which takes a second at most where the machine has nothing else to do, and else does not wait for the token to expire. */
  async function untilRefused(what: string, status: () => Promise<string>): Promise<void> {
    const begun = performance.now();
    const past = () => Math.round(performance.now() - begun);
    while ((await status()) !== '401') assert.ok(past() < 60_000, `${what} is still good`);
    console.log(`${what} is refused ${past()} ms later`);
  }

  test('docker logs in by a token, not with a wrong password, and pushes', async () => {
    assert.match(await docker.refused(...login('alice', 'wrong')), /unauthorized/i);
    assert.match(await docker.must(...login('alice')), /Login Succeeded/);
    for (const image of [open, closed]) await docker.must(['push', '-q', image]);
  });

  test('docker without a login pulls what is public, and nothing else, and pushes nowhere', async () => {
    await docker.must(['logout', registry.host]);
    await forget();
    await docker.must(['pull', '-q', open]);
    assert.match(await docker.refused(['pull', '-q', closed]), /unauthorized|no basic auth|denied/);
    assert.match(await docker.refused(['push', open]), /unauthorized|denied/);
    assert.match(await docker.must(['search', `${registry.host}/`]), /public\/app/);
    assert.doesNotMatch(await docker.must(['search', `${registry.host}/`]), /team\/app/);
  });

  test('docker as a user pulls what that user may, and hears what it may not', async () => {
    await docker.must(...login('bob'));
    await docker.must(['pull', '-q', closed]);
    assert.match(await docker.refused(['push', closed]), /denied: you have no right to push here/);
    await docker.must(['logout', registry.host]);
  });

  test('podman and skopeo: the same', async () => {
    await podman.must('podman', ['pull', '-q', open]);
    assert.match(await podman.refused('podman', ['pull', '-q', closed]), /unauthorized|authentication required|denied/);
    assert.match(await podman.refused('podman', ['push', open]), /unauthorized|authentication required|denied/);
    const [bob, options] = login('bob');
    assert.match(await podman.must('podman', [...bob], options), /Login Succeeded/);
    await podman.must('podman', ['pull', '-q', closed]);
    assert.match(await podman.refused('podman', ['push', closed]), /denied/);
    const [alice, secret] = login('alice');
    await podman.must('podman', [...alice], secret);
    await podman.must('podman', ['push', '-q', closed]);
    const copied = `docker://${registry.host}/public/copied:1`;
    await podman.must('skopeo', ['copy', '-q', `docker://${open}`, copied]);
    await podman.must('podman', ['logout', registry.host]);
    assert.match(await podman.must('skopeo', ['inspect', copied]), /public\/copied/);
    assert.match(await podman.refused('skopeo', ['inspect', `docker://${closed}`]), /unauthorized|required|denied/);
    assert.match(await podman.refused('skopeo', ['delete', copied]), /unauthorized|required|denied/);
  });

  test('containerd: the same', async () => {
    const dir = join(namespace.dir, 'containerd');
    mkdirSync(dir);
    const socket = join(dir, 's');
    writeFileSync(
      join(dir, 'config.toml'),
      `version = 2
root = "${dir}/root"
state = "${dir}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
address = "${socket}"
[ttrpc]
address = "${socket}.ttrpc"
`,
    );
    const daemon = namespace.start('containerd', ['containerd', '-c', join(dir, 'config.toml')]);
    await daemon.ready(async () => (await namespace.run(['ctr', '-a', socket, 'version'])).status === 0);
    const images = (...args: string[]) => ['ctr', '-a', socket, '-n', 'test', 'images', ...args];
    const hosts = ['--hosts-dir', '/etc/containerd/certs.d'];
    const as = (user: string) => [...hosts, '-u', `${user}:${password}`];
    await namespace.must(images('pull', ...hosts, open));
    assert.match(await namespace.refused(images('pull', ...hosts, closed)), /401|authorization failed|unauthorized/i);
    await namespace.must(images('pull', ...as('bob'), closed));
    assert.match(
      await namespace.refused(images('push', ...as('bob'), `${registry.host}/team/app:by-ctr`, closed)),
      /403|denied|forbidden/i,
    );
    await namespace.must(images('push', ...as('alice'), `${registry.host}/team/app:by-ctr`, closed));
    await namespace.must(images('push', ...as('alice'), `${registry.host}/public/by-ctr:1`, closed));
    assert.match(
      await namespace.refused(images('push', ...hosts, `${registry.host}/public/app:anonymous`, open)),
      /401|authorization failed|unauthorized/i,
    );
  });

  test("a machine's token: within its bounds, not beyond, and revoked at once", async () => {
    const secret = (
      await registry.command(['token', 'create', '--user', 'alice', '--allow', 'push:team/**', '--expires', '1h'])
    ).trim();
    const { id } = JSON.parse(await registry.command(['token', 'list', '--json']))[0];
    assert.match(await docker.must(...login('alice', secret)), /Login Succeeded/);
    await docker.must(['push', '-q', closed]);
    assert.match(await docker.refused(['push', open]), /denied: you have no right to push here/);
    const [argv, options] = login('alice', secret);
    assert.match(await podman.must('podman', [...argv], options), /Login Succeeded/);
    await podman.must('podman', ['pull', '-q', closed]);
    const copy = ['copy', '-q', `docker://${closed}`];
    await podman.must('skopeo', [...copy, `docker://${registry.host}/team/copied:1`]);
    assert.match(await podman.refused('skopeo', [...copy, `docker://${registry.host}/public/copied:1`]), /denied|403/);

    const base = `https://${registry.host}`;
    const curl = (...args: string[]) =>
      namespace.must(['curl', '-sS', '--cacert', join(registry.dir, 'certs', 'ca.crt'), ...args]);
    const { token } = JSON.parse(await curl('-u', `alice:${secret}`, `${base}/token?service=x`));
    const status = (...credentials: string[]) =>
      curl('-o', '/dev/null', '-w', '%{http_code}', ...credentials, `${base}/v2/team/app/tags/list`);
    const credentials = [
      ['-u', `alice:${secret}`],
      ['-H', `Authorization: Bearer ${token}`],
    ];
    for (const each of credentials) assert.equal(await status(...each), '200');
    await registry.command(['token', 'revoke', id]);
    for (const each of credentials) await untilRefused('a revoked token', () => status(...each));
    assert.match(await docker.refused(['pull', '-q', closed]), /unauthorized|denied/);
    assert.match(await podman.refused('skopeo', ['inspect', `docker://${closed}`]), /unauthorized|required|denied/);
    await docker.must(['logout', registry.host]);
    await podman.must('podman', ['logout', registry.host]);
  });

  test('a user who is removed has nothing left at once, the token included', async () => {
    const curl = (...args: string[]) =>
      namespace.run(['curl', '-sS', '--cacert', join(registry.dir, 'certs', 'ca.crt'), ...args]);
    const base = `https://${registry.host}`;
    const { token } = JSON.parse((await curl('-u', `bob:${password}`, `${base}/token?service=x`)).stdout);
    const status = async () =>
      (
        await curl(
          '-o',
          '/dev/null',
          '-w',
          '%{http_code}',
          '-H',
          `Authorization: Bearer ${token}`,
          `${base}/v2/team/app/tags/list`,
        )
      ).stdout;
    assert.equal(await status(), '200');
    await registry.command(['user', 'remove', 'bob']);
    await untilRefused('the token of a removed user', status);
  });
});
