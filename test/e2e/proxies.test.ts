import assert from 'node:assert/strict';
import { appendFileSync, copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Docker } from '../support/docker.js';
import { writeBuildFolder } from '../support/image.js';
import { Namespace } from '../support/namespace.js';
import type { Daemon } from '../support/process.js';
import { recipes, startApache, startNginx } from '../support/proxy.js';
import { program, Registry } from '../support/registry.js';

/** The name of the proxies. */
const HOST = 'registry.example.com';
const FAR = '192.168.0.77';
const ALICE = 'known to the proxy alone';
const ADMIN = 'known to the registry';

const POLICY = `rules:
  - {who: [user:alice], may: [push, delete], on: ["team/**"]}
  - {who: [group:builders], may: [push], on: ["builds/**"]}
  - {who: [user:admin], may: [admin], on: ["**"]}
`;
const OPEN = `rules:
  - {who: [anonymous], may: [pull], on: ["**"]}
  - {who: [authenticated], may: [push], on: ["**"]}
`;

/** Lines are written a moment after the answer. */
const wrote = ({ daemon }: Registry, line: RegExp) => daemon.ready(async () => line.test(daemon.output));

describe('behind nginx and Apache, by the recipes of docs/realms.md', { timeout: 300_000 }, () => {
  let namespace: Namespace;
  let docker: Docker;
  let registry: Registry;
  let plain: Registry;
  const image = `${HOST}/team/app:1`;

  before(async () => {
    namespace = await Namespace.create();
    const etc = join(namespace.dir, 'etc');
    appendFileSync(join(etc, 'hosts'), `${namespace.ip} registry.lan ${HOST}\n`);
    await namespace.must(['ip', 'address', 'add', `${FAR}/32`, 'dev', 'lo']);
    const [dir, plainDir] = ['registry', 'plain'].map(name => join(namespace.dir, name)) as [string, string];
    for (const folder of [dir, plainDir, join(etc, 'nginx'), join(etc, 'apache2'), join(etc, 'docker/certs.d', HOST)])
      mkdirSync(folder, { recursive: true });
    writeFileSync(join(dir, 'policy.yml'), POLICY);
    writeFileSync(join(plainDir, 'policy.yml'), OPEN);
    const users = join(namespace.dir, 'users');
    await namespace.must(['htpasswd', '-ciB', users, 'alice'], { input: ALICE });
    await namespace.must(['htpasswd', '-ciB', join(dir, 'admins'), 'admin'], { input: ADMIN });
    const sources = [
      { proxy: { groupsheader: 'Remote-Groups', certificates: ['proxy'] } },
      { htpasswd: { path: join(dir, 'admins') } },
      { certificate: { groups: 'organizationalunit' } },
    ];
    const names = ['--ip', namespace.ip, '--dns', 'registry.lan', '--dns', HOST];
    [registry, plain, docker] = await Promise.all([
      Registry.start(namespace, ['up', '--addr', `${namespace.ip}:5000`, ...names], {
        env: {
          REGISTRY_HTTP_TLS_CLIENTAUTH: 'verify-client-cert-if-given',
          REGISTRY_AUTH_REALMS: JSON.stringify([{ name: 'Web', repositories: ['**'], sources }]),
          REGISTRY_ACCESS_POLICY: join(dir, 'policy.yml'),
        },
      }),
      Registry.start(namespace, ['up', '--addr', '127.0.0.1:5000', '--insecure-plain-http', '--password-stdin'], {
        name: 'plain',
        host: '127.0.0.1:5000',
        scheme: 'http',
        input: `${ADMIN}\n`,
        env: { REGISTRY_HTTP_PROXIES_ADDRESSES: '127.0.0.1', REGISTRY_ACCESS_POLICY: join(plainDir, 'policy.yml') },
      }),
      Docker.start(namespace),
    ]);
    for (const name of ['proxy', 'alice', 'mallory'])
      await registry.command(['certs', 'client', 'add', name, '--out', join(namespace.dir, 'clients')]);
    await namespace.must(program('init-certs', '--dir', join(namespace.dir, 'outside'), '--dns', HOST));
    const outside = join(namespace.dir, 'outside', 'certs');
    copyFileSync(join(outside, 'ca.crt'), join(etc, 'docker/certs.d', HOST, 'ca.crt'));
    const pair = ['crt', 'key'].map(kind => join(namespace.dir, 'clients', `proxy.${kind}`));
    for (const server of ['nginx', 'apache2']) {
      const folder = join(etc, server);
      copyFileSync(join(outside, 'domain.crt'), join(folder, 'registry.crt'));
      copyFileSync(join(outside, 'domain.key'), join(folder, 'registry.key'));
      copyFileSync(join(registry.dir, 'certs', 'ca.crt'), join(folder, 'ca.crt'));
      copyFileSync(users, join(folder, 'users'));
      for (const file of pair) copyFileSync(file, join(folder, file.slice(file.lastIndexOf('/') + 1)));
      writeFileSync(join(folder, 'proxy.pem'), pair.map(file => readFileSync(file, 'utf8')).join(''), { mode: 0o600 });
    }
    const folder = join(namespace.dir, 'build');
    writeBuildFolder(folder, [3_000_000, 10]);
    await docker.build(folder, image);
  });
  after(() => namespace?.close());

  /** Status and heads of the answer. */
  async function curl(url: string, authority: string, ...args: string[]): Promise<{ status: number; head: string }> {
    const argv = ['curl', '-s', '-o', '/dev/null', '-D', '-', '--max-time', '60', '--cacert', authority, ...args, url];
    const head = await namespace.must(argv);
    return { status: Number(/^HTTP\/1.1 (\d+)/.exec(head)?.[1]), head };
  }
  const outside = (path: string, ...args: string[]) =>
    curl(`https://${HOST}${path}`, join(namespace.dir, 'outside/certs/ca.crt'), ...args);
  const inside = async (path: string, ...args: string[]) =>
    (await curl(`https://registry.lan:5000${path}`, join(registry.dir, 'certs/ca.crt'), ...args)).status;
  const certificate = (name: string) =>
    ['crt', 'key'].flatMap((kind, at) => [['--cert', '--key'][at]!, join(namespace.dir, 'clients', `${name}.${kind}`)]);
  const TEAM = '/v2/team/nothing/manifests/v1';
  const BUILDS = '/v2/builds/nothing/manifests/v1';
  const header = (text: string) => ['-H', text];

  async function pushAndPull(password: string, user: string): Promise<void> {
    const login = ['login', '-u', user, '--password-stdin', HOST];
    assert.match(await docker.refused(login, { input: 'wrong' }), /unauthorized/i);
    assert.match(await docker.must(login, { input: password }), /Login Succeeded/);
    await docker.must(['push', '-q', image]);
    await docker.must(['image', 'rm', image]);
    await docker.must(['pull', '-q', image]);
    await docker.must(['logout', HOST]);
  }

  for (const [server, start, language] of [
    ['nginx', startNginx, 'nginx'],
    ['Apache', startApache, 'apache'],
  ] as const) {
    describe(server, () => {
      let proxy: Daemon;

      test('with a client certificate says who its users are', async () => {
        proxy = await start(namespace, recipes(language)[0]!);
        try {
          await pushAndPull(ALICE, 'alice');
          // What a client says by the proxy's headers does not come through.
          for (const name of ['Remote-User', 'remote-user']) {
            const forged = [...header(`${name}: admin`), ...header('Remote-Groups: builders')];
            assert.equal((await outside(TEAM, '-u', `alice:${ALICE}`, ...forged)).status, 404);
            assert.equal((await outside(BUILDS, '-u', `alice:${ALICE}`, ...forged)).status, 403);
            assert.equal((await outside(TEAM, ...forged)).status, 401);
          }
          await outside('/v2/from-afar', '-u', `alice:${ALICE}`, '--interface', FAR);
          const line = new RegExp(`remote=${FAR} user=alice .*/v2/from-afar.* proxy=${namespace.ip} client=proxy`);
          await wrote(registry, line);
        } finally {
          await proxy.stop();
        }
      });

      test('without one brings TLS to a registry that asks for passwords itself', async () => {
        proxy = await start(namespace, recipes(language)[1]!);
        try {
          // The token's address is the one that the client came by.
          const { head } = await outside('/v2/', ...header('Authorization: Basic YTpi'));
          assert.match(head, new RegExp(`www-authenticate: Bearer realm="https://${HOST}/token"`, 'i'));
          await pushAndPull(ADMIN, 'admin');
          const { head: upload } = await outside('/v2/team/app/blobs/uploads/', '-u', `admin:${ADMIN}`, '-X', 'POST');
          const location = /^location: (\S+)/im.exec(upload)?.[1] ?? '';
          assert.equal((await outside(location.replace(`https://${HOST}`, ''), '-u', `admin:${ADMIN}`)).status, 204);
          // Guesses are those of the client, not of everybody behind the proxy.
          const guess = async (...more: string[]) => (await outside('/v2/', '-u', 'admin:wrong', ...more)).status;
          let last = 0;
          for (let count = 0; count < 30 && last !== 429; count++) last = await guess('--interface', FAR);
          assert.equal(last, 429);
          assert.equal(await guess(), 401);
          await wrote(plain, new RegExp(`remote=${FAR} user=- .* status=429 .* proxy=127.0.0.1`));
        } finally {
          await proxy.stop();
        }
      });
    });
  }

  test('nobody else is believed', async () => {
    const claim = [
      ...header('Remote-User: admin'),
      ...header('Remote-Groups: builders'),
      ...header('X-Forwarded-For: 10.9.8.7'),
    ];
    assert.equal(await inside(TEAM, ...claim), 401);
    assert.equal(await inside(TEAM, ...claim, ...header('Remote-User: admin')), 401, 'twice is as good as not at all');
    // With a certificate, but not a proxy's, it is whose certificate it is.
    assert.equal(await inside(TEAM, ...claim, ...certificate('mallory')), 403);
    assert.equal(await inside(TEAM, ...claim, ...certificate('alice')), 404);
    await wrote(registry, new RegExp(`remote=${namespace.ip} user=mallory`));
    assert.doesNotMatch(registry.daemon.output, /10\.9\.8\.7/);
  });

  test('the proxy says one thing, or is refused; its certificate is no user', async () => {
    const proxy = certificate('proxy');
    assert.equal(await inside(TEAM, ...proxy, ...header('Remote-User: alice')), 404);
    assert.equal(await inside(TEAM, ...proxy), 401);
    assert.equal(await inside(TEAM, ...proxy, ...header('Remote-User;')), 401, 'empty');
    assert.equal(await inside(TEAM, ...proxy, ...header('Remote-User: (null)')), 401);
    assert.equal(await inside(TEAM, ...proxy, ...header('Remote-User: alice'), ...header('REMOTE-USER: alice')), 400);
    for (const [groups, status] of [
      ['builders', 404],
      ['others, builders', 404],
      ['others', 403],
    ] as const)
      assert.equal(
        await inside(BUILDS, ...proxy, ...header('Remote-User: x'), ...header(`Remote-Groups: ${groups}`)),
        status,
      );
    const twice = [...header('Remote-Groups: a'), ...header('Remote-Groups: builders')];
    assert.equal(await inside(BUILDS, ...proxy, ...header('Remote-User: x'), ...twice), 400);
    // The users of the registry itself can log in through it, where it has said nobody.
    assert.equal(await inside(TEAM, ...proxy, '-u', `admin:${ADMIN}`), 404);
  });

  test('docker without a login is whom its certificate says', async () => {
    const host = 'registry.lan:5000';
    const folder = join(namespace.dir, 'etc/docker/certs.d', host);
    mkdirSync(folder);
    copyFileSync(join(registry.dir, 'certs/ca.crt'), join(folder, 'ca.crt'));
    copyFileSync(join(namespace.dir, 'clients/alice.crt'), join(folder, 'client.cert'));
    copyFileSync(join(namespace.dir, 'clients/alice.key'), join(folder, 'client.key'));
    const [mine, other] = [`${host}/team/app:2`, `${host}/builds/app:1`];
    for (const name of [mine, other]) await docker.must(['tag', image, name]);
    await docker.must(['push', '-q', mine]);
    assert.match(await docker.refused(['push', other]), /denied: you have no right to push here/);
  });

  test('a password counts before a certificate, right or wrong', async () => {
    const alice = certificate('alice');
    assert.equal(await inside(TEAM, ...alice), 404);
    assert.equal(await inside(BUILDS, ...alice), 403);
    assert.equal(await inside(BUILDS, ...alice, '-u', `admin:${ADMIN}`), 404);
    assert.equal(await inside(TEAM, ...alice, '-u', 'admin:wrong'), 401);
    assert.equal(await inside(TEAM, ...alice, ...header('Authorization: Bearer x')), 401);
  });
});
