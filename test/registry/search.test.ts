import assert from 'node:assert/strict';
import { access, rm, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import type { Catalog } from '../../src/store/catalog.js';
import { Search } from '../../src/store/search.js';
import { indexOf, manifestOf, OCI_INDEX, OCI_MANIFEST, RegistryFixture } from '../support/registry-fixture.js';

interface Found {
  readonly query: string;
  readonly num_results: number;
  readonly num_pages: number;
  readonly page: number;
  readonly page_size: number;
  readonly results: ReadonlyArray<{ readonly name: string; readonly description: string }>;
}

const about = (title: string, description: string) => ({
  'org.opencontainers.image.title': title,
  'org.opencontainers.image.description': description,
});

/** `docker search HOST/term`: Docker's search API of old, `/v1/search`. */
describe('search', () => {
  let registry: RegistryFixture;
  before(async () => {
    registry = await RegistryFixture.start();
    await registry.pushImage('team/web', '1.0');
    await registry.pushImage('team/annotated', 'latest', { annotations: about('Shop', 'Sells Apples') });
    await registry.pushImage('team/annotated', 'zzz', { annotations: about('', 'an older one') });
    await pushLabelled('labelled', '2.0', about('', 'by a label'));
    const titled = await pushLabelled('titled', '1', { 'org.opencontainers.image.title': 'only a title' });
    const index = indexOf([manifestOf(Buffer.from('{}'), []), titled]);
    await registry.pushManifest('titled', 'absent', manifestOf(Buffer.from('{}'), []));
    await registry.pushManifest('titled', 'latest', index, OCI_INDEX);
    await registry.pushImage('hidden/apples', 'latest', { annotations: about('apples', 'apples') });
  });
  after(async () => {
    assert.deepEqual(registry.faults, []);
    await registry.stop();
  });

  async function pushLabelled(repository: string, tag: string, Labels: object): Promise<Buffer> {
    const config = Buffer.from(JSON.stringify({ os: 'linux', architecture: 'amd64', config: { Labels } }));
    await registry.pushBlob(repository, config);
    await registry.pushBlob(repository, Buffer.from('{}'));
    const data = manifestOf(config, []);
    assert.equal((await registry.pushManifest(repository, tag, data)).status, 201);
    return data;
  }
  const find = async (query: string, from = registry) => {
    const answer = await from.call('GET', `/v1/search${query}`);
    assert.equal(answer.status, 200);
    assert.equal(answer.headers['content-type'], 'application/json');
    return answer.json() as Found;
  };
  const names = async (query: string) => (await find(query)).results.map(({ name }) => name);

  test('in the form that docker reads', async () => {
    assert.deepEqual(await find('?q=web&n=25'), {
      query: 'web',
      num_results: 1,
      num_pages: 1,
      page: 1,
      page_size: 25,
      results: [{ name: 'team/web', description: '', star_count: 0, is_official: false, is_automated: false }],
    });
  });

  test('by name, title and description, all words of the query, in any case', async () => {
    assert.deepEqual(await names('?q=team'), ['team/annotated', 'team/web']);
    assert.deepEqual(await names('?q=team/w'), ['team/web']);
    assert.deepEqual(await names('?q=SHOP'), ['team/annotated']);
    assert.deepEqual(await names('?q=apples'), ['team/annotated'], 'and none that the caller may not see');
    assert.deepEqual(await names('?q=apples+team'), ['team/annotated']);
    assert.deepEqual(await names('?q=apples+web'), []);
    assert.deepEqual(await names('?q=older'), [], 'the latest speaks for the repository');
    assert.deepEqual(await names('?q=%22%0d%0a%00'), []);
  });

  test('descriptions from annotations, labels, and the images of an index', async () => {
    assert.deepEqual(
      (await find('')).results.map(({ name, description }) => [name, description]),
      [
        ['labelled', 'by a label'],
        ['team/annotated', 'Sells Apples'],
        ['team/web', ''],
        ['titled', 'only a title'],
      ],
    );
  });

  test('without a query everything that the caller may see, in pages', async () => {
    const all = ['labelled', 'team/annotated', 'team/web', 'titled'];
    for (const query of ['', '?q=', '?q=%20']) assert.deepEqual(await names(query), all);
    const second = await find('?n=3&page=2');
    assert.deepEqual([second.num_results, second.num_pages, second.page, second.page_size], [4, 2, 2, 3]);
    assert.deepEqual([...(await names('?n=3')), ...(await names('?n=3&page=2'))], all);
    assert.deepEqual(await names('?page=3'), []);
    assert.deepEqual((await find('?n=100000')).page_size, 100);
    assert.deepEqual((await find('?n=0')).page_size, 25);
  });

  test('a number that is none is 400; only GET', async () => {
    for (const query of ['?n=-1', '?n=x', '?n=1e3', '?page=-1', '?page=', '?n=9999999999']) {
      const answer = await registry.call('GET', `/v1/search${query}`);
      assert.deepEqual([answer.status, answer.code], [400, 'UNSUPPORTED'], query);
    }
    const answer = await registry.call('POST', '/v1/search');
    assert.deepEqual([answer.status, answer.headers.allow], [405, 'GET, HEAD']);
    assert.equal((await registry.call('GET', '/v1/repositories/x/images')).status, 404);
    assert.equal((await registry.call('GET', '/v1/search', { user: 'nobody' })).status, 401);
  });

  test('what another registry wrote, without records: they are made at first sight', async () => {
    const folder = join(registry.root, 'docker/registry/v2/repositories/labelled');
    await rm(join(folder, '_records'), { recursive: true });
    const { headers } = await registry.call('HEAD', '/v2/labelled/manifests/2.0');
    const hex = String(headers['docker-content-digest']).slice(7);
    const pushed = new Date('2020-02-02T02:02:02Z');
    await utimes(join(folder, '_manifests/revisions/sha256', hex, 'link'), pushed, pushed);
    const fresh = await RegistryFixture.start({ root: registry.root });
    try {
      assert.equal((await find('?q=label', fresh)).results[0]!.description, 'by a label');
      const record = await fresh.store.manifests.records.get('labelled', `sha256:${hex}`);
      assert.equal(record!.pushedAt, pushed.toISOString());
      assert.equal(record!.mediaType, OCI_MANIFEST);
      await access(join(folder, '_records/sha256', hex));
    } finally {
      await fresh.stop({ keep: true });
    }
  });

  test('the labels of a config that only another repository has stay there', async () => {
    const sparse = await RegistryFixture.start({ root: registry.root, validation: { images: 'none' } });
    try {
      const secret = Buffer.from(JSON.stringify({ config: { Labels: about('', 'a secret') } }));
      await sparse.pushBlob('hidden/source', secret);
      await sparse.pushManifest('spy', 'latest', manifestOf(secret, []));
      assert.deepEqual((await find('?q=spy', sparse)).results[0]!.description, '');
      await sparse.call('DELETE', '/api/v1/repositories/spy');
    } finally {
      await sparse.stop({ keep: true });
    }
  });

  test('an image that is gone is not spoken of', async () => {
    await pushLabelled('going', 'latest', about('', 'still here'));
    assert.equal((await find('?q=going')).results[0]!.description, 'still here');
    await registry.call('DELETE', '/v2/going/manifests/latest');
    assert.equal((await find('?q=going')).results[0]!.description, '');
    await registry.call('DELETE', '/api/v1/repositories/going');
    assert.deepEqual(await names('?q=going'), []);
  });

  describe('of a catalog that takes long to read', () => {
    const page = { skip: 0, limit: 100 };
    const all = () => true;
    /** A catalog of so many names that stops after them until it may go on. */
    function slowCatalog(count: number) {
      const names = new Set(Array.from({ length: count }, (_, index) => `repo-${1000 + index}`));
      let goOn = () => {};
      const gate = new Promise<void>(resolve => (goOn = resolve));
      const catalog = Object.assign(Object.create(registry.store.catalog) as Catalog, {
        readings: 0,
        async *names() {
          catalog.readings += 1;
          yield* [...names];
          await gate;
          yield 'team/web';
        },
        exists: async (name: string) => name === 'team/web' || names.has(name),
      });
      return { catalog, names, goOn };
    }
    const until = async (condition: () => Promise<boolean>) => {
      for (const deadline = Date.now() + 60_000; !(await condition()); await pause(5)) assert.ok(Date.now() < deadline);
    };

    test('says what it has found by then, and later all, from memory', async () => {
      const { catalog, names, goOn } = slowCatalog(128);
      const search = new Search(registry.driver, catalog, registry.store.manifests, { quick: -1, patience: 1 });
      await until(async () => (await search.find('repo', all, page)).total === 128);
      const { whole, results } = await search.find('', all, page);
      assert.deepEqual([whole, results.length, catalog.readings], [false, 100, 1]);
      goOn();
      await until(async () => (await search.find('', all, page)).whole);
      assert.equal((await search.find('', all, page)).total, 129);

      names.delete('repo-1000');
      const [first] = (await search.find('repo', all, page)).results;
      assert.equal(first!.name, 'repo-1001', 'what is gone is not shown, though memory still has it');
      names.add('repo-9999');
      await until(async () => (await search.find('9999', all, page)).total === 1);
    });

    test('reads it once for all who ask at the same time', async () => {
      const { catalog, goOn } = slowCatalog(3);
      const search = new Search(registry.driver, catalog, registry.store.manifests);
      const found = Promise.all(Array.from({ length: 20 }, () => search.find('web', all, page)));
      goOn();
      for (const { total } of await found) assert.equal(total, 1);
      assert.ok(catalog.readings <= 2, `${catalog.readings} readings`);
    });
  });
});
