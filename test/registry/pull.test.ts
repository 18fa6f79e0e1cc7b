import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import type { Digest } from '../../src/reference.js';
import { layout } from '../../src/store/layout.js';
import { SETTLED } from '../storage/places.js';
import { digestOf, OCI_MANIFEST, RegistryFixture } from '../support/registry-fixture.js';

/** distribution-spec, "Pulling", with ranges as RFC 9110 §14 has them. */
describe('pulling', () => {
  let registry: RegistryFixture;
  const data = randomBytes(3000);
  let digest: Digest;
  before(async () => {
    registry = await RegistryFixture.start();
    digest = await registry.pushBlob('a/b', data);
  });
  after(async () => {
    assert.deepEqual(registry.faults, []);
    await registry.stop();
  });
  const range = (value: string, headers = {}) =>
    registry.call('GET', `/v2/a/b/blobs/${digest}`, { headers: { range: value, ...headers } });

  test('a blob, whole', async () => {
    const got = await registry.call('GET', `/v2/a/b/blobs/${digest}`);
    assert.equal(got.status, 200);
    assert.ok(got.body.equals(data));
    const head = await registry.call('HEAD', `/v2/a/b/blobs/${digest}`);
    assert.equal(head.status, 200);
    for (const { headers } of [got, head]) {
      assert.equal(headers['content-length'], '3000');
      assert.equal(headers['docker-content-digest'], digest);
      assert.equal(headers['accept-ranges'], 'bytes');
      assert.equal(headers.etag, `"${digest}"`);
    }
    const encoded = await registry.call('GET', `/v2/a/b/blobs/${encodeURIComponent(digest)}`);
    assert.ok(encoded.body.equals(data), 'a client may encode the colon');
  });

  test('one range', async () => {
    for (const [header, start, end] of [
      ['bytes=500-1499', 500, 1499],
      ['bytes=500-', 500, 2999],
      ['bytes=-500', 2500, 2999],
      ['bytes=2000-5000', 2000, 2999],
    ] as const) {
      const { status, headers, body } = await range(header);
      assert.equal(status, 206);
      assert.equal(headers['content-range'], `bytes ${start}-${end}/3000`);
      assert.equal(headers['content-length'], String(end - start + 1));
      assert.ok(body.equals(data.subarray(start, end + 1)), header);
    }
  });

  test('no satisfiable range is 416 with the size', async () => {
    for (const header of ['bytes=500-0', 'bytes=5000-10000', 'bytes=-0', 'bytes=3000-']) {
      const answer = await range(header);
      assert.equal(answer.status, 416, header);
      assert.equal(answer.headers['content-range'], 'bytes */3000');
    }
  });

  test('ascending ranges come as multipart/byteranges, up to 1,024', async () => {
    const ranges = Array.from({ length: 1024 }, (_, index) => [index * 2, index * 2] as const);
    for (const wanted of [
      [
        [0, 9],
        [100, 199],
        [2990, 2999],
      ] as const,
      ranges,
    ]) {
      const { status, headers, body } = await range(
        `bytes=${wanted.map(([start, end]) => `${start}-${end}`).join(',')}`,
      );
      assert.equal(status, 206);
      assert.equal(headers['content-length'], String(body.length));
      const boundary = /^multipart\/byteranges; boundary=(.+)$/.exec(headers['content-type']!)![1]!;
      const parts = body.toString('latin1').split(`\r\n--${boundary}`).slice(1);
      assert.equal(parts.pop(), '--\r\n');
      for (const [index, [start, end]] of wanted.entries()) {
        const [head, content] = splitOnce(parts[index]!, '\r\n\r\n');
        assert.match(head, new RegExp(`Content-Range: bytes ${start}-${end}/3000$`, 'm'));
        assert.equal(content, data.subarray(start, end + 1).toString('latin1'));
      }
    }
  });

  test('overlapping, descending, too many or malformed ranges get the whole', async () => {
    const many = `bytes=${Array.from({ length: 1025 }, (_, index) => `${index * 2}-${index * 2}`).join(',')}`;
    for (const header of ['bytes=0-9,5-20', 'bytes=100-199,0-9', 'lines=1-2', 'bytes=x', many]) {
      const { status, body } = await range(header);
      assert.equal(status, 200, header);
      assert.equal(body.length, 3000);
    }
  });

  test('conditions', async () => {
    const etag = `"${digest}"`;
    const unchanged = await registry.call('GET', `/v2/a/b/blobs/${digest}`, {
      headers: { 'if-none-match': `"x", W/${etag}` },
    });
    assert.equal(unchanged.status, 304);
    assert.equal(unchanged.body.length, 0);
    assert.equal((await range('bytes=0-1', { 'if-range': etag })).status, 206);
    assert.equal((await range('bytes=0-1', { 'if-range': '"other"' })).status, 200);
  });

  test('what is not there', async () => {
    const absent = digestOf(Buffer.from('absent'));
    const blob = await registry.call('GET', `/v2/a/b/blobs/${absent}`);
    assert.deepEqual([blob.status, blob.code], [404, 'BLOB_UNKNOWN']);
    const head = await registry.call('HEAD', `/v2/a/b/blobs/${absent}`);
    assert.deepEqual([head.status, head.body.length], [404, 0]);
    for (const reference of ['absent', absent, 'a'.repeat(129), '%C3%A4']) {
      const manifest = await registry.call('GET', `/v2/a/b/manifests/${reference}`);
      assert.deepEqual([manifest.status, manifest.code], [404, 'MANIFEST_UNKNOWN'], reference);
    }
  });

  test('a manifest by tag and by digest: the bytes, the type and the digest that were pushed', async () => {
    const image = await registry.pushImage('a/b', 'v1');
    for (const reference of ['v1', image.digest]) {
      const got = await registry.call('GET', `/v2/a/b/manifests/${reference}`, { headers: { accept: 'text/plain' } });
      const head = await registry.call('HEAD', `/v2/a/b/manifests/${reference}`);
      assert.ok(got.body.equals(image.data));
      assert.equal(head.body.length, 0);
      for (const { status, headers } of [got, head]) {
        assert.equal(status, 200);
        assert.equal(headers['content-type'], OCI_MANIFEST);
        assert.equal(headers['content-length'], String(image.data.length));
        assert.equal(headers['docker-content-digest'], image.digest);
        assert.equal(headers.etag, `"${image.digest}"`);
      }
      const again = await registry.call('GET', `/v2/a/b/manifests/${reference}`, {
        headers: { 'if-none-match': got.headers.etag },
      });
      assert.equal(again.status, 304);
    }
  });

  test('a link that another process removed hides the manifest at once, though its bytes are cached', async () => {
    const image = await registry.pushImage('a/b', 'gone');
    assert.equal((await registry.call('GET', '/v2/a/b/manifests/gone')).status, 200);
    const hex = image.digest.slice('sha256:'.length);
    await unlink(join(registry.root, 'docker/registry/v2/repositories/a/b/_manifests/revisions/sha256', hex, 'link'));
    for (const reference of ['gone', image.digest])
      assert.equal((await registry.call('GET', `/v2/a/b/manifests/${reference}`)).status, 404);
  });

  test('an empty link file, as a crash of registry:2 leaves it, is no link', async () => {
    const image = await registry.pushImage('a/b', 'torn');
    await writeFile(join(registry.root, 'docker/registry/v2/repositories/a/b/_manifests/tags/torn/current/link'), '');
    assert.equal((await registry.call('GET', '/v2/a/b/manifests/torn')).status, 404);
    assert.equal((await registry.pushManifest('a/b', 'torn', image.data)).status, 201);
    assert.equal((await registry.call('GET', '/v2/a/b/manifests/torn')).status, 200);
  });
});

