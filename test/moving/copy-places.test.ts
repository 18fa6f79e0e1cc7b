import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import type { ImagePair } from '../../src/copy/copy.js';
import { FolderFiles } from '../../src/copy/files.js';
import { LayoutIndex } from '../../src/copy/layout-index.js';
import { LayoutSource } from '../../src/copy/layout-source.js';
import { LayoutTarget } from '../../src/copy/layout-target.js';
import type { ImageSource, ImageTarget } from '../../src/copy/place.js';
import { HERE } from '../../src/copy/platform.js';
import { RegistryClient } from '../../src/copy/registry-client.js';
import { RegistryPlace } from '../../src/copy/registry-place.js';
import { TarFiles } from '../../src/copy/tar-files.js';
import { openArchive } from '../../src/copy/tar-source.js';
import { TarTarget } from '../../src/copy/tar-target.js';
import { readTar } from '../../src/tar.js';
import {
  dockerImage,
  gzipped,
  hexOf,
  type Member,
  savedByNewDocker,
  savedByOldDocker,
  tarOf,
} from '../support/archives.js';
import { copyAll, pair } from '../support/copying.js';
import {
  descriptorOf,
  digestOf,
  indexOf,
  OCI_INDEX,
  OCI_MANIFEST,
  RegistryFixture,
} from '../support/registry-fixture.js';

let registry: RegistryFixture;
let dir: string;
const closers: Array<() => Promise<unknown>> = [];
before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'registry-places-'));
  registry = await RegistryFixture.start();
});
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});
after(async () => {
  assert.deepEqual(registry.faults, []);
  await registry.stop();
  await rm(dir, { recursive: true });
});

const at = (name: string) => join(dir, name);
function served(): RegistryPlace {
  const client = new RegistryClient({ host: `127.0.0.1:${registry.port}`, ca: [], login: undefined, plain: true });
  return closed(new RegistryPlace(client));
}
function closed<T extends { close(): Promise<void> }>(place: T): T {
  closers.push(() => place.close());
  return place;
}
const archive = async (name: string) =>
  closed(await openArchive(await TarFiles.open(at(name)), name.replace('.tar', '')));
const layoutAt = async (name: string): Promise<LayoutSource> => {
  const files = new FolderFiles(at(name));
  return new LayoutSource(files, (await LayoutIndex.read(files, name)) ?? assert.fail('no layout'));
};
async function write(name: string, members: readonly Member[]): Promise<void> {
  writeFileSync(at(name), await tarOf(members));
}

const copy = (from: ImageSource, to: ImageTarget, ...pairs: readonly ImagePair[]) => copyAll(from, to, pairs);

async function namesOf(source: ImageSource): Promise<string[]> {
  const names: string[] = [];
  for await (const repository of source.repositories())
    for await (const tag of source.tags(repository)) names.push(`${repository}:${tag}`);
  return names.sort();
}

/** What the registry has of an image: its configuration, and its layers unpacked. */
async function pulled(repository: string, tag: string): Promise<{ config: Buffer; layers: Buffer[]; types: string[] }> {
  const { body, status } = await registry.call('GET', `/v2/${repository}/manifests/${tag}`);
  assert.equal(status, 200);
  const manifest = JSON.parse(body.toString()) as Record<'layers', Array<{ digest: string; mediaType: string }>> & {
    config: { digest: string };
  };
  const blob = async (digest: string) => (await registry.call('GET', `/v2/${repository}/blobs/${digest}`)).body;
  const layers = await Promise.all(manifest.layers.map(({ digest }) => blob(digest)));
  return {
    config: await blob(manifest.config.digest),
    layers: layers.map(layer => gunzipSync(layer)),
    types: manifest.layers.map(({ mediaType }) => mediaType),
  };
}

const shared = Buffer.alloc(300_000, 'shared ');
const one = dockerImage([shared, randomBytes(5000)]);
const two = dockerImage([shared, randomBytes(70), shared]);

