import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { BASE_IMAGE, importBaseImage } from '../support/base-image.js';
import { Docker } from '../support/docker.js';
import { Namespace } from '../support/namespace.js';
import { requireTools } from '../support/process.js';
import { Registry } from '../support/registry.js';

const alice = { user: 'alice', password: 'correct horse battery staple' };

describe('containerd, by ctr', { timeout: 240_000 }, () => {
  let namespace: Namespace;
  let registry: Registry;
  let image: string;
  let socket: string;

  before(async () => {
    requireTools('ctr', 'containerd');
    namespace = await Namespace.create();
    const up = ['up', '--addr', `${namespace.ip}:5000`, '--ip', namespace.ip, '--user', alice.user, '--password-stdin'];
    registry = await Registry.start(namespace, up, { input: `${alice.password}\n`, manyWorkers: true });
    image = `${registry.host}/base/node:20`;

    // An image that can run, pushed by docker.
    const docker = await Docker.start(namespace);
    await importBaseImage(docker);
    await docker.must(['tag', BASE_IMAGE, image]);
    await registry.trust('docker');
    await docker.must(['login', '-u', alice.user, '--password-stdin', registry.host], { input: alice.password });
    await docker.must(['push', '-q', image]);
    await docker.daemon.stop();

    const dir = join(namespace.dir, 'containerd');
    mkdirSync(dir);
    socket = join(dir, 's');
    const config = join(dir, 'config.toml');
    writeFileSync(
      config,
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
    const daemon = namespace.start('containerd', ['containerd', '-c', config]);
    await daemon.ready(async () => (await namespace.run(['ctr', '-a', socket, 'version'])).status === 0);
  });
  after(() => namespace?.close());

  const ctr = (...args: string[]) => ['ctr', '-a', socket, '-n', 'test', ...args];
  const remote = (password: string) => ['--hosts-dir', '/etc/containerd/certs.d', '-u', `${alice.user}:${password}`];

  test('refuses before the authority is trusted', async () => {
    const said = await namespace.refused(ctr('images', 'pull', ...remote(alice.password), image));
    assert.match(said, /certificate signed by unknown authority/);
  });

  test('pulls with the printed hosts.toml, but not with a wrong password', async () => {
    await registry.trust('containerd');
    assert.match(
      await namespace.refused(ctr('images', 'pull', ...remote('wrong'), image)),
      /401|unauthorized|authorization failed/i,
    );
    await namespace.must(ctr('images', 'pull', ...remote(alice.password), image));
  });

  test('runs what it pulled', async () => {
    const script = 'process.stdout.write(String(6 * 7))';
    const printed = await namespace.must(ctr('run', '--rm', '--net-host', image, 'one', 'node', '-e', script));
    assert.equal(printed, '42');
  });

  test('pushes under another name, and pulls that back', async () => {
    const copy = `${registry.host}/copied/by-ctr:1`;
    await namespace.must(ctr('images', 'tag', image, copy));
    await namespace.must(ctr('images', 'push', ...remote(alice.password), copy));
    const target = async () =>
      (await namespace.must(ctr('images', 'ls', `name==${copy}`))).match(/sha256:[0-9a-f]{64}/)?.[0];
    const before = await target();
    await namespace.must(ctr('images', 'rm', '--sync', copy));
    await namespace.must(ctr('images', 'pull', ...remote(alice.password), copy));
    assert.ok(before);
    assert.equal(await target(), before);
  });
});
