import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Digest } from '../../src/reference.js';
import {
  descriptorOf,
  digestOf,
  indexOf,
  manifestOf,
  OCI_CONFIG,
  OCI_INDEX,
  OCI_MANIFEST,
  RegistryFixture,
} from '../support/registry-fixture.js';

interface Entry {
  readonly digest: Digest;
  readonly mediaType: string;
  readonly size: number;
  readonly artifactType?: string;
  readonly annotations?: Record<string, string>;
}

/** distribution-spec, "Listing Referrers", "Referrers Tag Schema" and "Enabling the Referrers API". */
describe('listing referrers', () => {
  let registry: RegistryFixture;
  const config = Buffer.from('{}');
  before(async () => {
    registry = await RegistryFixture.start();
  });
  after(async () => {
    assert.deepEqual(registry.faults, []);
    await registry.stop();
  });

  const list = async (repository: string, subject: string, query = '') => {
    const answer = await registry.call('GET', `/v2/${repository}/referrers/${subject}${query}`);
    assert.equal(answer.status, 200);
    assert.equal(answer.headers['content-type'], OCI_INDEX);
    const index = answer.json() as { schemaVersion: number; mediaType: string; manifests: Entry[] };
    assert.deepEqual([index.schemaVersion, index.mediaType], [2, OCI_INDEX]);
    return { entries: index.manifests, filters: answer.headers['oci-filters-applied'], link: answer.headers.link };
  };
  const digests = async (repository: string, subject: string, query = '') =>
    (await list(repository, subject, query)).entries.map(({ digest }) => digest);
  const subjectOf = (digest: string) => ({ subject: { mediaType: OCI_MANIFEST, digest, size: 2 } });
  const push = async (repository: string, data: Buffer, type: string = OCI_MANIFEST) => {
    await registry.pushBlob(repository, config);
    const answer = await registry.pushManifest(repository, digestOf(data), data, type);
    assert.equal(answer.status, 201);
    return digestOf(data);
  };
  /** Takes the entry as if a registry without this API had stored the manifest. */
  const forget = (repository: string) =>
    rm(join(registry.root, 'docker/registry/v2/repositories', repository, '_referrers'), { recursive: true });

  test('of what was never there is empty, even in a repository that never was', async () => {
    for (const [repository, subject] of [
      ['never', `sha256:${'0'.repeat(64)}`],
      ['never', `sha512:${'0'.repeat(128)}`],
    ] as const)
      assert.deepEqual(await digests(repository, subject), []);
    const head = await registry.call('HEAD', `/v2/never/referrers/sha256:${'0'.repeat(64)}`);
    assert.deepEqual([head.status, head.headers['content-type']], [200, OCI_INDEX]);
  });

  test('of a bad digest is 400', async () => {
    for (const digest of ['latest', 'sha256:abc', `sha256:${'A'.repeat(64)}`, `md5:${'0'.repeat(32)}`, '%ff']) {
      const answer = await registry.call('GET', `/v2/never/referrers/${digest}`);
      assert.deepEqual([answer.status, answer.code], [400, 'DIGEST_INVALID'], digest);
    }
  });

  test('images and indexes, with type and annotations; the type falls back to that of an image’s config', async () => {
    const { digest: subject } = await registry.pushImage('kinds', 'v1');
    const typed = manifestOf(config, [], { ...subjectOf(subject), artifactType: 'a/b', annotations: { 'x.y': 'ü' } });
    const plain = manifestOf(config, [], subjectOf(subject));
    const index = indexOf([], { ...subjectOf(subject), annotations: { z: '' } });
    const indexTyped = indexOf([], { ...subjectOf(subject), artifactType: 'c/d' });
    const none = manifestOf(config, [], { annotations: { a: 'b' } });
    for (const data of [typed, plain, none]) await push('kinds', data);
    for (const data of [index, indexTyped]) await push('kinds', data, OCI_INDEX);
    const { entries, filters, link } = await list('kinds', subject);
    assert.deepEqual(
      entries,
      [
        { ...descriptorOf(typed, OCI_MANIFEST), artifactType: 'a/b', annotations: { 'x.y': 'ü' } },
        { ...descriptorOf(plain, OCI_MANIFEST), artifactType: OCI_CONFIG },
        { ...descriptorOf(index, OCI_INDEX), annotations: { z: '' } },
        { ...descriptorOf(indexTyped, OCI_INDEX), artifactType: 'c/d' },
      ].sort((a, b) => (a.digest < b.digest ? -1 : 1)),
    );
    assert.deepEqual([filters, link], [undefined, undefined]);
    assert.deepEqual(await digests('other', subject), [], 'another repository has its own');
  });

  test('filtered by type', async () => {
    const { digest: subject } = await registry.pushImage('filter', 'v1');
    const typed = await push('filter', manifestOf(config, [], { ...subjectOf(subject), artifactType: 'a/b+c d' }));
    const plain = await push('filter', manifestOf(config, [], subjectOf(subject)));
    const untyped = await push('filter', indexOf([], subjectOf(subject)), OCI_INDEX);
    for (const [query, wanted] of [
      ['a/b%2Bc%20d', [typed]],
      [encodeURIComponent(OCI_CONFIG), [plain]],
      ['', [untyped]],
      ['a', []],
    ] as const) {
      const { entries, filters } = await list('filter', subject, `?artifactType=${query}`);
      assert.deepEqual(
        entries.map(({ digest }) => digest),
        wanted,
      );
      assert.equal(filters, 'artifactType');
    }
  });

  test('in pages that a Link leads through, filtered or not', async () => {
    const { digest: subject } = await registry.pushImage('pages', 'v1');
    const all: Record<string, Digest[]> = { even: [], odd: [] };
    for (let index = 0; index < 23; index++) {
      const artifactType = index % 2 ? 'odd' : 'even';
      const annotations = { index: String(index) };
      const data = manifestOf(config, [], { ...subjectOf(subject), artifactType, annotations });
      all[artifactType]!.push(await push('pages', data));
    }
    for (const [query, wanted] of [
      ['', [...all.even!, ...all.odd!]],
      ['&artifactType=odd', all.odd!],
    ] as const)
      for (const n of [1, 5, 100]) {
        const found: Digest[] = [];
        for (let next: string | undefined = `/v2/pages/referrers/${subject}?n=${n}${query}`; next; ) {
          const answer = await registry.call('GET', next);
          const { manifests } = answer.json() as { manifests: Entry[] };
          assert.ok(manifests.length === n || answer.headers.link === undefined);
          assert.equal(answer.headers['oci-filters-applied'], query ? 'artifactType' : undefined);
          found.push(...manifests.map(({ digest }) => digest));
          next = answer.headers.link && /^<(.+)>; rel="next"$/.exec(String(answer.headers.link))![1]!;
        }
        assert.deepEqual(found, [...wanted].sort());
      }
    const none = await list('pages', subject, '?n=0');
    assert.deepEqual([none.entries, none.link], [[], undefined]);
    for (const n of ['-1', 'x', ''])
      assert.equal((await registry.call('GET', `/v2/pages/referrers/${subject}?n=${n}`)).status, 400);
  });

  test('a page ends before it is larger than a manifest may be', async () => {
    const { digest: subject } = await registry.pushImage('large', 'v1');
    const wanted: Digest[] = [];
    for (let index = 0; index < 3; index++) {
      const annotations = { index: String(index), padding: 'x'.repeat(2_000_000) };
      wanted.push(await push('large', manifestOf(config, [], { ...subjectOf(subject), annotations })));
    }
    const first = await list('large', subject);
    assert.equal(first.entries.length, 2);
    const [, next] = /^<\/v2\/large\/referrers\/[^?]+(\?.+)>; rel="next"$/.exec(String(first.link))!;
    const second = await list('large', subject, next);
    assert.deepEqual(
      [...first.entries, ...second.entries].map(({ digest }) => digest),
      wanted.sort(),
    );
    assert.equal(second.link, undefined);
  });

  test('pushed before their subject, and there although it goes', async () => {
    const layer = Buffer.from('late');
    await registry.pushBlob('order', layer);
    const subject = manifestOf(config, [layer]);
    const referrer = await push('order', manifestOf(config, [], subjectOf(digestOf(subject))));
    assert.deepEqual(await digests('order', digestOf(subject)), [referrer]);
    await push('order', subject);
    assert.deepEqual(await digests('order', digestOf(subject)), [referrer]);
    assert.equal((await registry.call('DELETE', `/v2/order/manifests/${digestOf(subject)}`)).status, 202);
    assert.deepEqual(await digests('order', digestOf(subject)), [referrer]);
  });

  test('gone at once when they are deleted, and back when pushed again', async () => {
    const { digest: subject } = await registry.pushImage('gone', 'v1');
    const data = manifestOf(config, [], subjectOf(subject));
    for (let round = 0; round < 2; round++) {
      const digest = await push('gone', data);
      assert.deepEqual(await digests('gone', subject), [digest]);
      assert.equal((await registry.call('DELETE', `/v2/gone/manifests/${digest}`)).status, 202);
      assert.deepEqual(await digests('gone', subject), []);
    }
  });

  test('SHA-512, of the subject and of the referrer', async () => {
    const { data } = await registry.pushImage('sha512', 'v1');
    const subject = digestOf(data, 'sha512');
    await registry.pushManifest('sha512', subject, data);
    const referrer = manifestOf(config, [], subjectOf(subject));
    const digest = digestOf(referrer, 'sha512');
    await registry.pushBlob('sha512', config);
    const answer = await registry.pushManifest('sha512', digest, referrer);
    assert.equal(answer.headers['oci-subject'], subject);
    assert.deepEqual(await digests('sha512', subject), [digest]);
    await registry.call('DELETE', `/v2/sha512/manifests/${digest}`);
    assert.deepEqual(await digests('sha512', subject), []);
  });

  test('once each, by the digest that a client chose for it', async () => {
    const { digest: subject } = await registry.pushImage('names', 'v1');
    const referrer = manifestOf(config, [], subjectOf(subject));
    await registry.pushBlob('names', config);
    const chosen = digestOf(referrer, 'sha512');
    await registry.pushManifest('names', chosen, referrer);
    // Whatever looks at it by its SHA-256 must not make another referrer of it.
    await push('names', indexOf([referrer]), OCI_INDEX);
    assert.deepEqual(await digests('names', subject), [chosen]);
    await push('names', referrer);
    assert.deepEqual(await digests('names', subject), [chosen]);
    assert.deepEqual(await digests('names', subject, '?n=1'), [chosen]);
    await registry.call('DELETE', `/v2/names/manifests/${chosen}`);
    assert.deepEqual(await digests('names', subject), []);
    await push('names', referrer);
    assert.deepEqual(await digests('names', subject), [digestOf(referrer)]);
  });

  test('those that only a fallback tag lists, and no manifest that is none', async () => {
    const { digest: subject, data: base } = await registry.pushImage('fallback', 'v1');
    const other = await registry.pushImage('fallback', 'v2');
    const typed = manifestOf(config, [], { ...subjectOf(subject), artifactType: 'a/b', annotations: { k: 'v' } });
    const second = manifestOf(config, [], subjectOf(subject));
    const foreign = manifestOf(config, [], subjectOf(other.digest));
    for (const data of [typed, second, foreign]) await push('fallback', data);
    await forget('fallback');
    assert.deepEqual(await digests('fallback', subject), []);
    // The tag's index says less than the manifests do, lists one that is gone, and some that are no referrers.
    const index = indexOf([typed, second, foreign, base]);
    const tag = `sha256-${subject.slice(7)}`;
    assert.equal((await registry.pushManifest('fallback', tag, index, OCI_INDEX)).status, 201);
    assert.deepEqual(
      (await list('fallback', subject)).entries,
      [
        { ...descriptorOf(typed, OCI_MANIFEST), artifactType: 'a/b', annotations: { k: 'v' } },
        { ...descriptorOf(second, OCI_MANIFEST), artifactType: OCI_CONFIG },
      ].sort((a, b) => (a.digest < b.digest ? -1 : 1)),
    );
    assert.deepEqual(await digests('fallback', subject, '?artifactType=a/b'), [digestOf(typed)]);
    // Pushed again, one of them is known in both ways, and listed once.
    await push('fallback', typed);
    const third = await push('fallback', manifestOf(config, [], { ...subjectOf(subject), artifactType: 'new' }));
    const all = [digestOf(typed), digestOf(second), third].sort();
    assert.deepEqual(await digests('fallback', subject), all);
    await registry.call('DELETE', `/v2/fallback/manifests/${digestOf(second)}`);
    assert.deepEqual(
      await digests('fallback', subject),
      all.filter(digest => digest !== digestOf(second)),
    );
    await registry.call('DELETE', `/v2/fallback/manifests/${tag}`);
    assert.deepEqual(await digests('fallback', subject), [digestOf(typed), third].sort());
  });

  test('a fallback tag on something else is no list; that of a SHA-512 subject is cut to 64 digits', async () => {
    const { digest, data } = await registry.pushImage('tags', 'v1');
    await registry.pushManifest('tags', `sha256-${digest.slice(7)}`, data);
    assert.deepEqual(await digests('tags', digest), []);
    const subject = digestOf(data, 'sha512');
    const referrer = manifestOf(config, [], subjectOf(subject));
    await push('tags', referrer);
    await forget('tags');
    await registry.pushManifest('tags', `sha512-${subject.slice(7, 7 + 64)}`, indexOf([referrer]), OCI_INDEX);
    assert.deepEqual(await digests('tags', subject), [digestOf(referrer)]);
  });
});
