import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, type TestContext, test } from 'node:test';
import { digestOf, manifestOf, RegistryFixture } from '../support/registry-fixture.js';

type Options = NonNullable<Parameters<typeof RegistryFixture.start>[0]>;

async function start(t: TestContext, options: Options): Promise<RegistryFixture> {
  const registry = await RegistryFixture.start(options);
  t.after(async () => {
    await registry.stop();
    assert.deepEqual(registry.faults, []);
  });
  return registry;
}

const KIB = 1024;

describe('quotas', () => {
  const monolithic = (registry: RegistryFixture, repository: string, data: Buffer) =>
    registry.pushBlob(repository, data).then(
      () => 201,
      (error: Error) => Number(/\d+$/.exec(error.message)![0]),
    );
  const chunked = async (registry: RegistryFixture, repository: string, data: Buffer) => {
    const { location } = (await registry.call('POST', `/v2/${repository}/blobs/uploads/`)).headers;
    await registry.call('PATCH', location!, { body: data });
    const digest = await registry.pushBlob('elsewhere', data);
    return registry.call('PUT', `${location}?digest=${digest}`);
  };

  test('bound the distinct bytes of the repositories below a prefix, and say so', async t => {
    const registry = await start(t, { quotas: { team: 100 * KIB } });
    const layer = randomBytes(60 * KIB);
    assert.equal(await monolithic(registry, 'team/a', layer), 201);
    assert.equal(await monolithic(registry, 'team/b', layer), 201, 'it counts once');
    assert.equal(await monolithic(registry, 'team', randomBytes(40 * KIB)), 201, 'to the last byte');
    assert.equal(await monolithic(registry, 'team/a', Buffer.from('x')), 403);
    assert.equal(await monolithic(registry, 'teams/a', randomBytes(200 * KIB)), 201, 'another prefix');
    const refused = await chunked(registry, 'team/c', randomBytes(2 * KIB));
    assert.deepEqual([refused.status, refused.code], [403, 'DENIED']);
    const [error] = (refused.json() as { errors: Array<{ message: string }> }).errors;
    assert.equal(error!.message, 'the quota of team is 100 KiB: 100 KiB are in use, and this needs 2.00 KiB more');
    const digest = await registry.pushBlob('elsewhere', randomBytes(KIB));
    const mount = await registry.call('POST', `/v2/team/d/blobs/uploads/?mount=${digest}&from=elsewhere`);
    assert.equal(mount.status, 403, 'a mount needs room too');
    const manifest = await registry.pushManifest('team/a', 'v1', manifestOf(layer, []));
    assert.deepEqual([manifest.status, manifest.code], [403, 'DENIED'], 'and so does a manifest');
    assert.equal((await registry.call('GET', '/v2/team/a/manifests/v1')).status, 404);
  });

  test('the narrower of two holds', async t => {
    const registry = await start(t, { quotas: { '*': 100 * KIB, 'a/b': 10 * KIB } });
    assert.equal(await monolithic(registry, 'a/b', randomBytes(11 * KIB)), 403);
    assert.equal(await monolithic(registry, 'a', randomBytes(99 * KIB)), 201, 'what was refused took no room');
    assert.equal(await monolithic(registry, 'a/b', randomBytes(2 * KIB)), 403);
    assert.equal(await monolithic(registry, 'a/b', randomBytes(KIB)), 201);
  });

  test('are right when many push at once', async t => {
    const registry = await start(t, { quotas: { team: 50 * KIB } });
    const blobs = Array.from({ length: 40 }, () => randomBytes(5 * KIB));
    const answers = await Promise.all(blobs.map((data, index) => monolithic(registry, `team/r${index % 7}`, data)));
    assert.equal(answers.filter(status => status === 201).length, 10);
    assert.equal(answers.filter(status => status === 403).length, 30);
  });

  test('count what was there before, and what another process adds and deletes', async t => {
    const one = await start(t, {});
    const first = await one.pushBlob('team/a', randomBytes(60 * KIB));
    const other = await start(t, { root: one.root, quotas: { team: 100 * KIB } });
    assert.equal(await monolithic(other, 'team/b', randomBytes(50 * KIB)), 403);
    assert.equal((await one.call('DELETE', `/v2/team/a/blobs/${first}`)).status, 202);
    // Who is refused has all counted again, though not more often than every few seconds.
    t.mock.method(
      performance,
      'now',
      (
        real => () =>
          real.call(performance) + 6_000
      )(performance.now),
    );
    assert.equal(await monolithic(other, 'team/b', randomBytes(50 * KIB)), 201);
  });
});

