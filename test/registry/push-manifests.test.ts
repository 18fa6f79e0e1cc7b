import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import {
  descriptorOf,
  digestOf,
  indexOf,
  manifestOf,
  OCI_CONFIG,
  OCI_INDEX,
  OCI_LAYER,
  OCI_MANIFEST,
  RegistryFixture,
} from '../support/registry-fixture.js';

const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json';
const DOCKER_LIST = 'application/vnd.docker.distribution.manifest.list.v2+json';
const OCI_ARTIFACT = 'application/vnd.oci.artifact.manifest.v1+json';

/** distribution-spec, "Pushing Manifests". */
describe('pushing manifests', () => {
  let registry: RegistryFixture;
  before(async () => {
    registry = await RegistryFixture.start();
  });
  after(async () => {
    assert.deepEqual(registry.faults, []);
    await registry.stop();
  });
  const assertStored = async (repository: string, reference: string, data: Buffer, type: string): Promise<void> => {
    const got = await registry.call('GET', `/v2/${repository}/manifests/${reference}`);
    assert.equal(got.headers['content-type'], type);
    assert.ok(got.body.equals(data));
  };

  test('by tag and by digest', async () => {
    const image = await registry.pushImage('r', 'v1');
    const byTag = await registry.pushManifest('r', 'v2', image.data);
    assert.equal(byTag.status, 201);
    assert.equal(byTag.headers.location, '/v2/r/manifests/v2');
    assert.equal(byTag.headers['docker-content-digest'], image.digest);
    const byDigest = await registry.pushManifest('r', image.digest, image.data);
    assert.equal(byDigest.headers.location, `/v2/r/manifests/${image.digest}`);
    const wrong = await registry.pushManifest('r', digestOf(Buffer.from('x')), image.data);
    assert.deepEqual([wrong.status, wrong.code], [400, 'DIGEST_INVALID']);
  });

  test('by digest with tags as parameters: ten and more, each told in OCI-Tag', async () => {
    const { data } = await registry.pushImage('params', 'v1');
    for (const algorithm of ['sha256', 'sha512'] as const) {
      const digest = digestOf(data, algorithm);
      const tags = Array.from({ length: 12 }, (_, index) => `${algorithm}-${index}`);
      const query = [...tags, tags[0]!].map(tag => `tag=${tag}`).join('&');
      const answer = await registry.pushManifest('params', `${digest}?${query}`, data);
      assert.equal(answer.status, 201);
      assert.equal(answer.headers.location, `/v2/params/manifests/${digest}`);
      assert.deepEqual(String(answer.headers['oci-tag']).split(', '), tags);
      for (const tag of tags) {
        const got = await registry.call('GET', `/v2/params/manifests/${tag}`);
        assert.equal(got.headers['docker-content-digest'], digest, 'the digest that the client knows');
        assert.ok(got.body.equals(data));
      }
    }
  });

  test('a tag parameter that is no tag refuses the push, and so do too many; beside a tag they count for nothing', async () => {
    const { data, digest } = await registry.pushImage('badparams', 'v1');
    for (const tag of ['', '-a', 'a%2fb', 'a'.repeat(129), '%ff', 'a%0d%0ab']) {
      const answer = await registry.pushManifest('badparams', `${digest}?tag=good&tag=${tag}`, data);
      assert.deepEqual([answer.status, answer.code], [400, 'MANIFEST_INVALID'], tag);
    }
    const many = Array.from({ length: 101 }, (_, index) => `tag=t${index}`).join('&');
    const answer = await registry.pushManifest('badparams', `${digest}?${many}`, data);
    assert.deepEqual([answer.status, answer.code], [414, 'UNSUPPORTED']);
    const byTag = await registry.pushManifest('badparams', 'v2?tag=v3', data);
    assert.deepEqual([byTag.status, byTag.headers['oci-tag']], [201, undefined]);
    const listed = await registry.call('GET', '/v2/badparams/tags/list');
    assert.deepEqual(listed.json(), { name: 'badparams', tags: ['v1', 'v2'] });
  });

  test('chunked, without a length', async () => {
    const { data } = await registry.pushImage('r', 'v1');
    async function* body() {
      yield data.subarray(0, 10);
      yield data.subarray(10);
    }
    const answer = await registry.call('PUT', '/v2/r/manifests/chunked', {
      body: body(),
      headers: { 'content-type': OCI_MANIFEST },
    });
    assert.equal(answer.status, 201);
    await assertStored('r', 'chunked', data, OCI_MANIFEST);
  });

  test('every kind comes back by its own type', async () => {
    const config = Buffer.from('{"os":"linux"}');
    const layer = randomBytes(50);
    for (const blob of [config, layer]) await registry.pushBlob('kinds', blob);
    const oci = manifestOf(config, [layer]);
    const docker = manifestOf(config, [layer], { mediaType: DOCKER_MANIFEST });
    const artifact = Buffer.from(
      JSON.stringify({ mediaType: OCI_ARTIFACT, artifactType: 'a/b', blobs: [descriptorOf(layer, OCI_LAYER)] }),
    );
    const kinds: ReadonlyArray<[string, Buffer, string]> = [
      ['oci', oci, OCI_MANIFEST],
      ['untyped', Buffer.from(oci.toString().replace(`"mediaType":"${OCI_MANIFEST}",`, '')), OCI_MANIFEST],
      ['docker', docker, DOCKER_MANIFEST],
      ['artifact', artifact, OCI_ARTIFACT],
      ['index', indexOf([oci, docker]), OCI_INDEX],
      ['list', indexOf([docker], { mediaType: DOCKER_LIST }), DOCKER_LIST],
      ['nested', indexOf([indexOf([oci, docker])]), OCI_INDEX],
      ['empty', indexOf([]), OCI_INDEX],
      ['custom', manifestOf(config, [], { 'org.example.custom': { a: [1] } }), OCI_MANIFEST],
    ];
    for (const [tag, data, type] of kinds) {
      assert.equal((await registry.pushManifest('kinds', tag, data, type)).status, 201, tag);
      await assertStored('kinds', tag, data, type);
    }
  });

  test('a manifest with a subject, present or not, says so', async () => {
    const { digest } = await registry.pushImage('subjects', 'base');
    for (const subject of [digest, digestOf(Buffer.from('not there'))]) {
      const config = Buffer.from('{}');
      await registry.pushBlob('subjects', config);
      const data = manifestOf(config, [], {
        artifactType: 'sig',
        subject: { mediaType: OCI_MANIFEST, digest: subject, size: 3 },
      });
      const answer = await registry.pushManifest('subjects', digestOf(data), data);
      assert.equal(answer.status, 201);
      assert.equal(answer.headers['oci-subject'], subject);
      const entry = ['subjects/_referrers', subject, digestOf(data)].join('/').replaceAll('sha256:', 'sha256/');
      const stored = await readFile(join(registry.root, 'docker/registry/v2/repositories', entry), 'utf8');
      assert.deepEqual(JSON.parse(stored), {
        digest: digestOf(data),
        mediaType: OCI_MANIFEST,
        size: data.length,
        artifactType: 'sig',
      });
    }
  });

  test('what it refers to must be there: in this repository, not only in the store', async () => {
    const config = Buffer.from('{"a":1}');
    const layer = randomBytes(20);
    await registry.pushBlob('elsewhere', config);
    await registry.pushBlob('elsewhere', layer);
    await registry.pushBlob('needs', config);
    const refused = await registry.pushManifest('needs', 'v1', manifestOf(config, [layer]));
    assert.deepEqual([refused.status, refused.code], [400, 'MANIFEST_BLOB_UNKNOWN']);
    assert.match(refused.body.toString(), new RegExp(digestOf(layer)));
    const index = await registry.pushManifest('needs', 'v1', indexOf([manifestOf(config, [])]), OCI_INDEX);
    assert.deepEqual([index.status, index.code], [400, 'MANIFEST_BLOB_UNKNOWN']);
    assert.equal((await registry.call('GET', '/v2/needs/manifests/v1')).status, 404);
    assert.equal((await registry.call('GET', '/v2/needs/tags/list')).body.toString(), '{"name":"needs","tags":[]}');
  });

  test('BuildKit’s caches list layers in an index; foreign layers are not asked for', async () => {
    const layer = randomBytes(20);
    const config = Buffer.from('{"buildkit":true}');
    for (const blob of [config, layer]) await registry.pushBlob('cache', blob);
    const manifests = [descriptorOf(layer, OCI_LAYER), descriptorOf(config, 'application/vnd.buildkit.cacheconfig.v0')];
    const index = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests }));
    assert.equal((await registry.pushManifest('cache', 'c', index, OCI_INDEX)).status, 201);
    const foreign = {
      ...descriptorOf(Buffer.from('elsewhere'), 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip'),
      urls: ['https://example.com/layer'],
    };
    const windows = manifestOf(config, [], { layers: [foreign] });
    assert.equal((await registry.pushManifest('cache', 'w', windows)).status, 201);
  });

  test('SHA-512', async () => {
    const { data, digest } = await registry.pushImage('sha512', 'v1');
    const wanted = digestOf(data, 'sha512');
    const answer = await registry.pushManifest('sha512', wanted, data);
    assert.equal(answer.status, 201);
    assert.equal(answer.headers['docker-content-digest'], wanted);
    for (const reference of [wanted, digest]) {
      const got = await registry.call('GET', `/v2/sha512/manifests/${reference}`);
      assert.equal(got.headers['docker-content-digest'], reference);
      assert.ok(got.body.equals(data));
    }
  });

  test('refused and forgotten: bad names, types and JSON', async () => {
    const { data } = await registry.pushImage('bad', 'good');
    const json = (text: string) => Buffer.from(text);
    const cases: ReadonlyArray<[string, Buffer, string]> = [
      ['a'.repeat(129), data, OCI_MANIFEST],
      ['%C3%A4', data, OCI_MANIFEST],
      ['.dot', data, OCI_MANIFEST],
      ['t', data, OCI_INDEX],
      ['t', data, 'application/json'],
      ['t', json('{'), OCI_MANIFEST],
      ['t', json('['.repeat(200_000)), OCI_MANIFEST],
      ['t', json(data.toString().replace('{', '{"schemaVersion":2,')), OCI_MANIFEST],
      ['t', json(data.toString().replace('{', '{"__proto__":{},')), OCI_MANIFEST],
      ['t', Buffer.concat([data, Buffer.from([0xff])]), OCI_MANIFEST],
      ['t', Buffer.alloc(0), OCI_MANIFEST],
    ];
    for (const [tag, body, type] of cases) {
      const answer = await registry.pushManifest('bad', tag, body, type);
      assert.deepEqual(
        [answer.status, answer.code],
        [400, 'MANIFEST_INVALID'],
        `${tag.slice(0, 10)} ${body.subarray(0, 40)}`,
      );
    }
    assert.deepEqual(await registry.call('GET', '/v2/bad/tags/list').then(answer => answer.json()), {
      name: 'bad',
      tags: ['good'],
    });
  });

  test('the limit: 4 MiB fit, more is 413 while it streams', async () => {
    const config = Buffer.from(JSON.stringify({ mediaType: OCI_CONFIG }));
    await registry.pushBlob('big', config);
    const padding = (size: number) => manifestOf(config, [], { annotations: { a: 'x'.repeat(size) } });
    const fits = padding(4 * 1024 * 1024 - padding(0).length);
    assert.equal(fits.length, 4 * 1024 * 1024);
    assert.equal((await registry.pushManifest('big', 'fits', fits)).status, 201);
    await assertStored('big', 'fits', fits, OCI_MANIFEST);
    assert.equal((await registry.pushManifest('big', 'declared', padding(4 * 1024 * 1024))).status, 413);
    let sent = 0;
    async function* endless() {
      for (; sent < 64; sent++) yield Buffer.alloc(1024 * 1024, 0x20);
    }
    const streamed = await registry
      .call('PUT', '/v2/big/manifests/streamed', { body: endless(), headers: { 'content-type': OCI_MANIFEST } })
      .catch(error => error);
    // The answer may be overtaken by the closing of the connection; what counts is that it does not read on.
    assert.ok(streamed.status === 413 || ['EPIPE', 'ECONNRESET'].includes(streamed.code), String(streamed));
    assert.equal((await registry.call('GET', '/v2/big/manifests/streamed')).status, 404);
  });

  test('the record says what was pushed, when and by whom', async () => {
    const config = Buffer.from(
      JSON.stringify({
        os: 'linux',
        architecture: 'arm64',
        config: { Labels: { 'org.opencontainers.image.title': 'T', other: 'x' } },
      }),
    );
    await registry.pushBlob('records', config);
    const data = manifestOf(config, [], { annotations: { a: 'b' } });
    const answer = await registry.call('PUT', '/v2/records/manifests/v1', {
      body: data,
      headers: { 'content-type': OCI_MANIFEST },
      user: 'alice',
    });
    assert.equal(answer.status, 201);
    const file = join(
      registry.root,
      'docker/registry/v2/repositories/records/_records',
      digestOf(data).replace(':', '/'),
    );
    const { pushedAt, taggedAt, ...record } = JSON.parse(await readFile(file, 'utf8'));
    assert.ok(Math.abs(Date.parse(pushedAt) - Date.now()) < 60_000);
    assert.deepEqual(taggedAt, { v1: pushedAt });
    assert.deepEqual(record, {
      version: 1,
      mediaType: OCI_MANIFEST,
      size: data.length,
      artifactType: OCI_CONFIG,
      annotations: { a: 'b' },
      platform: { os: 'linux', architecture: 'arm64' },
      labels: { 'org.opencontainers.image.title': 'T' },
      pushedBy: 'alice',
    });

    const timesOf = async () => JSON.parse(await readFile(file, 'utf8')).taggedAt as Record<string, string>;
    await Promise.all(Array.from({ length: 20 }, (_, index) => registry.pushManifest('records', `t${index}`, data)));
    await registry.pushManifest('records', digestOf(data), data);
    assert.deepEqual([(await timesOf()).v1, Object.keys(await timesOf()).length], [pushedAt, 21], 'of every tag');
    for (let page = 0; page < 3; page++) {
      const tags = Array.from({ length: 99 }, (_, index) => `tag=p${page}-${index}`);
      await registry.pushManifest('records', `${digestOf(data)}?${tags.join('&')}`, data);
    }
    const last = Object.keys(await timesOf());
    assert.deepEqual([last.length, last.includes('p2-98'), last.includes('v1')], [250, true, false]);
  });
});
