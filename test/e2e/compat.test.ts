import assert from 'node:assert/strict';
import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { digest, writeBuildFolder } from '../support/image.js';
import { Namespace } from '../support/namespace.js';
import { recipe, startPeer } from '../support/peer.js';
import { Podman } from '../support/podman.js';
import type { Daemon } from '../support/process.js';
import { program, Registry } from '../support/registry.js';

const alice = { user: 'alice', password: 'correct horse' };

/** What one push run stores: the tag, where it comes from in the local layout, and the format asked for. */
const PUSHES = [
  ['team/app:oci', 'one', 'oci'],
  ['team/app:docker', 'one', 'v2s2'],
  ['team/app:again', 'one', 'oci'],
  ['team/multi:index', 'both', 'oci'],
  ['team/multi:list', 'both', 'v2s2'],
  ['deep/er/path/app:1', 'two', 'oci'],
] as const;

describe('a volume shared with docker-registry 2.8.2', { timeout: 240_000 }, () => {
  let namespace: Namespace;
  let podman: Podman;
  let host: string;
  let layout: string;
  let certs: string;
  let htpasswd: string;

  before(async () => {
    namespace = await Namespace.create();
    podman = new Podman(namespace);
    host = `${namespace.ip}:5000`;
    certs = join(namespace.dir, 'certs');
    await namespace.must(program('init-certs', '--ip', namespace.ip, '--out', certs));
    htpasswd = join(namespace.dir, 'htpasswd');
    await namespace.must(['htpasswd', '-ciB', htpasswd, alice.user], { input: alice.password });
    await namespace.must(['install', '-D', join(certs, 'ca.crt'), `/etc/docker/certs.d/${host}/ca.crt`]);
    await serving('theirs', volume('empty'), () =>
      podman.must('skopeo', ['login', '-u', alice.user, '--password-stdin', host], { input: alice.password }),
    );

    layout = join(namespace.dir, 'layout');
    for (const name of ['one', 'two', 'both']) {
      const folder = join(namespace.dir, name);
      writeBuildFolder(folder, [2_000_000, 10_000, 0]);
      if (name === 'both') {
        await podman.must('buildah', [
          'bud',
          '-q',
          '--platform',
          'linux/amd64,linux/arm64',
          '--manifest',
          name,
          folder,
        ]);
        await podman.must('buildah', ['manifest', 'push', '-q', '--all', name, `oci:${layout}:${name}`]);
      } else {
        await podman.must('buildah', ['bud', '-q', '--layers', '-t', name, folder]);
        await podman.must('buildah', ['push', '-q', name, `oci:${layout}:${name}`]);
      }
    }
  });
  after(() => namespace?.close());

  const options = (data: string) => ({ address: host, data, certs, htpasswd });
  const servers: Record<string, (data: string) => Promise<Daemon>> = {
    theirs: data => startPeer(namespace, options(data)),
    ours: async data => (await Registry.start(namespace, ['serve'], { env: recipe(options(data)) })).daemon,
  };

  /** Starts one of the two on a volume, does something with it, and ends it. */
  async function serving<T>(who: string, data: string, work: () => Promise<T>): Promise<T> {
    const daemon = await servers[who]!(data);
    try {
      return await work();
    } finally {
      await daemon.stop();
    }
  }

  const push = (reference: string, image: string, format: string) =>
    podman.must('skopeo', [
      'copy',
      '-q',
      '--all',
      '--format',
      format,

      `oci:${layout}:${image}`,
      `docker://${host}/${reference}`,
    ]);
  const pushAll = async () => {
    for (const [reference, image, format] of PUSHES) await push(reference, image, format);
  };

  /** Every tag's manifest digest, each image pulled whole (skopeo verifies every blob), and the lists of names. */
  async function readAll(references: readonly string[]): Promise<Record<string, string>> {
    const read: Record<string, string> = {};
    for (const [index, reference] of references.entries()) {
      const source = `docker://${host}/${reference}`;
      read[reference] = digest(await podman.must('skopeo', ['inspect', '--raw', source]));
      const copy = join(namespace.dir, 'pulled', `${process.hrtime.bigint()}-${index}`);
      await namespace.must(['mkdir', '-p', copy]);
      await podman.must('skopeo', ['copy', '-q', '--all', source, `dir:${copy}`]);
    }
    for (const name of new Set(references.map(reference => reference.split(':')[0]!))) {
      const listed = await podman.must('skopeo', ['list-tags', `docker://${host}/${name}`]);
      const expected = references.filter(reference => reference.startsWith(`${name}:`));
      assert.deepEqual(
        JSON.parse(listed)
          .Tags.map((tag: string) => `${name}:${tag}`)
          .sort(),
        expected.sort(),
      );
    }
    return read;
  }

  /** The files of a volume that both must understand, each with the digest of its content. */
  function layoutOf(data: string): Record<string, string> {
    const root = join(data, 'docker', 'registry', 'v2');
    const files = readdirSync(root, { recursive: true, withFileTypes: true })
      .filter(entry => entry.isFile())
      .map(entry => relative(root, join(entry.parentPath, entry.name)))
      // Folders of ours that begin with `_` are unknown to the original, which ignores them; uploads are over.
      .filter(path => !/\/_(?!layers\/|manifests\/)/.test(path))
      .sort();
    return Object.fromEntries(files.map(path => [path, digest(readFileSync(join(root, path)))]));
  }

  const volume = (name: string) => join(namespace.dir, `volume-${name}`);
  const references = PUSHES.map(([reference]) => reference);

  test('the same pushes leave the same files, byte for byte', async () => {
    for (const who of ['theirs', 'ours']) await serving(who, volume(who), pushAll);
    const theirs = layoutOf(volume('theirs'));
    assert.ok(Object.keys(theirs).length > 40, 'the original stored what was pushed');
    assert.deepEqual(layoutOf(volume('ours')), theirs);
  });

  test('each serves what the other wrote, and changes nothing of it', async () => {
    const own = await serving('theirs', volume('theirs'), () => readAll(references));
    for (const [who, written] of [
      ['ours', 'theirs'],
      ['theirs', 'ours'],
    ] as const) {
      const before = layoutOf(volume(written));
      assert.deepEqual(await serving(who, volume(written), () => readAll(references)), own, `${who} on ${written}`);
      assert.deepEqual(layoutOf(volume(written)), before);
    }
  });

  test('a whole registry is copied out of the original, and into it, over the network', async () => {
    const password = join(namespace.dir, 'password');
    writeFileSync(password, alice.password, { mode: 0o600 });
    const copy = (from: string, to: string, end: 'src' | 'dst') =>
      namespace.must(
        program('copy', from, to, '--all', `--${end}-as`, alice.user, `--${end}-password-file`, password, '--json'),
      );
    const out = JSON.parse(await serving('theirs', volume('theirs'), () => copy(host, volume('out'), 'src')));
    assert.deepEqual([out.images.new, out.images.failed], [references.length, 0]);
    const back = await serving('theirs', volume('back'), () => copy(volume('out'), host, 'dst'));
    assert.deepEqual(JSON.parse(back).images.new, references.length);
    for (const name of ['out', 'back']) assert.deepEqual(layoutOf(volume(name)), layoutOf(volume('theirs')), name);
  });

  test('they take turns on one volume: each sees the tags of the other, and may move them', async () => {
    const data = volume('shared');
    cpSync(volume('theirs'), data, { recursive: true });
    const known: string[] = [...references];
    for (const [round, who] of ['ours', 'theirs', 'ours', 'theirs', 'ours'].entries()) {
      const [image, format] = [round % 2 ? 'two' : 'both', round % 2 ? 'v2s2' : 'oci'];
      const fresh = `team/multi:round${round}`;
      if (!known.includes('team/app:latest')) known.push('team/app:latest');
      known.push(fresh);
      const read = await serving(who, data, async () => {
        await push(fresh, image, format);
        await push('team/app:latest', image, format);
        return readAll(known);
      });
      assert.equal(read['team/app:latest'], read[fresh], `round ${round}, ${who}`);
    }
  });

  test('ours collects what theirs wrote, and both serve the rest, also where a collector died', async () => {
    const data = volume('collected');
    cpSync(volume('theirs'), data, { recursive: true });
    const expected = await serving('theirs', data, async () => {
      await push('team/app:docker', 'two', 'v2s2');
      return readAll(references);
    });
    await namespace.must(['find', data, '-type', 'f', '-exec', 'touch', '-d', '3 days ago', '{}', '+']);
    const report = JSON.parse(await namespace.must(program('gc', '--untagged', '--json', '--root', data)));
    assert.deepEqual([report.manifests.removed, report.problems], [1, []]);
    assert.ok(report.freedBytes > 0);
    // What a dead collector leaves beside a file that it was about to remove.
    for (const path of Object.keys(layoutOf(data))) {
      const file = join(data, 'docker/registry/v2', path);
      mkdirSync(`${file}~doomed`);
      cpSync(file, `${file}~doomed/1`);
    }
    for (const who of ['theirs', 'ours'])
      assert.deepEqual(await serving(who, data, () => readAll(references)), expected, who);
  });
});