function splitOnce(text: string, separator: string): [string, string] {
  const at = text.indexOf(separator);
  return [text.slice(0, at), text.slice(at + separator.length)];
}

test('what one process has deleted or moved, another that knows it well answers so at once', async t => {
  const one = await RegistryFixture.start();
  const other = await RegistryFixture.start({ root: one.root });
  t.after(async () => {
    assert.deepEqual([one.faults, other.faults], [[], []]);
    await other.stop({ keep: true });
    await one.stop();
  });
  const get = (reference: string) => other.call('GET', `/v2/a/b/manifests/${reference}`);
  /** Has the other one look at it until it need not read it any more. */
  const known = async (tag: string, digest: Digest) => {
    await pause(2 * SETTLED);
    for (let look = 0; look < 4; look++) assert.equal((await get(tag)).headers['docker-content-digest'], digest);
    assert.equal(other.store.manifests.recall('a/b', { tag })?.digest, digest);
    assert.equal(other.store.manifests.recall('a/b', { digest })?.digest, digest);
  };
  const [first, second] = [await one.pushImage('a/b', 'moved'), await one.pushImage('a/b', 'kept')];
  await known('moved', first.digest);
  await one.pushManifest('a/b', 'moved', second.data);
  assert.equal((await get('moved')).headers['docker-content-digest'], second.digest, 'moved');
  await known('moved', second.digest);
  await one.call('DELETE', '/v2/a/b/manifests/moved');
  assert.equal((await get('moved')).status, 404, 'a tag that was deleted');
  await known('kept', second.digest);
  await one.call('DELETE', `/v2/a/b/manifests/${second.digest}`);
  assert.equal((await get('kept')).status, 404, 'a tag whose manifest was deleted');
  assert.equal((await get(second.digest)).status, 404, 'the manifest itself');

  const third = await one.pushImage('a/b', 'left');
  await known('left', third.digest);
  await unlink(join(one.root, layout.revisionLink('a/b', third.digest)));
  assert.equal((await get(third.digest)).status, 404);
  const deadline = performance.now() + 30_000;
  while ((await get('left')).status !== 404) {
    assert.ok(performance.now() < deadline, 'a tag that points at nothing is found out');
    await pause(50);
  }
});
