import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import type { Digest } from '../../src/reference.js';
import type { Corruption, VerifyMode } from '../../src/store/integrity.js';
import { layout } from '../../src/store/layout.js';
import { digestOf, manifestOf, RegistryFixture } from '../support/registry-fixture.js';

const MIB = 1024 * 1024;

for (const mode of ['daily', 'always', 'off'] as const satisfies VerifyMode[])
  describe(`pulling what the disk has changed, storage.verify: ${mode}`, () => {
    const found: Corruption[] = [];
    let registry: RegistryFixture;
    before(async () => {
      registry = await RegistryFixture.start({ verify: mode, onCorruption: corruption => found.push(corruption) });
    });
    afterEach(() => {
      found.length = 0;
    });
    after(async () => {
      assert.deepEqual(registry.faults, []);
      await registry.stop();
    });

    const fileOf = (digest: Digest) => join(registry.root, layout.blob(digest));

    /** Changes one byte in place, as a disk does: the times stay as they were. */
    function rot(digest: Digest, at: number): void {
      const { atime, mtime } = statSync(fileOf(digest));
      const data = readFileSync(fileOf(digest));
      data[at]! ^= 1;
      writeFileSync(fileOf(digest), data);
      utimesSync(fileOf(digest), atime, mtime);
    }

    /** What arrives of a body, and whether it arrived whole. */
    async function pull(digest: Digest, headers = {}): Promise<{ status: number; bytes: number; whole: boolean }> {
      const request = http.get({ port: registry.port, path: `/v2/a/b/blobs/${digest}`, headers, agent: false });
      const response = await new Promise<http.IncomingMessage>((resolve, reject) =>
        request.once('response', resolve).once('error', reject),
      );
      let bytes = 0;
      const status = response.statusCode!;
      try {
        for await (const chunk of response) bytes += (chunk as Buffer).length;
        return { status, bytes, whole: response.complete };
      } catch {
        return { status, bytes, whole: false };
      }
    }

    const sizes = { empty: 0, small: 100, 'one chunk': MIB, 'many chunks': 5 * MIB + 17 };
    for (const [name, size] of Object.entries(sizes))
      test(`an intact blob (${name}) arrives whole, again and again`, async () => {
        const data = randomBytes(size);
        const digest = await registry.pushBlob('a/b', data);
        for (let times = 0; times < 3; times++) {
          const { status, body } = await registry.call('GET', `/v2/a/b/blobs/${digest}`);
          assert.equal(status, 200);
          assert.ok(body.equals(data));
        }
        assert.deepEqual(found, []);
      });

    if (mode === 'off')
      test('a corrupt blob is delivered, as was asked for', async () => {
        const digest = await registry.pushBlob('a/b', randomBytes(1000));
        rot(digest, 500);
        assert.deepEqual(await pull(digest), { status: 200, bytes: 1000, whole: true });
        assert.deepEqual(found, []);
      });
    else {
      for (const at of [0, 2 * MIB, 5 * MIB + 16])
        test(`a corrupt blob (byte ${at}) is never delivered whole, then absent until it is pushed again`, async () => {
          const data = randomBytes(5 * MIB + 17);
          const digest = await registry.pushBlob('a/b', data);
          await registry.pushBlob('a/other', data);
          rot(digest, at);
          const cut = await pull(digest);
          assert.deepEqual([cut.status, cut.whole], [200, false]);
          assert.ok(cut.bytes < data.length, `${cut.bytes} bytes`);
          assert.deepEqual(
            found.map(({ digest, key }) => ({ digest, key })),
            [{ digest, key: layout.blob(digest) }],
          );
          assert.equal(found[0]!.actual, digestOf(readFileSync(fileOf(digest))));
          for (const [method, headers] of [['GET'], ['HEAD'], ['GET', { range: 'bytes=0-9' }]] as const) {
            const answer = await registry.call(method, `/v2/a/other/blobs/${digest}`, { ...(headers && { headers }) });
            assert.equal(answer.status, 404, `${method} after it was found`);
          }
          const mount = await registry.call('POST', `/v2/c/blobs/uploads/?mount=${digest}&from=a/b`);
          assert.equal(mount.status, 202, 'no mount of it');
          const image = manifestOf(data, []);
          assert.equal((await registry.pushManifest('a/b', 'latest', image)).code, 'MANIFEST_BLOB_UNKNOWN');

          await registry.pushBlob('a/b', data);
          assert.equal((await registry.call('HEAD', `/v2/a/other/blobs/${digest}`)).status, 200);
          assert.deepEqual(await pull(digest), { status: 200, bytes: data.length, whole: true });
          assert.equal((await registry.pushManifest('a/b', 'latest', image)).status, 201);
        });

      test('a corrupt blob of one chunk is answered as absent at once', async () => {
        const digest = await registry.pushBlob('a/b', randomBytes(1000));
        rot(digest, 999);
        assert.equal((await pull(digest)).status, 404);
        assert.equal(found.length, 1);
      });

      test('a blob that lost its end, or all of it, is not delivered', async () => {
        for (const left of [2 * MIB, 0]) {
          const digest = await registry.pushBlob('a/b', randomBytes(3 * MIB));
          writeFileSync(fileOf(digest), readFileSync(fileOf(digest)).subarray(0, left));
          const { status, whole } = await pull(digest);
          assert.ok(status === 404 || !whole);
        }
        assert.equal(found.length, 2);
      });

      for (const [range, expected] of [
        ['bytes=0-', 206],
        ['bytes=0-99,100-', 200],
      ] as const)
        test(`${range}, which covers all of it, is a full read`, async () => {
          const data = randomBytes(3 * MIB);
          const digest = await registry.pushBlob('a/b', data);
          assert.deepEqual(await pull(digest, { range }), { status: expected, bytes: data.length, whole: true });
          await registry.pushBlob('a/b', data);
          rot(digest, 5);
          const { status, whole } = await pull(digest, { range });
          assert.deepEqual([status, whole, found.length], [expected, false, 1]);
        });

      test('a pull that is given up says nothing about a blob', async () => {
        const digest = await registry.pushBlob('a/b', randomBytes(20 * MIB));
        await new Promise<void>((resolve, reject) => {
          const request = http.get({ port: registry.port, path: `/v2/a/b/blobs/${digest}`, agent: false }, response => {
            response.once('data', () => response.destroy());
            response.once('close', resolve);
          });
          request.once('error', reject);
        });
        assert.deepEqual((await pull(digest)).whole, true);
        assert.deepEqual(found, []);
      });
    }

    test('a corrupt manifest is answered as absent, and pushed again it is there', async () => {
      const { data, digest } = await registry.pushImage('a/b', 'v1');
      rot(digest, 20);
      for (const reference of ['v1', digest]) {
        const answer = await registry.call('GET', `/v2/a/b/manifests/${reference}`);
        assert.deepEqual([answer.status, answer.code], [404, 'MANIFEST_UNKNOWN']);
      }
      assert.deepEqual(found[0]?.digest, digest);
      assert.equal((await registry.pushManifest('a/b', 'v1', data)).status, 201);
      assert.ok((await registry.call('GET', '/v2/a/b/manifests/v1')).body.equals(data));
    });
  });