describe('what docker save has written', () => {
  test('by older versions: links, several names of one image, hosts before names', async () => {
    const members = savedByOldDocker([
      { tags: ['app:v1', 'registry.example.com:5000/team/app:v2'], image: one },
      { tags: ['localhost/tool:1'], image: two },
    ]);
    await write('old.tar', members);
    const source = await archive('old.tar');
    assert.deepEqual(await namesOf(source), ['app:v1', 'team/app:v2', 'tool:1']);
    assert.deepEqual(await source.about!('app', 'v1'), {
      digest: digestOf(one.config),
      bytes: one.config.length + 305_000,
    });
    const done = await copy(source, served(), pair('app', 'v1', 'old/app'), pair('tool', '1', 'old/tool'));
    assert.deepEqual([done.problems, done.report.images.new], [[], 2]);
    for (const [repository, tag, image] of [
      ['old/app', 'v1', one],
      ['old/tool', '1', two],
    ] as const) {
      const { config, layers, types } = await pulled(repository, tag);
      assert.deepEqual([config, layers], [image.config, image.layers]);
      assert.ok(types.every(type => type === 'application/vnd.oci.image.layer.v1.tar+gzip'));
    }
    // The layers of one are the same another time, so that nothing is left to do.
    const again = await copy(await archive('old.tar'), served(), pair('app', 'v1', 'old/app'));
    assert.equal(again.report.images.same, 1);
  });

  test('by newer versions, compressed or not: the same image, and its layers are compressed', async () => {
    await write('new.tar', savedByNewDocker('app', 'v1', one));
    writeFileSync(at('new.tar.gz'), gzipped(readFileSync(at('new.tar'))));
    const digests: unknown[] = [];
    for (const name of ['new.tar', 'new.tar.gz']) {
      const done = await copy(await archive(name), served(), pair('app', 'v1', name.replace('.tar', '')));
      assert.deepEqual(done.problems, []);
      digests.push(done.images[0]!.digest);
    }
    assert.equal(digests[0], digests[1]);
    const { config, layers } = await pulled('new', 'v1');
    assert.deepEqual([config, layers], [one.config, one.layers]);
  });

  test('by others: layers that are compressed already, one image without a name', async () => {
    const packed = gzipped(shared);
    const image = dockerImage([shared]);
    const list = [{ Config: 'config', RepoTags: null, Layers: ['./layer.tar.gz'] }];
    await write('crane.tar', [
      ['manifest.json', JSON.stringify(list)],
      ['config', image.config],
      ['layer.tar.gz', packed],
    ]);
    const source = await archive('crane.tar');
    const only = await source.only!();
    assert.deepEqual(only, { repository: undefined, tag: undefined, reference: digestOf(image.config) });
    assert.deepEqual((await copy(source, served(), pair('', only.reference, 'crane', 'v1'))).problems, []);
    const { body } = await registry.call('GET', '/v2/crane/manifests/v1');
    assert.equal(JSON.parse(body.toString()).layers[0].digest, digestOf(packed));
  });

  test('what is damaged or hostile is refused with what is wrong, and nothing of it is pushed', async () => {
    const good = savedByOldDocker([{ tags: ['bad:v1'], image: one }]);
    const without = (name: RegExp) => good.filter(([path]) => !name.test(path));
    const replaced = (name: RegExp, content: Member[1]) =>
      good.map(([path, data]): Member => [path, name.test(path) ? content : data]);
    const tar = await tarOf(good);
    const lastLayer = `${hexOf(Buffer.from('0 1'))}/layer.tar`;
    const cases: Array<[what: string, data: Buffer, message: RegExp]> = [
      ['truncated', tar.subarray(0, 200_000), /ends early/],
      ['half a header', tar.subarray(0, 100), /ends early/],
      ['no archive', randomBytes(5000), /no tar archive/],
      ['cut.gz', gzipped(tar).subarray(0, 900), /is damaged, or ends early.*take another copy/],
      ['no list', await tarOf(without(/manifest\.json/)), /neither an archive of docker save nor an OCI image layout/],
      [
        'no layer',
        await tarOf(without(/layer\.tar/)),
        /image 1: its layer ".*layer.tar" is not there; save the image again/,
      ],
      ['no config', await tarOf(without(/^[0-9a-f]{64}\.json/)), /its configuration ".*\.json" is not there/],
      [
        'config',
        await tarOf(replaced(/^[0-9a-f]{64}\.json/, '{}')),
        /configuration [0-9a-f]+\.json is not what its name says/,
      ],
      ['layer', await tarOf(replaced(/layer\.tar/, 'other')), /layer .* is not sha256:/],
      [
        'traversal',
        await tarOf([...good, ['../../etc/passwd', 'x']]),
        /names a file outside of it, "\.\.\/\.\.\/etc\/passwd"/,
      ],
      ['absolute', await tarOf([...good, ['/etc/passwd', 'x']]), /names a file outside of it, "\/etc\/passwd"/],
      ['link out', await tarOf(replaced(/layer\.tar/, { link: '../../etc/passwd' })), /names a file outside of it/],
      [
        'link round',
        await tarOf([...without(/layer\.tar/), [lastLayer, { link: 'layer.tar' }]]),
        /is not there|circle/,
      ],
      ['list', await tarOf(replaced(/manifest\.json/, '{"Config":"x"}')), /manifest\.json is no list of images/],
      ['json', await tarOf(replaced(/manifest\.json/, '[{')), /manifest\.json is no JSON; make it again/],
      ['items', await tarOf(replaced(/manifest\.json/, '[{"Config":1}]')), /has no configuration, or no layers/],
      [
        'layers',
        await tarOf([
          ['manifest.json', JSON.stringify([{ Config: 'c', RepoTags: ['bad:v1'], Layers: [] }])],
          ['c', one.config],
        ]),
        /has 0 layers, and its configuration names 2/,
      ],
      [
        'many images',
        await tarOf(replaced(/manifest\.json/, `[${Array(10_001).fill('{}')}]`)),
        /lists 10001 images, and 10000 is the most/,
      ],
      [
        'large config',
        await tarOf(replaced(/^[0-9a-f]{64}\.json/, Buffer.alloc(4 * 1024 * 1024 + 1, ' '))),
        /has 4194305 bytes, and 4194304 are the most/,
      ],
      ['long name', await tarOf([['x'.repeat(70_000), 'x']]), /an extended header is too long/],
    ];
    for (const [what, data, message] of cases) {
      writeFileSync(at('bad.tar'), data);
      const failure = await (async () => {
        const source = await openArchive(await TarFiles.open(at('bad.tar')), 'bad');
        closers.push(() => source.close());
        return (await copy(source, served(), pair('bad', 'v1'))).problems[0];
      })().catch((error: Error & { fix?: string }) => {
        assert.equal(error.name, 'OperatorError', what);
        return `${error.message}; ${error.fix}`;
      });
      assert.match(failure ?? 'nothing', message, what);
      assert.ok(!failure!.includes(`${at('bad.tar')}: ${at('bad.tar')}`), failure);
    }
    assert.equal((await registry.call('GET', '/v2/bad/tags/list')).status, 404);
  });
});

