import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Docker } from '../support/docker.js';
import { writeBuildFolder } from '../support/image.js';
import { Namespace } from '../support/namespace.js';
import { Registry } from '../support/registry.js';

const MB = 1_000_000;
const alice = { user: 'alice', password: 'correct horse battery staple' };

describe('docker: from an IP address to a pulled image', { timeout: 240_000 }, () => {
  let namespace: Namespace;
  let registry: Registry;
  let docker: Docker;
  let image: string;

  before(async () => {
    namespace = await Namespace.create();
    const up = ['up', '--addr', `${namespace.ip}:5000`, '--ip', namespace.ip, '--user', alice.user, '--password-stdin'];
    [registry, docker] = await Promise.all([
      Registry.start(namespace, up, { input: `${alice.password}\n`, manyWorkers: true }),
      Docker.start(namespace),
    ]);
    console.log(`docker ${await docker.versions()}`);
    image = `${registry.host}/team/app:1`;
    const folder = join(namespace.dir, 'build');
    writeBuildFolder(folder, [300 * MB, 5 * MB, 1 * MB, 10_000, 10, 0]);
    await docker.build(folder, image);
  });
  after(() => namespace?.close());

  const login = (host: string) => ['login', '-u', alice.user, '--password-stdin', host];

  test('a client that does not trust the authority refuses to push and to log in', async () => {
    const unknown = /x509: certificate signed by unknown authority/;
    assert.match(await docker.refused(['push', image]), unknown);
    assert.match(await docker.refused(login(registry.host), { input: alice.password }), unknown);
  });

  test('after the printed trust commands only the password is missing', async () => {
    await registry.trust('docker');
    assert.match(await docker.refused(['push', image]), /no basic auth credentials/);
    assert.match(await docker.refused(['pull', image]), /no basic auth credentials/);
  });

  test('a wrong password and an unknown user are refused alike', async () => {
    const wrong = await docker.refused(login(registry.host), { input: 'wrong' });
    assert.match(wrong, /unauthorized/i);
    const unknown = await docker.refused(['login', '-u', 'mallory', '--password-stdin', registry.host], {
      input: 'wrong',
    });
    assert.equal(unknown, wrong);
  });

  test('logs in, pushes six layers with one of 300 MB, and pulls the same image back', async () => {
    assert.match(await docker.must(login(registry.host), { input: alice.password }), /Login Succeeded/);
    const before = await docker.imageId(image);
    const pushed = await docker.must(['push', image]);
    const [, digest] = /1: digest: (sha256:[0-9a-f]{64}) size: \d+/.exec(pushed) ?? assert.fail(pushed);
    await docker.must(['image', 'rm', image]);
    await docker.refused(['image', 'inspect', before]);
    await docker.must(['pull', '-q', image]);
    assert.equal(await docker.imageId(image), before);
    assert.equal(await docker.imageId(`${registry.host}/team/app@${digest}`), before);
  });

  test('pushing it to another repository mounts the layers instead of sending them again', async () => {
    const copy = `${registry.host}/other/copy:1`;
    await docker.must(['tag', image, copy]);
    assert.match(await docker.must(['push', copy]), /Mounted from team\/app/);
  });

  test('a manifest list of two images is made, pushed, inspected and pulled', async () => {
    const [amd64, arm64, list] = ['amd64', 'arm64', 'both'].map(tag => `${registry.host}/team/multi:${tag}`);
    for (const [index, tag] of [amd64, arm64].entries()) {
      const folder = join(namespace.dir, `multi${index}`);
      writeBuildFolder(folder, [10_000, 20_000]);
      await docker.build(folder, tag);
      await docker.must(['push', '-q', tag]);
    }
    await docker.must(['manifest', 'create', list, amd64, arm64]);
    await docker.must(['manifest', 'annotate', '--arch', 'arm64', list, arm64]);
    assert.match(await docker.must(['manifest', 'push', list]), /^sha256:[0-9a-f]{64}$/m);
    const inspected = JSON.parse(await docker.must(['manifest', 'inspect', list]));
    assert.equal(inspected.mediaType, 'application/vnd.docker.distribution.manifest.list.v2+json');
    assert.deepEqual(
      inspected.manifests.map((entry: { platform: { architecture: string } }) => entry.platform.architecture),
      ['amd64', 'arm64'],
    );
    const before = await docker.imageId(amd64);
    await docker.must(['image', 'rm', amd64]);
    await docker.must(['pull', '-q', '--platform', 'linux/amd64', list]);
    assert.equal(await docker.imageId(list), before);
  });

  test('logged out, it is refused again', async () => {
    await docker.must(['logout', registry.host]);
    assert.match(await docker.refused(['push', image]), /no basic auth credentials/);
  });

  test('the registry ends cleanly, and serves the same images after a restart', async () => {
    assert.equal(await registry.stop(), 0);
    const again = await Registry.start(namespace, ['up', '--addr', `${namespace.ip}:5000`, '--ip', namespace.ip]);
    await docker.must(login(again.host), { input: alice.password });
    const before = await docker.imageId(image);
    await docker.must(['image', 'rm', image, `${again.host}/other/copy:1`]);
    await docker.must(['pull', '-q', image]);
    assert.equal(await docker.imageId(image), before);
  });
});
