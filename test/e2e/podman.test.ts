import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { digest, writeBuildFolder } from '../support/image.js';
import { Namespace } from '../support/namespace.js';
import { Podman } from '../support/podman.js';
import { Registry } from '../support/registry.js';

const MB = 1_000_000;
const alice = { user: 'alice', password: 'correct horse battery staple' };
const OCI_INDEX = 'application/vnd.oci.image.index.v1+json';
const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const DOCKER_LIST = 'application/vnd.docker.distribution.manifest.list.v2+json';
const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json';

describe('podman, buildah and skopeo', { timeout: 240_000 }, () => {
  let namespace: Namespace;
  let registry: Registry;
  let podman: Podman;
  let image: string;

  before(async () => {
    namespace = await Namespace.create();
    const names = ['--addr', `${namespace.ip}:5000`, '--ip', namespace.ip];
    const up = ['up', ...names, '--user', alice.user, '--password-stdin', '--allow-deletes'];
    registry = await Registry.start(namespace, up, { input: `${alice.password}\n`, manyWorkers: true });
    podman = new Podman(namespace);
    image = `${registry.host}/team/app:1`;
    const folder = join(namespace.dir, 'build');
    writeBuildFolder(folder, [300 * MB, 5 * MB, 1 * MB, 10_000, 10, 0]);
    await podman.must('buildah', ['bud', '-q', '--layers', '-t', image, folder]);
  });
  after(() => namespace?.close());

  const login = (tool: 'podman' | 'skopeo', password: string) =>
    [[tool, ['login', '-u', alice.user, '--password-stdin', registry.host]], { input: password }] as const;
  const raw = (reference: string) =>
    podman.must('skopeo', ['inspect', '--raw', `docker://${registry.host}/${reference}`]);
  const mediaType = async (reference: string) => JSON.parse(await raw(reference)).mediaType;
  const imageId = async (name: string) =>
    (await podman.must('podman', ['image', 'inspect', '--format', '{{.Id}}', name])).trim();

  test('clients that do not trust the authority refuse', async () => {
    const unknown = /x509: certificate signed by unknown authority/;
    assert.match(await podman.refused('podman', ['push', image]), unknown);
    const [[, args], options] = login('podman', alice.password);
    assert.match(await podman.refused('podman', [...args], options), unknown);
    assert.match(await podman.refused('skopeo', ['list-tags', `docker://${registry.host}/team/app`]), unknown);
  });

  test('after the printed trust commands a password is missing, and a wrong one is refused', async () => {
    await registry.trust('podman');
    const refused = /unauthorized|authentication required|invalid username\/password/;
    assert.match(await podman.refused('podman', ['push', image]), refused);
    assert.match(await podman.refused('podman', ['pull', image]), refused);
    const [[, args], options] = login('podman', 'wrong');
    assert.match(await podman.refused('podman', [...args], options), refused);
  });

  test('podman logs in, pushes six layers with one of 300 MB, and pulls the same image back', async () => {
    const [[, args], options] = login('podman', alice.password);
    assert.match(await podman.must('podman', [...args], options), /Login Succeeded/);
    const id = await imageId(image);
    await podman.must('podman', ['push', '-q', image]);
    await podman.must('podman', ['image', 'rm', image]);
    await podman.refused('podman', ['image', 'inspect', id]);
    await podman.must('podman', ['pull', '-q', image]);
    assert.equal(await imageId(image), id);
    assert.equal(await mediaType('team/app:1'), OCI_MANIFEST);
  });

  test('skopeo inspects, lists tags and copies, in both formats, within the registry and out of it', async () => {
    const source = `docker://${image}`;
    const layout = `oci:${join(namespace.dir, 'layout')}:1`;
    await podman.must('skopeo', [
      'copy',
      '-q',
      '--format',
      'v2s2',
      source,
      `docker://${registry.host}/team/app:docker`,
    ]);
    assert.equal(await mediaType('team/app:docker'), DOCKER_MANIFEST);
    await podman.must('skopeo', ['copy', '-q', '--format', 'oci', source, layout]);
    await podman.must('skopeo', ['copy', '-q', layout, `docker://${registry.host}/elsewhere/app:from-layout`]);
    assert.equal(await raw('elsewhere/app:from-layout'), await raw('team/app:1'));

    const inspected = JSON.parse(await podman.must('skopeo', ['inspect', source]));
    assert.equal(inspected.Digest, digest(await raw('team/app:1')));
    assert.equal(inspected.Layers.length, 6);
    assert.deepEqual(inspected.RepoTags, ['1', 'docker']);
    const listed = JSON.parse(await podman.must('skopeo', ['list-tags', `docker://${registry.host}/team/app`]));
    assert.deepEqual(listed.Tags, ['1', 'docker']);
  });

  test('an index of two platforms is built, pushed, copied whole in both formats, and pulled', async () => {
    const folder = join(namespace.dir, 'multi');
    writeBuildFolder(folder, [10_000, 20_000]);
    const platforms = ['linux/amd64', 'linux/arm64'];
    const target = `${registry.host}/team/multi`;
    await podman.must('buildah', ['bud', '-q', '--platform', platforms.join(), '--manifest', 'multi', folder]);
    await podman.must('buildah', ['manifest', 'push', '-q', '--all', 'multi', `docker://${target}:oci`]);
    const index = JSON.parse(await raw('team/multi:oci'));
    assert.equal(index.mediaType ?? OCI_INDEX, OCI_INDEX);
    assert.deepEqual(
      // buildah builds both at once, so that the order is by chance.
      index.manifests
        .map(({ platform }: { platform: Record<string, string> }) => `${platform.os}/${platform.architecture}`)
        .sort(),
      platforms,
    );
    const copy = (format: string, tag: string) =>
      podman.must('skopeo', [
        'copy',
        '-q',
        '--all',
        ...(format ? ['--format', format] : []),
        `docker://${target}:oci`,
        `docker://${tag}`,
      ]);
    await copy('', `${registry.host}/elsewhere/multi:same`);
    assert.equal(await raw('elsewhere/multi:same'), await raw('team/multi:oci'));
    await copy('v2s2', `${target}:docker`);
    assert.equal(await mediaType('team/multi:docker'), DOCKER_LIST);
    for (const platform of platforms) {
      await podman.must('podman', ['pull', '-q', '--platform', platform, `${target}:oci`]);
      const format = '{{.Os}}/{{.Architecture}}';
      assert.equal(
        (await podman.must('podman', ['image', 'inspect', '--format', format, `${target}:oci`])).trim(),
        platform,
      );
    }
  });

  test('podman finds the repositories through the catalog, and the tags of one', async () => {
    const found = await podman.must('podman', ['search', '--format', '{{.Name}}', `${registry.host}/`]);
    assert.deepEqual(found.trim().split('\n').sort(), [
      `${registry.host}/elsewhere/app`,
      `${registry.host}/elsewhere/multi`,
      `${registry.host}/team/app`,
      `${registry.host}/team/multi`,
    ]);
    const [, ...tags] = (await podman.must('podman', ['search', '--list-tags', `${registry.host}/team/app`]))
      .trim()
      .split('\n');
    assert.deepEqual(
      tags.map(line => line.split(/ +/)),
      ['1', 'docker'].map(tag => [`${registry.host}/team/app`, tag]),
    );
  });

  test('skopeo deletes an image, and with it every tag on it', async () => {
    const copy = (tag: string) =>
      podman.must('skopeo', ['copy', '-q', `docker://${image}`, `docker://${registry.host}/team/gone:${tag}`]);
    await copy('1');
    await copy('2');
    await podman.must('skopeo', ['delete', `docker://${registry.host}/team/gone:1`]);
    const refused = await podman.refused('skopeo', ['inspect', `docker://${registry.host}/team/gone:2`]);
    assert.match(refused, /manifest unknown/);
    const tags = await podman.must('skopeo', ['list-tags', `docker://${registry.host}/team/gone`]);
    assert.deepEqual(JSON.parse(tags).Tags, []);
    await copy('1');
    await podman.must('skopeo', ['inspect', `docker://${registry.host}/team/gone:1`]);
  });

  test('logged out, it is refused again', async () => {
    await podman.must('podman', ['logout', registry.host]);
    assert.match(await podman.refused('podman', ['push', image]), /unauthorized|authentication required/);
  });
});