describe('an image layout', () => {
  test('takes an index with its signature as they are, and gives them back', async () => {
    const amd = await registry.pushImage('team/app', 'amd');
    const index = indexOf([amd.data]);
    await registry.pushManifest('team/app', 'v1', index, OCI_INDEX);
    const signature = await registry.pushImage('team/app', 'sig', { subject: descriptorOf(index, OCI_INDEX) });
    for (const kind of ['folder', 'archive']) {
      const open = () =>
        kind === 'folder' ? LayoutTarget.open(at('layout'), 'layout') : TarTarget.open(at('layout.tar'), 'layout');
      const target = closed(await open());
      const there = await copy(served(), target, pair('team/app', 'v1'), pair('team/app', 'amd', 'other'));
      assert.deepEqual([there.problems, there.report.images.new], [[], 2]);
      const again = await copy(
        served(),
        closed(await open()),
        pair('team/app', 'v1'),
        pair('team/app', 'amd', 'other'),
      );
      assert.deepEqual([again.report.images.same, again.report.blobs.copied], [2, 0]);
      const source = kind === 'folder' ? await layoutAt('layout') : await archive('layout.tar');
      assert.deepEqual(await namesOf(source), ['other:amd', 'team/app:v1']);
      await assert.rejects(source.only!(), {
        message: /has 2 images: /,
        fix: /name one of them, as in .*#(team\/app:v1|other:amd), or/,
      });
      const back = await copy(source, served(), pair('team/app', 'v1', `back/${kind}`));
      assert.deepEqual(back.problems, []);
      for (const [reference, data] of [
        ['v1', index],
        [amd.digest, amd.data],
        [signature.digest, signature.data],
      ] as const)
        assert.ok((await registry.call('GET', `/v2/back/${kind}/manifests/${reference}`)).body.equals(data));
    }
    // Nothing but the layout is left behind.
    assert.deepEqual(readdirSync(at('layout')).sort(), ['blobs', 'index.json', 'oci-layout']);
    const blobs = readdirSync(at('layout/blobs/sha256'));
    for (const hex of blobs) assert.equal(hexOf(readFileSync(at(`layout/blobs/sha256/${hex}`))), hex);
    assert.ok(blobs.length >= 7);
  });

  test('of others: mere tags, and an image without a name', async () => {
    const { data, config, layer } = await registry.pushImage('plain', 'v1');
    await mkdir(at('plain/blobs/sha256'), { recursive: true });
    const blob = async (digest: string) => (await registry.call('GET', `/v2/plain/blobs/${digest}`)).body;
    for (const content of [data, await blob(config), await blob(layer)])
      writeFileSync(at(`plain/blobs/sha256/${hexOf(content)}`), content);
    const described = descriptorOf(data, OCI_MANIFEST);
    const named = { ...described, annotations: { 'org.opencontainers.image.ref.name': 'stable' } };
    for (const [manifests, only] of [
      [[named], { repository: 'plain', tag: 'stable', reference: 'stable' }],
      [[described], { repository: undefined, tag: undefined, reference: described.digest }],
    ] as const) {
      writeFileSync(at('plain/index.json'), JSON.stringify({ schemaVersion: 2, manifests }));
      const source = await layoutAt('plain');
      assert.deepEqual(await source.only(), only);
      const { problems } = await copy(source, served(), pair(only.repository ?? '', only.reference, 'taken', 'v1'));
      assert.deepEqual(problems, []);
    }
    // A link could lead to any file of the machine.
    symlinkSync('/etc/hostname', at(`plain/blobs/sha256/${'0'.repeat(64)}`));
    await assert.rejects((await layoutAt('plain')).manifest('', `sha256:${'0'.repeat(64)}`), /is no plain file/);
    for (const [wrong, message] of [
      ['{', /index\.json is no JSON/],
      ['{}', /index\.json lists no images/],
      ['{"manifests":[{"digest":"x"}]}', /manifests\[0\] has no digest/],
    ] as const) {
      writeFileSync(at('plain/index.json'), wrong);
      await assert.rejects(layoutAt('plain'), message);
    }
  });

  test('with bytes that are not what their digests say, or are gone: the image is refused', async () => {
    const { layer } = await registry.pushImage('team/broken', 'v1');
    await copy(served(), await LayoutTarget.open(at('broken'), 'broken'), pair('team/broken', 'v1'));
    const file = at(`broken/blobs/sha256/${layer.slice(7)}`);
    writeFileSync(file, randomBytes(100));
    const changed = await copy(await layoutAt('broken'), served(), pair('team/broken', 'v1', 'refused'));
    assert.match(changed.problems[0]!, /the bytes of sha256:\w+ are not what the digest says/);
    truncateSync(file, 50);
    const short = await copy(await layoutAt('broken'), served(), pair('team/broken', 'v1', 'refused'));
    assert.match(short.problems[0]!, /has 50 bytes, not 100/);
    await rm(file);
    const gone = await copy(await layoutAt('broken'), served(), pair('team/broken', 'v1', 'refused'));
    assert.match(gone.problems[0]!, /has no blobs\/sha256\//);
    assert.equal((await registry.call('GET', '/v2/refused/manifests/v1')).status, 404);
  });
});

describe('an archive that is written', () => {
  const listOf = async (name: string) => {
    const names: string[] = [];
    const chunks = (async function* () {
      yield readFileSync(at(name));
    })();
    for await (const entry of readTar(chunks)) names.push(entry.name);
    return names;
  };

  test('lists for Docker what can be run on this platform, and nothing else', async () => {
    await registry.pushImage('run', 'v1');
    const { data } = await registry.pushImage('run', 'plain');
    const described = descriptorOf(data, OCI_MANIFEST);
    const platforms = ['unknown', HERE.architecture].map(architecture => ({
      ...described,
      platform: { os: 'linux', architecture },
    }));
    await registry.pushManifest('run', 'index', indexOf([], { manifests: platforms }), OCI_INDEX);
    await registry.pushBlob('run', Buffer.from('{}'));
    const chart = Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: OCI_MANIFEST,
        config: descriptorOf(Buffer.from('{}'), 'application/vnd.cncf.helm.config.v1+json'),
        layers: [],
      }),
    );
    await registry.pushManifest('run', 'chart', chart);
    const target = closed(await TarTarget.open(at('run.tar'), 'run'));
    const tags = ['v1', 'plain', 'index', 'chart'];
    assert.deepEqual((await copy(served(), target, ...tags.map(tag => pair('run', tag)))).problems, []);
    const files = await TarFiles.open(at('run.tar'));
    closers.push(() => files.close());
    const chunks: Buffer[] = [];
    for await (const chunk of files.open('manifest.json', 0)) chunks.push(chunk);
    const list = JSON.parse(Buffer.concat(chunks).toString()) as Array<{ RepoTags: string[]; Config: string }>;
    assert.deepEqual(list.flatMap(({ RepoTags }) => RepoTags).sort(), ['run:index', 'run:plain', 'run:v1']);
    for (const { Config } of list) assert.ok((await listOf('run.tar')).includes(Config));
  });

  test('takes the place of the one before when it is whole: what no image needs any more is gone', async () => {
    const before = await registry.pushImage('moving', 'v1');
    await registry.pushImage('staying', 'v1');
    await copy(
      served(),
      closed(await TarTarget.open(at('moving.tar'), 'x')),
      pair('moving', 'v1'),
      pair('staying', 'v1'),
    );
    const after = await registry.pushImage('moving', 'v1');
    const whole = readFileSync(at('moving.tar'));

    // A copy that fails leaves it as it was, and no other file.
    const failing = await TarTarget.open(at('moving.tar'), 'x');
    const { openBlob } = RegistryPlace.prototype;
    const broken = served();
    broken.openBlob = (repository, blob) =>
      blob.digest === after.layer
        ? async function* () {
            yield randomBytes(blob.size);
          }
        : openBlob.call(broken, repository, blob);
    const failed = await copy(broken, failing, pair('moving', 'v1'));
    assert.match(failed.problems[0]!, /are not what the digest says/);
    await failing.close();
    const target = closed(await TarTarget.open(at('moving.tar'), 'x'));
    assert.equal(await target.resolve('moving', 'v1'), before.digest);
    assert.ok(readFileSync(at('moving.tar')).equals(whole));
    const fresh = await TarTarget.open(at('fresh.tar'), 'x');
    assert.equal((await copy(broken, fresh, pair('moving', 'v1'))).problems.length, 1);
    await fresh.close();
    assert.ok(!existsSync(at('fresh.tar')));

    assert.deepEqual((await copy(served(), target, pair('moving', 'v1'))).problems, []);
    const names = await listOf('moving.tar');
    assert.ok(names.includes(`blobs/sha256/${after.layer.slice(7)}`));
    assert.ok(!names.includes(`blobs/sha256/${before.layer.slice(7)}`));
    assert.deepEqual(await namesOf(await archive('moving.tar')), ['moving:v1', 'staying:v1']);
    assert.deepEqual(
      readdirSync(dir).filter(name => name.endsWith('.part')),
      [],
    );
  });

  test('by two at once loses no image: who comes second is refused, and begins anew', async () => {
    for (const name of ['early', 'late']) await registry.pushImage(name, 'v1');
    const [first, second] = [
      closed(await TarTarget.open(at('both.tar'), 'x')),
      closed(await TarTarget.open(at('both.tar'), 'x')),
    ];
    assert.deepEqual((await copy(served(), first, pair('early', 'v1'))).problems, []);
    const refused = { name: 'OperatorError', message: /both\.tar has been written by another meanwhile/ };
    await assert.rejects(copy(served(), second, pair('late', 'v1')), refused);
    assert.deepEqual(await namesOf(await archive('both.tar')), ['early:v1']);
    assert.deepEqual((await copy(served(), second, pair('late', 'v1'))).report.images.new, 1);
    assert.deepEqual(await namesOf(await archive('both.tar')), ['early:v1', 'late:v1']);
    await assert.rejects(copy(served(), first, pair('late', 'v1', 'again')), refused);
    assert.deepEqual(
      readdirSync(dir).filter(name => /\.(?:part|lock)$/.test(name)),
      [],
    );
  });

  test('with an index that lists itself is written all the same', async () => {
    const digest = `sha256:${'0'.repeat(64)}`;
    const entry = { mediaType: OCI_INDEX, digest, size: 2, platform: HERE };
    await write('round.tar', [
      [`blobs/sha256/${'0'.repeat(64)}`, indexOf([], { manifests: [entry] })],
      [
        'index.json',
        JSON.stringify({ manifests: [{ ...entry, annotations: { 'org.opencontainers.image.ref.name': 'v1' } }] }),
      ],
      ['oci-layout', '{"imageLayoutVersion":"1.0.0"}'],
    ]);
    await registry.pushImage('beside', 'v1');
    const target = closed(await TarTarget.open(at('round.tar'), 'round'));
    assert.deepEqual((await copy(served(), target, pair('beside', 'v1'))).problems, []);
    assert.deepEqual(await namesOf(await archive('round.tar')), ['beside:v1', 'round:v1']);
  });

  test('of Docker, where what is added would get another digest, cannot be added to', async () => {
    await write('newer.tar', savedByNewDocker('app', 'v1', one));
    await assert.rejects(TarTarget.open(at('newer.tar'), 'x'), {
      message: /was made by docker save, and cannot be added to/,
      fix: /copy its images to a new one/,
    });
  });

  test('of Docker before version 25 cannot be added to', async () => {
    await write('older.tar', savedByOldDocker([{ tags: ['app:v1'], image: one }]));
    await assert.rejects(TarTarget.open(at('older.tar'), 'x'), /is an archive of another kind, and cannot be added to/);
  });
});