describe('unfinished uploads', () => {
  const open = async (registry: RegistryFixture, user: string, repository = 'a/b') =>
    registry.call('POST', `/v2/${repository}/blobs/uploads/`, { user });

  test('are bounded for each principal, whatever the repository', async t => {
    const registry = await start(t, { openUploads: 12 });
    const locations: string[] = [];
    for (let count = 0; count < 12; count++) {
      const answer = await open(registry, 'alice', `r${count % 3}`);
      assert.equal(answer.status, 202);
      locations.push(answer.headers.location!);
    }
    const refused = await open(registry, 'alice');
    assert.deepEqual([refused.status, refused.code, refused.headers['retry-after']], [429, 'TOOMANYREQUESTS', '60']);
    assert.equal((await open(registry, 'bob')).status, 202);
    assert.equal((await registry.call('DELETE', locations[0]!, { user: 'alice' })).status, 204);
    assert.equal((await open(registry, 'alice')).status, 202, 'there is room for one again');
    assert.equal((await open(registry, 'alice')).status, 429);
    const data = randomBytes(10);
    const digest = await registry.pushBlob('a/b', data);
    await registry.call('PATCH', locations[1]!, { user: 'alice', body: data });
    assert.equal((await registry.call('PUT', `${locations[1]}?digest=${digest}`, { user: 'alice' })).status, 201);
    assert.equal((await open(registry, 'alice')).status, 202);
  });

  test('are bounded whatever a user cancels or finishes several times at once', async t => {
    const registry = await start(t, { openUploads: 9 });
    const locations: string[] = [];
    for (let count = 0; count < 9; count++) locations.push((await open(registry, 'alice')).headers.location!);
    const digest = digestOf(Buffer.alloc(0));
    const ends = locations.slice(0, 3).flatMap(location => [
      ['DELETE', location],
      ['DELETE', location],
      ['PUT', `${location}?digest=${digest}`],
      ['PUT', `${location}?digest=${digest}`],
    ]);
    await Promise.all(ends.map(([method, path]) => registry.call(method!, path!, { user: 'alice' })));
    const answers: number[] = [];
    for (let count = 0; count < 4; count++) answers.push((await open(registry, 'alice')).status);
    assert.deepEqual(answers, [202, 202, 202, 429]);
  });

  test('that another process has counts too, and no more once it is finished there', async t => {
    const one = await start(t, {});
    const locations: string[] = [];
    for (let count = 0; count < 15; count++) locations.push((await open(one, 'alice')).headers.location!);
    const other = await start(t, { root: one.root, openUploads: 20 });
    const answers: number[] = [];
    for (let count = 0; count < 12; count++) answers.push((await open(other, 'alice')).status);
    // It looks only when it has seen ten itself.
    assert.deepEqual(answers, [...Array(10).fill(202), 429, 429]);
    for (const location of locations) await one.call('DELETE', location, { user: 'alice' });
    t.mock.method(
      performance,
      'now',
      (
        real => () =>
          real.call(performance) + 31_000
      )(performance.now),
    );
    assert.equal((await open(other, 'alice')).status, 202);
  });

  test('are not bounded where nothing says so', async t => {
    const registry = await start(t, { openUploads: 0 });
    for (let count = 0; count < 30; count++) assert.equal((await open(registry, 'alice')).status, 202);
  });
});
