import assert from 'node:assert/strict';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import fc from 'fast-check';
import { SETTLED } from '../storage/places.js';
import { RegistryFixture } from '../support/registry-fixture.js';

/** Follows the Link headers from a path to the end. */
async function pages(registry: RegistryFixture, path: string, member: 'tags' | 'repositories'): Promise<string[][]> {
  const found: string[][] = [];
  for (let next: string | undefined = path; next; ) {
    const answer = await registry.call('GET', next);
    assert.equal(answer.status, 200);
    found.push((answer.json() as Record<string, string[]>)[member]!);
    const link = answer.headers.link;
    next = link === undefined ? undefined : /^<(.+)>; rel="next"$/.exec(String(link))![1]!;
  }
  return found;
}

const sorted = (names: readonly string[]) => [...names].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));

/** distribution-spec, "Listing Tags", and the catalog of the Docker registry API. */
describe('lists', () => {
  let registry: RegistryFixture;
  const tags = sorted(['b', 'B', 'a', '10', '9', '_', 'a.b', 'a-b', 'a_b']);
  before(async () => {
    registry = await RegistryFixture.start();
    const image = await registry.pushImage('listed', tags[0]!);
    for (const tag of tags.slice(1)) await registry.pushManifest('listed', tag, image.data);
  });
  after(async () => {
    assert.deepEqual(registry.faults, []);
    await registry.stop();
  });

  test('tags in byte order, in pages that end without a Link', async () => {
    assert.deepEqual(await pages(registry, '/v2/listed/tags/list', 'tags'), [tags]);
    assert.deepEqual(
      (await pages(registry, '/v2/listed/tags/list?n=2', 'tags')).map(({ length }) => length),
      [2, 2, 2, 2, 1],
    );
    assert.deepEqual((await pages(registry, '/v2/listed/tags/list?n=2', 'tags')).flat(), tags);
    assert.deepEqual(await pages(registry, '/v2/listed/tags/list?n=3', 'tags'), [
      tags.slice(0, 3),
      tags.slice(3, 6),
      tags.slice(6),
    ]);
    assert.deepEqual(await pages(registry, '/v2/listed/tags/list?n=1000000000000', 'tags'), [tags]);
    assert.deepEqual(await pages(registry, '/v2/listed/tags/list?last=a', 'tags'), [tags.slice(tags.indexOf('a') + 1)]);
    assert.deepEqual(await pages(registry, '/v2/listed/tags/list?last=a%22%0d%0a%3e', 'tags'), [
      tags.filter(tag => tag > 'a"'),
    ]);
  });

  test('a tag is listed as long as it has its link, whatever is known of its folder', async () => {
    const image = await registry.pushImage('links', 'a');
    await registry.pushManifest('links', 'b', image.data);
    const folder = join(registry.root, 'docker/registry/v2/repositories/links/_manifests/tags');
    const listed = async () => (await registry.call('GET', '/v2/links/tags/list')).json();
    const are = async (tags: string[], what: string) => assert.deepEqual(await listed(), { name: 'links', tags }, what);
    // Until the list is one that is known.
    const known = async (tags: string[]) => {
      await pause(2 * SETTLED);
      for (let look = 0; look < 4; look++) await are(tags, 'again');
    };
    await known(['a', 'b']);
    await registry.pushManifest('links', 'c', image.data);
    await are(['a', 'b', 'c'], 'one more');
    await known(['a', 'b', 'c']);
    await registry.call('DELETE', '/v2/links/manifests/b');
    await are(['a', 'c'], 'one less');
    // As a crash leaves it: before the link, and after it.
    await mkdir(join(folder, 'd/current'), { recursive: true });
    await known(['a', 'c']);
    await writeFile(join(folder, 'd/current/link'), image.digest);
    await are(['a', 'c', 'd'], 'a folder becomes a tag without a trace in the folder above');
    await known(['a', 'c', 'd']);
    await rm(join(folder, 'a/current/link'));
    for (let look = 0; JSON.stringify(await listed()).includes('"a"'); look++) {
      assert.ok(look < 500);
      await pause(20);
    }
    await are(['c', 'd'], 'a link alone is gone');
  });

  test('n=0 is empty, without a Link', async () => {
    for (const path of ['/v2/listed/tags/list?n=0', '/v2/_catalog?n=0']) {
      const answer = await registry.call('GET', path);
      assert.equal(answer.status, 200);
      assert.equal(answer.headers.link, undefined);
    }
  });

  test('an n that is no number is 400', async () => {
    for (const n of ['-1', 'abc', '1.5', '', '0x10', '%00', '%D9%A1'])
      for (const path of ['/v2/listed/tags/list', '/v2/_catalog']) {
        const answer = await registry.call('GET', `${path}?n=${n}`);
        assert.equal(answer.status, 400, n);
        assert.equal(answer.code, 'UNSUPPORTED');
      }
  });

  test('an absent repository is NAME_UNKNOWN; the folder of a tag that never came is no tag', async () => {
    const answer = await registry.call('GET', '/v2/absent/tags/list');
    assert.deepEqual([answer.status, answer.code], [404, 'NAME_UNKNOWN']);
    await mkdir(join(registry.root, 'docker/registry/v2/repositories/listed/_manifests/tags/phantom/current'), {
      recursive: true,
    });
    assert.deepEqual(await pages(registry, '/v2/listed/tags/list', 'tags'), [tags]);
  });
});

describe('the catalog', () => {
  test('is every visible repository once, in byte order, however it is paged', async () => {
    const component = fc.stringMatching(/^[a-c]([._-]?[a-c0])?$/);
    const name = fc.array(component, { minLength: 1, maxLength: 3 }).map(parts => parts.join('/'));
    await fc.assert(
      fc.asyncProperty(fc.uniqueArray(name, { maxLength: 12 }), fc.integer({ min: 1, max: 5 }), async (names, n) => {
        const registry = await RegistryFixture.start();
        try {
          const all = [...names, 'hidden/x'];
          for (const [index, repository] of all.entries())
            await mkdir(
              join(registry.root, 'docker/registry/v2/repositories', repository, index % 2 ? '_layers' : '_manifests'),
              { recursive: true },
            );
          // A folder with an upload only is no repository yet.
          await mkdir(join(registry.root, 'docker/registry/v2/repositories/a/only-upload/_uploads/x'), {
            recursive: true,
          });
          const found = await pages(registry, `/v2/_catalog?n=${n}`, 'repositories');
          assert.deepEqual(found.flat(), sorted(names));
          assert.ok(found.every((page, index) => page.length === n || index === found.length - 1));
        } finally {
          await registry.stop();
        }
      }),
      { numRuns: 40 },
    );
  });
});
