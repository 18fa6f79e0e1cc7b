import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readFile, rm, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { collect } from '../../src/store/collector.js';
import { layout } from '../../src/store/layout.js';
import {
  descriptorOf,
  digestOf,
  indexOf,
  manifestOf,
  OCI_INDEX,
  OCI_MANIFEST,
  RegistryFixture,
} from '../support/registry-fixture.js';

const HOUR = 3_600_000;
const OK = 201;
const DENIED = [403, 'DENIED'];

describe('immutable tags', () => {
  let registry: RegistryFixture;
  /** Another process on the same volume. */
  let other: RegistryFixture;
  before(async () => {
    const isImmutable = (_repository: string, tag: string) => tag.startsWith('v');
    registry = await RegistryFixture.start({ isImmutable });
    other = await RegistryFixture.start({ isImmutable, root: registry.root });
  });
  after(async () => {
    assert.deepEqual([...registry.faults, ...other.faults], []);
    await other.stop({ keep: true });
    await registry.stop();
  });

  const answer = ({ status, code }: { status: number; code: string | undefined }) => (code ? [status, code] : status);
  /** An image for a platform, its blobs pushed, its manifest not. */
  const image = async (repository: string, architecture = 'amd64', os = 'linux') => {
    const config = Buffer.from(JSON.stringify({ os, architecture, unique: randomBytes(8).toString('hex') }));
    await registry.pushBlob(repository, config);
    return manifestOf(config, []);
  };
  const put = async (repository: string, reference: string, data: Buffer, user = 'alice', at = registry) => {
    const type = data.includes('"manifests"') ? OCI_INDEX : OCI_MANIFEST;
    const path = `/v2/${repository}/manifests/${reference}`;
    return answer(await at.call('PUT', path, { body: data, headers: { 'content-type': type }, user }));
  };
  const remove = async (path: string) => answer(await registry.call('DELETE', `/v2/${path}`));
  const target = async (repository: string, tag: string) =>
    (await registry.call('HEAD', `/v2/${repository}/manifests/${tag}`)).headers['docker-content-digest'];
  /** Makes a step of the tag look as if it had been made so long ago. */
  const setAge = async (repository: string, tag: string, step: 1 | 2, age: number) => {
    const path = join(registry.root, layout.immutable(repository, tag, step));
    const time = new Date(Date.now() - age);
    await writeFile(path, JSON.stringify({ ...JSON.parse(await readFile(path, 'utf8')), at: time.toISOString() }));
    await utimes(path, time, time);
  };

  test('take the first push, and the same again from anybody', async () => {
    const one = await image('once');
    assert.equal(await put('once', 'v1', one), OK);
    assert.equal(await put('once', 'v1', one), OK);
    assert.equal(await put('once', 'v1', one, 'bob', other), OK);
    assert.equal(await target('once', 'v1'), digestOf(one));
  });

  test('take no other image, by whatever route, and nothing of it is stored', async () => {
    const [one, two] = [await image('routes'), await image('routes')];
    await put('routes', 'v1', one);
    const refused = await registry.call('PUT', '/v2/routes/manifests/v1', {
      body: two,
      headers: { 'content-type': OCI_MANIFEST },
      user: 'alice',
    });
    assert.deepEqual(answer(refused), DENIED);
    assert.match(refused.body.toString(), /the tag v1 is immutable/);
    assert.deepEqual(await put('routes', `${digestOf(two)}?tag=new&tag=v1`, two), DENIED);
    assert.equal((await registry.call('HEAD', `/v2/routes/manifests/${digestOf(two)}`)).status, 404);
    assert.equal(await target('routes', 'new'), undefined);
    assert.equal(await target('routes', 'v1'), digestOf(one));
    assert.equal(await put('routes', digestOf(two), two), OK, 'by digest');
    assert.equal(await put('routes', 'latest', two), OK, 'under another tag');
    assert.equal(await put('routes', 'latest', one), OK, 'which may change');
  });

  test('are the same by every digest of their image', async () => {
    const one = await image('digests');
    await put('digests', `${digestOf(one, 'sha512')}?tag=v1`, one);
    assert.equal(await put('digests', 'v1', one), OK);
    assert.deepEqual(await put('digests', 'v1', await image('digests')), DENIED);
  });

  test('are not deleted, nor is what they need', async () => {
    const data = await image('kept');
    const config = JSON.parse(data.toString()).config.digest;
    await put('kept', digestOf(data), data);
    await put('kept', 'v1', indexOf([data]));
    const free = await registry.pushBlob('kept', randomBytes(10));
    for (const path of [
      'kept/manifests/v1',
      `kept/manifests/${digestOf(indexOf([data]))}`,
      `kept/manifests/${digestOf(data)}`,
      `kept/blobs/${config}`,
    ])
      assert.deepEqual(await remove(path), DENIED, path);
    assert.deepEqual(answer(await registry.call('DELETE', '/api/v1/repositories/kept')), DENIED);
    assert.equal(await remove(`kept/blobs/${free}`), 202);
    await put('kept', 'latest', data);
    assert.equal(await remove('kept/manifests/latest'), 202);
    assert.equal(await target('kept', 'v1'), digestOf(indexOf([data])));
    assert.deepEqual(await remove('kept/manifests/v2'), [404, 'MANIFEST_UNKNOWN']);
  });

  describe('as BuildKit pushes an image for several platforms', () => {
    /** Images of several platforms under the tag at once, what BuildKit says about them too, and the index that lists them. */
    const push = async (repository: string, user = 'alice') => {
      const children = await Promise.all([
        image(repository, 'amd64'),
        image(repository, 'arm64'),
        image(repository, 'unknown', 'unknown'),
        image(repository, 'unknown', 'unknown'),
      ]);
      const answers = await Promise.all(
        children.map((child, n) => put(repository, 'v1', child, user, n % 2 ? other : registry)),
      );
      assert.deepEqual(answers, [OK, OK, OK, OK]);
      return { children, index: indexOf(children) };
    };

    test('the index takes the place of its images, once', async () => {
      const { children, index } = await push('buildkit');
      assert.ok(children.map(child => digestOf(child)).includes((await target('buildkit', 'v1')) as never));
      assert.equal(await put('buildkit', 'v1', index), OK);
      assert.equal(await target('buildkit', 'v1'), digestOf(index));
      for (const child of children) assert.equal(await target('buildkit', digestOf(child)), digestOf(child));
      assert.equal(await put('buildkit', 'v1', index, 'bob', other), OK, 'the same again');
      const stranger = await image('buildkit');
      assert.equal(await put('buildkit', digestOf(stranger), stranger), OK);
      const hostile = indexOf([...children, stranger]);
      for (const data of [hostile, indexOf([index]), ...children])
        assert.deepEqual(await put('buildkit', 'v1', data), DENIED);
      assert.equal(await target('buildkit', 'v1'), digestOf(index));
    });

    test('an index that does not list what the tag points at is refused', async () => {
      await push('foreign');
      const stranger = await image('foreign', 'riscv64');
      assert.equal(await put('foreign', digestOf(stranger), stranger), OK);
      assert.deepEqual(await put('foreign', 'v1', indexOf([stranger])), DENIED);
      assert.deepEqual(await put('foreign', 'v1', indexOf([])), DENIED);
    });

    test('the index and the images of somebody else are refused', async () => {
      const { index } = await push('principal');
      const first = await target('principal', 'v1');
      assert.deepEqual(await put('principal', 'v1', index, 'bob'), DENIED);
      assert.deepEqual(await put('principal', 'v1', await image('principal', 's390x'), 'bob'), DENIED);
      assert.equal(await target('principal', 'v1'), first);
      // To push what the tag points at does not make it one's own.
      const data = (await registry.call('GET', '/v2/principal/manifests/v1')).body;
      assert.equal(await put('principal', 'v1', data, 'bob'), OK);
      assert.equal(await put('principal', first as string, data, 'bob'), OK);
      assert.deepEqual(await put('principal', 'v1', index, 'bob'), DENIED);
      assert.equal(await put('principal', 'v1', index, 'alice'), OK);
    });

    test('another image for the same platform is refused, and moves nothing', async () => {
      const one = await image('platform', 'amd64');
      await put('platform', 'v1', one);
      assert.deepEqual(await put('platform', 'v1', await image('platform', 'amd64')), DENIED);
      const arm = await image('platform', 'arm64');
      assert.equal(await put('platform', 'v1', arm), OK);
      assert.equal(await target('platform', 'v1'), digestOf(one), 'the tag waits for the index');
      assert.equal(await target('platform', digestOf(arm)), digestOf(arm));
      // An artifact has no platform.
      const config = Buffer.from('{}');
      await registry.pushBlob('platform', config);
      const artifact = manifestOf(config, [], { config: descriptorOf(config, 'application/vnd.oci.empty.v1+json') });
      assert.deepEqual(await put('platform', 'v1', artifact), DENIED);
    });

    test('after an hour it is too late', async () => {
      const { index } = await push('late');
      await setAge('late', 'v1', 1, HOUR + 1000);
      assert.deepEqual(await put('late', 'v1', index), DENIED);
      assert.deepEqual(await put('late', 'v1', await image('late', 's390x')), DENIED);
    });

    test('an index never gives way', async () => {
      const child = await image('index');
      await put('index', digestOf(child), child);
      await put('index', 'v1', indexOf([child]));
      assert.deepEqual(await put('index', 'v1', indexOf([indexOf([child])])), DENIED);
      assert.deepEqual(await put('index', 'v1', child), DENIED);
    });
  });

  describe('across processes', () => {
    test('of many first pushes one wins', async () => {
      for (let round = 0; round < 10; round++) {
        const images = await Promise.all(Array.from({ length: 8 }, () => image(`race${round}`)));
        const answers = await Promise.all(
          images.map((data, n) => put(`race${round}`, 'v1', data, `user${n % 3}`, n % 2 ? other : registry)),
        );
        const winners = images.filter((_, n) => answers[n] === OK);
        assert.equal(winners.length, 1, JSON.stringify(answers));
        assert.ok(answers.every(answer => answer === OK || JSON.stringify(answer) === JSON.stringify(DENIED)));
        assert.equal(await target(`race${round}`, 'v1'), digestOf(winners[0]!));
      }
    });

    test('of many indexes one wins', async () => {
      for (let round = 0; round < 10; round++) {
        const repository = `indexes${round}`;
        const child = await image(repository);
        await put(repository, 'v1', child);
        const indexes = Array.from({ length: 8 }, (_, n) => indexOf([child], { annotations: { n: `${n}` } }));
        const answers = await Promise.all(
          indexes.map((data, n) => put(repository, 'v1', data, 'alice', n % 2 ? other : registry)),
        );
        const winners = indexes.filter((_, n) => answers[n] === OK);
        assert.equal(winners.length, 1, JSON.stringify(answers));
        assert.equal(await target(repository, 'v1'), digestOf(winners[0]!));
      }
    });
  });

  test('that registry:2 wrote do not change at all', async () => {
    const child = await image('theirs');
    await put('theirs', 'v1', child);
    await rm(join(registry.root, layout.immutables('theirs')), { recursive: true });
    assert.equal(await put('theirs', 'v1', child), OK);
    assert.deepEqual(await put('theirs', 'v1', indexOf([child])), DENIED);
  });

  test('of which a push died can be pushed again: the same at once, another after a minute', async () => {
    const [one, two] = [await image('died'), await image('died')];
    await put('died', 'v1', one);
    await registry.driver.removeAll(layout.tag('died', 'v1'));
    assert.deepEqual(await put('died', 'v1', two), DENIED);
    assert.equal(await put('died', 'v1', one), OK);
    await registry.driver.removeAll(layout.tag('died', 'v1'));
    await setAge('died', 'v1', 1, 61_000);
    assert.equal(await put('died', 'v1', two, 'bob'), OK);
    assert.equal(await put('died', 'v1', indexOf([two]), 'bob'), OK, 'and it is his');
  });

  test('leave nothing behind where they were deleted before they were immutable', async () => {
    await put('mutable', 'v1', await image('mutable'));
    await registry.pushImage('mutable', 'latest');
    const step = join(registry.root, layout.immutable('mutable', 'v1', 1));
    await setTimeout(2);
    await collect(registry.driver, { grace: 0 });
    assert.ok(existsSync(step));
    await registry.driver.removeAll(layout.tag('mutable', 'v1'));
    await setTimeout(2);
    await collect(registry.driver, { grace: 0 });
    assert.ok(!existsSync(step));
  });
});
