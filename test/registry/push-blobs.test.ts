import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import http from 'node:http';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { layout } from '../../src/store/layout.js';
import type { Reread } from '../../src/store/uploads.js';
import { type Answer, digestOf, RegistryFixture } from '../support/registry-fixture.js';

/** distribution-spec, "Pushing blobs", and the protocol's table of hostile input as far as it concerns uploads. */
describe('pushing blobs', () => {
  let registry: RegistryFixture;
  before(async () => {
    registry = await RegistryFixture.start();
  });
  after(async () => {
    assert.deepEqual(registry.faults, []);
    await registry.stop();
  });

  const start = async (repository: string, query = ''): Promise<string> => {
    const answer = await registry.call('POST', `/v2/${repository}/blobs/uploads/${query}`);
    assert.equal(answer.status, 202);
    return answer.headers.location!;
  };
  const put = (location: string, digest: string, body?: Buffer): Promise<Answer> =>
    registry.call('PUT', `${location}?digest=${encodeURIComponent(digest)}`, { body: body ?? Buffer.alloc(0) });
  const uploadsLeft = async (repository: string): Promise<string[]> =>
    readdir(join(registry.root, 'docker/registry/v2/repositories', repository, '_uploads')).catch(() => []);
  const assertBlob = async (repository: string, data: Buffer): Promise<void> => {
    const answer = await registry.call('GET', `/v2/${repository}/blobs/${digestOf(data)}`);
    assert.equal(answer.status, 200);
    assert.ok(answer.body.equals(data));
    assert.deepEqual(await uploadsLeft(repository), []);
  };

  test('POST then PUT', async () => {
    const data = randomBytes(10_000);
    const begun = await registry.call('POST', '/v2/post-put/blobs/uploads/');
    assert.equal(begun.status, 202);
    assert.equal(begun.headers.range, '0-0');
    assert.equal(begun.headers['content-length'], '0');
    assert.equal(begun.headers.location, `/v2/post-put/blobs/uploads/${begun.headers['docker-upload-uuid']}`);
    const done = await put(begun.headers.location!, digestOf(data), data);
    assert.equal(done.status, 201);
    assert.equal(done.headers.location, `/v2/post-put/blobs/${digestOf(data)}`);
    assert.equal(done.headers['docker-content-digest'], digestOf(data));
    await assertBlob('post-put', data);
  });

  test('a single POST', async () => {
    const data = randomBytes(10_000);
    await registry.pushBlob('single', data);
    await assertBlob('single', data);
  });

  test('as docker does: one PATCH, chunked, without Content-Range, then an empty PUT', async () => {
    const pieces = Array.from({ length: 40 }, () => randomBytes(50_001));
    const location = await start('docker');
    async function* body() {
      yield* pieces;
    }
    const patched = await registry.call('PATCH', location, { body: body() });
    assert.equal(patched.status, 202);
    assert.equal(patched.headers.range, `0-${40 * 50_001 - 1}`);
    const data = Buffer.concat(pieces);
    assert.equal((await put(location, digestOf(data))).status, 201);
    await assertBlob('docker', data);
  });

  test('a chunk that is still under way when the upload is finished or cancelled is refused, and leaves nothing', async () => {
    const data = randomBytes(1000);
    const ends: ReadonlyArray<readonly [(location: string) => Promise<Answer>, number]> = [
      [location => put(location, digestOf(data)), 201],
      [location => registry.call('DELETE', location), 204],
    ];
    for (const [end, status] of ends) {
      const location = await start('late');
      await registry.call('PATCH', location, { body: data });
      const late = await registry.call('PATCH', location, {
        body: (async function* () {
          yield Buffer.from('first');
          assert.equal((await end(location)).status, status);
          yield Buffer.from('second');
        })(),
      });
      assert.deepEqual([late.status, late.code], [404, 'BLOB_UPLOAD_UNKNOWN']);
      assert.deepEqual(await uploadsLeft('late'), []);
    }
    await assertBlob('late', data);
  });

  test('in chunks with Content-Range, the last one in the PUT', async () => {
    const data = randomBytes(3000);
    const location = await start('chunks');
    for (const from of [0, 1000]) {
      const headers = { 'content-range': `${from}-${from + 999}`, 'content-type': 'application/octet-stream' };
      const patched = await registry.call('PATCH', location, { body: data.subarray(from, from + 1000), headers });
      assert.equal(patched.status, 202);
      assert.equal(patched.headers.range, `0-${from + 999}`);
      const status = await registry.call('GET', location);
      assert.equal(status.status, 204);
      assert.equal(status.headers.range, `0-${from + 999}`);
      assert.equal(status.headers.location, location);
    }
    const done = await registry.call('PUT', `${location}?digest=${digestOf(data)}`, {
      body: data.subarray(2000),
      headers: { 'content-range': '2000-2999' },
    });
    assert.equal(done.status, 201);
    await assertBlob('chunks', data);
  });

  test('an empty blob', async () => {
    const location = await start('empty');
    assert.equal((await registry.call('GET', location)).headers.range, '0-0');
    assert.equal((await put(location, digestOf(Buffer.alloc(0)))).status, 201);
    await assertBlob('empty', Buffer.alloc(0));
  });

  test('SHA-512, announced or not', async () => {
    for (const query of ['', '?digest-algorithm=sha512']) {
      const data = randomBytes(2000);
      const digest = digestOf(data, 'sha512');
      const location = await start('sha512', query);
      await registry.call('PATCH', location, { body: data });
      const done = await put(location, digest);
      assert.equal(done.status, 201);
      assert.equal(done.headers['docker-content-digest'], digest);
      for (const name of [digest, digestOf(data)])
        assert.ok((await registry.call('GET', `/v2/sha512/blobs/${name}`)).body.equals(data));
      const link = join(
        registry.root,
        'docker/registry/v2/repositories/sha512/_layers',
        digest.replace(':', '/'),
        'link',
      );
      assert.equal(await readFile(link, 'utf8'), digestOf(data));
    }
    assert.equal((await registry.call('POST', '/v2/sha512/blobs/uploads/?digest-algorithm=md5')).status, 400);
  });

  test('five ways to push a wrong digest: each 400, and nothing becomes visible', async () => {
    const data = randomBytes(500);
    const wrong = digestOf(randomBytes(5));
    const single = await registry.call('POST', `/v2/wrong/blobs/uploads/?digest=${wrong}`, { body: data });
    const closing = await put(await start('wrong'), wrong, data);
    const patched = await start('wrong');
    await registry.call('PATCH', patched, { body: data });
    const afterPatch = await put(patched, wrong);
    const sha512 = await put(await start('wrong'), digestOf(randomBytes(5), 'sha512'), data);
    const malformed = await put(await start('wrong'), 'sha256:nothing', data);
    for (const answer of [single, closing, afterPatch, sha512, malformed]) {
      assert.equal(answer.status, 400);
      assert.equal(answer.code, 'DIGEST_INVALID');
    }
    for (const digest of [wrong, digestOf(data)])
      assert.equal((await registry.call('HEAD', `/v2/wrong/blobs/${digest}`)).status, 404);
  });

  test('an out-of-order chunk is 416 and says where to go on; the upload lives', async () => {
    const data = randomBytes(2000);
    const location = await start('order');
    const early = await registry.call('PATCH', location, {
      body: data.subarray(1000),
      headers: { 'content-range': '1000-1999' },
    });
    assert.equal(early.status, 416);
    assert.equal(early.headers.location, location);
    assert.equal(early.headers.range, '0-0');
    await registry.call('PATCH', location, { body: data.subarray(0, 1000), headers: { 'content-range': '0-999' } });
    const again = await registry.call('PATCH', location, {
      body: data.subarray(0, 1000),
      headers: { 'content-range': '0-999' },
    });
    assert.equal(again.status, 416);
    assert.equal(again.headers.range, '0-999');
    const closing = await registry.call('PUT', `${location}?digest=${digestOf(data)}`, {
      body: data.subarray(1000),
      headers: { 'content-range': '5-1004' },
    });
    assert.equal(closing.status, 416);
    assert.equal((await registry.call('GET', location)).status, 204);
    assert.equal((await put(location, digestOf(data), data.subarray(1000))).status, 201);
    await assertBlob('order', data);
  });

  test('a length that Content-Range and the body disagree on', async () => {
    const location = await start('length');
    const declared = await registry.call('PATCH', location, {
      body: randomBytes(10),
      headers: { 'content-range': '0-99' },
    });
    assert.equal(declared.code, 'SIZE_INVALID');
    async function* short() {
      yield randomBytes(10);
    }
    const chunked = await registry.call('PATCH', location, { body: short(), headers: { 'content-range': '0-99' } });
    assert.equal(chunked.code, 'SIZE_INVALID');
    for (const range of ['x', '5-1', '-5', 'bytes 0-'])
      assert.equal(
        (await registry.call('PATCH', location, { body: 'x', headers: { 'content-range': range } })).status,
        400,
      );
    assert.equal((await registry.call('GET', location)).headers.range, '0-0');
  });

  test('of concurrent PATCHes one wins, the others are 416, and no bytes interleave', async () => {
    const location = await start('race');
    const bodies = Array.from({ length: 8 }, (_, index) => Buffer.alloc(200_000, index + 1));
    const answers = await Promise.all(
      bodies.map(body => registry.call('PATCH', location, { body, headers: { 'content-range': '0-199999' } })),
    );
    assert.deepEqual(answers.map(({ status }) => status).sort(), [202, ...Array(7).fill(416)]);
    const winner = bodies[answers.findIndex(({ status }) => status === 202)]!;
    assert.equal((await put(location, digestOf(winner))).status, 201);
    await assertBlob('race', winner);
  });

  test('of concurrent PUTs of the same upload none fails with a fault', async () => {
    const data = randomBytes(100_000);
    const location = await start('race-put');
    await registry.call('PATCH', location, { body: data });
    const answers = await Promise.all(Array.from({ length: 6 }, () => put(location, digestOf(data))));
    assert.ok(answers.some(({ status }) => status === 201));
    assert.deepEqual(
      answers.filter(({ status }) => status !== 201 && status !== 404),
      [],
    );
    await assertBlob('race-put', data);
  });

  test('an upload whose blob could not be linked ends with the next PUT', async () => {
    for (const chunks of [[10_000], [10_000, 5_000]]) {
      const repository = `unlinked-${chunks.length}`;
      const data = randomBytes(chunks.reduce((sum, size) => sum + size));
      const location = await start(repository);
      let sent = 0;
      for (const size of chunks) {
        const body = data.subarray(sent, sent + size);
        assert.equal((await registry.call('PATCH', location, { body })).status, 202);
        sent += size;
      }
      // A file in the place of the folder of links.
      const layers = join(registry.root, 'docker/registry/v2/repositories', repository, '_layers');
      await writeFile(layers, '');
      assert.equal((await put(location, digestOf(data))).status, 503);
      assert.equal(registry.faults.splice(0).length, 1);
      assert.equal((await registry.call('GET', location)).headers.range, `0-${data.length - 1}`);
      await rm(layers);
      assert.equal((await put(location, digestOf(data))).status, 201);
      await assertBlob(repository, data);
    }
  });

  test('a client that leaves mid-chunk keeps what arrived, at its true offset', async () => {
    const data = randomBytes(400_000);
    const location = await start('gone');
    const request = http.request({
      port: registry.port,
      method: 'PATCH',
      path: location,
      headers: { 'content-length': data.length },
    });
    request.on('error', () => {});
    await new Promise(resolve => request.write(data.subarray(0, 300_000), resolve));
    // The server has the bytes once the folder of segments holds them.
    const folder = join(registry.root, 'docker/registry/v2/repositories/gone/_uploads', location.split('/').at(-1)!);
    await until(async () => (await readdir(join(folder, 'segments')).catch(() => [])).length > 0);
    request.destroy();
    await until(async () => (await readdir(folder)).includes('00000001'));
    const range = (await registry.call('GET', location)).headers.range!;
    const offset = Number(range.split('-')[1]) + 1;
    assert.ok(offset > 1 && offset <= 300_000, range);
    const rest = data.subarray(offset);
    const headers = { 'content-range': `${offset}-${data.length - 1}` };
    assert.equal((await registry.call('PATCH', location, { body: rest, headers })).status, 202);
    assert.equal((await put(location, digestOf(data))).status, 201);
    await assertBlob('gone', data);
  });

  test('any process goes on with any upload, though the running hash is another’s', async () => {
    const data = randomBytes(30_000);
    const location = await start('two-processes');
    const other = await RegistryFixture.start({ root: registry.root });
    try {
      const parts = [data.subarray(0, 10_000), data.subarray(10_000, 20_000), data.subarray(20_000)];
      for (const [index, body] of parts.entries())
        assert.equal((await (index === 1 ? other : registry).call('PATCH', location, { body })).status, 202);
      assert.equal((await other.call('PUT', `${location}?digest=${digestOf(data)}`)).status, 201);
    } finally {
      await other.stop({ keep: true });
    }
    await assertBlob('two-processes', data);
  });

  test('little stands in the step, more in a segment, both in one upload, and any process joins them', async () => {
    const other = await RegistryFixture.start({ root: registry.root });
    try {
      const small = 64 * 1024;
      for (const sizes of [[1], [small], [small + 1], [1, 1, 1], [small, small + 1], [small + 1, 1], [5, 200_000, 7]]) {
        const data = randomBytes(sizes.reduce((sum, size) => sum + size, 0));
        const location = await start('sizes');
        let at = 0;
        for (const [index, size] of sizes.entries()) {
          const body = data.subarray(at, at + size);
          at += size;
          const answer = await (index % 2 ? other : registry).call('PATCH', location, { body });
          assert.deepEqual([answer.status, answer.headers.range], [202, `0-${at - 1}`], `${sizes}`);
        }
        const folder = join(registry.root, layout.upload('sizes', location.split('/').at(-1)!));
        const names = await readdir(folder);
        const steps = names.filter(name => /^\d{8}$/.test(name));
        assert.equal(steps.length, sizes.length + 1);
        const hasSegments = sizes.length > 1 || sizes[0]! > small;
        assert.deepEqual(
          [names.includes('segments'), names.includes('startedat')],
          [hasSegments, hasSegments],
          `${sizes}`,
        );
        assert.equal((await other.call('PUT', `${location}?digest=${digestOf(data)}`)).status, 201, `${sizes}`);
        await assertBlob('sizes', data);
        await assert.rejects(readdir(folder), { code: 'ENOENT' });
      }
    } finally {
      await other.stop({ keep: true });
    }
  });

  test('after a power cut a step that has its bytes is as good as ever, and one that lost some ends the upload', async () => {
    for (const [lost, status] of [
      [0, 201],
      [1, 404],
      [1000, 404],
    ] as const) {
      const data = randomBytes(1000);
      const location = await start('after-a-cut');
      assert.equal((await registry.call('PATCH', location, { body: data })).status, 202);
      const step = join(registry.root, layout.uploadStep('after-a-cut', location.split('/').at(-1)!, 1));
      const written = await readFile(step);
      const end = written.indexOf('\n');
      const head = { ...JSON.parse(written.toString('utf8', 0, end)), epoch: 'the boot before' };
      assert.equal(written.length - end - 1, data.length);
      await writeFile(step, Buffer.concat([Buffer.from(`${JSON.stringify(head)}\n`), data.subarray(lost)]));
      const after = await RegistryFixture.start({ root: registry.root });
      try {
        assert.equal((await after.call('PUT', `${location}?digest=${digestOf(data)}`)).status, status, `${lost}`);
      } finally {
        await after.stop({ keep: true });
      }
    }
  });

  test('an upload whose segment the storage does not show is not given up: 503, and all is well when it is back', async () => {
    const other = await RegistryFixture.start({ root: registry.root });
    try {
      const data = randomBytes(100_000);
      const location = await start('late');
      assert.equal((await registry.call('PATCH', location, { body: data })).status, 202);
      const folder = join(registry.root, layout.upload('late', location.split('/').at(-1)!));
      await rename(join(folder, 'segments'), join(folder, 'away'));
      const closing = `${location}?digest=${digestOf(data)}`;
      assert.equal((await other.call('PUT', closing)).status, 503);
      assert.equal((await registry.call('GET', location)).status, 204);
      await rename(join(folder, 'away'), join(folder, 'segments'));
      assert.equal((await other.call('PUT', closing)).status, 201);
      await assertBlob('late', data);
    } finally {
      await other.stop({ keep: true });
    }
  });

  test('an upload belongs to its repository and its user', async () => {
    const location = await start('mine');
    const uuid = location.split('/').at(-1)!;
    for (const method of ['GET', 'PATCH', 'PUT', 'DELETE']) {
      const query = method === 'PUT' ? `?digest=${digestOf(Buffer.alloc(0))}` : '';
      const elsewhere = await registry.call(method, `/v2/other/blobs/uploads/${uuid}${query}`);
      const foreign = await registry.call(method, `${location}${query}`, { user: 'mallory' });
      for (const answer of [elsewhere, foreign]) {
        assert.equal(answer.status, 404);
        if (method !== 'HEAD') assert.equal(answer.code, 'BLOB_UPLOAD_UNKNOWN');
      }
    }
    assert.equal((await registry.call('GET', location)).status, 204);
  });

  test('unknown, cancelled and finished uploads are 404', async () => {
    const data = randomBytes(10);
    const cancelled = await start('ended');
    assert.equal((await registry.call('DELETE', cancelled)).status, 204);
    const finished = await start('ended');
    assert.equal((await put(finished, digestOf(data), data)).status, 201);
    const never = '/v2/ended/blobs/uploads/00000000-0000-4000-8000-000000000000';
    for (const location of [cancelled, finished, never, '/v2/ended/blobs/uploads/..', '/v2/ended/blobs/uploads/%2e%2e'])
      for (const [method, query] of [
        ['GET', ''],
        ['PATCH', ''],
        ['PUT', `?digest=${digestOf(data)}`],
        ['DELETE', ''],
      ] as const)
        assert.equal((await registry.call(method, location + query)).status, 404, `${method} ${location}`);
    await assertBlob('ended', data);
  });

  test('bytes are read again only where no process that has seen all of them knows the digest, and that is counted', async () => {
    const told: Reread[] = [];
    const { root } = registry;
    const other = await RegistryFixture.start({ root, onReread: reread => told.push(reread) });
    const pieces = [randomBytes(70_000), randomBytes(30_000)] as const;
    const data = Buffer.concat(pieces);
    const finish = async (first: RegistryFixture, repository: string, digest: string) => {
      const { location } = (await first.call('POST', `/v2/${repository}/blobs/uploads/`)).headers;
      await first.call('PATCH', location!, { body: pieces[0] });
      await other.call('PATCH', location!, { body: pieces[1] });
      assert.equal((await other.call('PUT', `${location}?digest=${digest}`)).status, 201);
    };
    try {
      await finish(other, 'reread/no', digestOf(data));
      await finish(other, 'reread/late', digestOf(data, 'sha512'));
      await finish(registry, 'reread/dead', digestOf(data));
      assert.deepEqual(told, [
        { repository: 'reread/late', bytes: 100_000, times: 1 },
        { repository: 'reread/dead', bytes: 100_000, times: 2 },
      ]);
    } finally {
      await other.stop({ keep: true });
    }
  });

  test('mounting without a source: from any repository that the caller may read', async () => {
    for (const algorithm of ['sha256', 'sha512'] as const) {
      const data = Buffer.from(`found by ${algorithm}`);
      const digest = digestOf(data, algorithm);
      await registry.call('POST', `/v2/some/source/blobs/uploads/?digest=${digest}`, { body: data });
      const mounted = await registry.call('POST', `/v2/target/${algorithm}/blobs/uploads/?mount=${digest}`);
      assert.equal(mounted.status, 201);
      assert.equal(mounted.headers.location, `/v2/target/${algorithm}/blobs/${digest}`);
      const got = await registry.call('GET', mounted.headers.location!);
      assert.ok(got.body.equals(data));
    }
    const secret = await registry.pushBlob('hidden/source', Buffer.from('not to be found'));
    const absent = digestOf(Buffer.from('nowhere at all'));
    for (const digest of [secret, absent]) {
      const answer = await registry.call('POST', `/v2/wanting/blobs/uploads/?mount=${digest}`);
      assert.equal(answer.status, 202);
      assert.match(answer.headers.location!, /^\/v2\/wanting\/blobs\/uploads\/[0-9a-f-]+$/);
    }
  });

  test('mounting without a source, in a process that has never met the blob', async () => {
    const digest = await registry.pushBlob('some/other', Buffer.from('written by another process'));
    const fresh = await RegistryFixture.start({ root: registry.root });
    try {
      assert.equal((await fresh.call('POST', `/v2/target/blobs/uploads/?mount=${digest}`)).status, 201);
    } finally {
      await fresh.stop({ keep: true });
    }
  });

  test('mounting', async () => {
    const data = randomBytes(1000);
    const digest = await registry.pushBlob('source', data);
    const secret = await registry.pushBlob('hidden/source', randomBytes(1000));
    const mounted = await registry.call('POST', `/v2/target/blobs/uploads/?mount=${digest}&from=source`);
    assert.equal(mounted.status, 201);
    assert.equal(mounted.headers.location, `/v2/target/blobs/${digest}`);
    assert.equal(mounted.headers['docker-content-digest'], digest);
    await assertBlob('target', data);
    const absent = await registry.call(
      'POST',
      `/v2/target/blobs/uploads/?mount=${digestOf(Buffer.from('x'))}&from=source`,
    );
    const hidden = await registry.call('POST', `/v2/target/blobs/uploads/?mount=${secret}&from=hidden/source`);
    const nowhere = await registry.call('POST', `/v2/target/blobs/uploads/?mount=${digest}&from=../source`);
    for (const answer of [absent, hidden, nowhere]) {
      assert.equal(answer.status, 202);
      assert.match(answer.headers.location!, /^\/v2\/target\/blobs\/uploads\//);
    }
    assert.equal((await registry.call('HEAD', `/v2/target/blobs/${secret}`)).status, 404);
    assert.equal((await registry.call('POST', '/v2/target/blobs/uploads/?mount=nothing&from=source')).status, 400);
  });

  test('a blob of one repository does not show in another', async () => {
    const digest = await registry.pushBlob('one', randomBytes(100));
    for (const method of ['GET', 'HEAD'])
      assert.equal((await registry.call(method, `/v2/two/blobs/${digest}`)).status, 404);
  });

  test('the stored tree is that of registry:2', async () => {
    const data = randomBytes(64);
    const hex = (await registry.pushBlob('layout/of', data)).slice('sha256:'.length);
    const root = join(registry.root, 'docker/registry/v2');
    assert.ok((await readFile(join(root, 'blobs/sha256', hex.slice(0, 2), hex, 'data'))).equals(data));
    const link = join(root, 'repositories/layout/of/_layers/sha256', hex, 'link');
    assert.equal(await readFile(link, 'utf8'), `sha256:${hex}`);
    assert.equal((await stat(link)).size, 71);
  });
});

async function until(condition: () => Promise<boolean>): Promise<void> {
  for (const deadline = Date.now() + 60_000; !(await condition()); await new Promise(resolve => setTimeout(resolve, 5)))
    if (Date.now() > deadline) throw new Error('the awaited state did not come');
}
