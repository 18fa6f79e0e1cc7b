import assert from 'node:assert/strict';
import { access, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { FilesystemDriver } from '../../src/storage/filesystem.js';
import { instead } from '../support/instead.js';
import {
  type Answer,
  digestOf,
  indexOf,
  OCI_INDEX,
  OCI_MANIFEST,
  RegistryFixture,
} from '../support/registry-fixture.js';

/** distribution-spec, "Content Management". */
describe('content management', () => {
  let registry: RegistryFixture;
  before(async () => {
    registry = await RegistryFixture.start();
  });
  after(async () => {
    assert.deepEqual(registry.faults, []);
    await registry.stop();
  });
  const status = async (method: string, path: string) => {
    const answer = await registry.call(method, path);
    return answer.code === undefined ? answer.status : [answer.status, answer.code];
  };
  const tagsOf = async (repository: string) =>
    ((await registry.call('GET', `/v2/${repository}/tags/list`)).json() as { tags: string[] }).tags;
  const folder = (repository: string) => join(registry.root, 'docker/registry/v2/repositories', repository);

  describe('deleting tags', () => {
    test('takes the tag alone', async () => {
      const image = await registry.pushImage('tags', 'a');
      await registry.pushManifest('tags', 'b', image.data);
      assert.equal(await status('DELETE', '/v2/tags/manifests/a'), 202);
      assert.equal(await status('HEAD', '/v2/tags/manifests/a'), 404);
      assert.deepEqual(await status('GET', '/v2/tags/manifests/a'), [404, 'MANIFEST_UNKNOWN']);
      assert.equal(await status('HEAD', '/v2/tags/manifests/b'), 200);
      assert.equal(await status('HEAD', `/v2/tags/manifests/${image.digest}`), 200);
      assert.deepEqual(await tagsOf('tags'), ['b']);
      await assert.rejects(access(join(folder('tags'), '_manifests/tags/a')));
    });

    test('of one that is not there is 404', async () => {
      await registry.pushImage('tags', 'b');
      assert.deepEqual(await status('DELETE', '/v2/tags/manifests/absent'), [404, 'MANIFEST_UNKNOWN']);
      assert.deepEqual(await status('DELETE', '/v2/tags/manifests/-bad'), [404, 'MANIFEST_UNKNOWN']);
      assert.deepEqual(await status('DELETE', '/v2/absent/manifests/b'), [404, 'NAME_UNKNOWN']);
    });

    test('takes one whose link was lost', async () => {
      await registry.pushImage('torn', 'a');
      await writeFile(join(folder('torn'), '_manifests/tags/a/current/link'), '');
      assert.deepEqual(await tagsOf('torn'), ['a']);
      assert.equal(await status('DELETE', '/v2/torn/manifests/a'), 202);
      assert.deepEqual(await tagsOf('torn'), []);
    });
  });

  describe('deleting manifests', () => {
    test('takes every tag on it, and no other', async () => {
      const image = await registry.pushImage('manifests', 'a');
      for (let index = 0; index < 40; index++) await registry.pushManifest('manifests', `t${index}`, image.data);
      await registry.pushImage('manifests', 'other');
      assert.equal(await status('DELETE', `/v2/manifests/manifests/${image.digest}`), 202);
      assert.equal(await status('HEAD', `/v2/manifests/manifests/${image.digest}`), 404);
      assert.equal(await status('HEAD', '/v2/manifests/manifests/t7'), 404);
      assert.deepEqual(await tagsOf('manifests'), ['other']);
      assert.equal(await status('HEAD', `/v2/manifests/blobs/${image.layer}`), 200);
      assert.deepEqual(await status('DELETE', `/v2/manifests/manifests/${image.digest}`), [404, 'MANIFEST_UNKNOWN']);
      assert.deepEqual(await status('DELETE', `/v2/absent/manifests/${image.digest}`), [404, 'NAME_UNKNOWN']);
      assert.deepEqual(await status('DELETE', '/v2/manifests/manifests/sha256:abc'), [400, 'DIGEST_INVALID']);
    });

    test('leaves it to other repositories', async () => {
      const image = await registry.pushImage('here', 'a');
      for (const digest of [image.layer, image.config])
        await registry.call('POST', `/v2/there/blobs/uploads/?mount=${digest}&from=here`);
      await registry.pushManifest('there', 'a', image.data);
      assert.equal(await status('DELETE', `/v2/here/manifests/${image.digest}`), 202);
      assert.equal(await status('GET', '/v2/there/manifests/a'), 200);
      assert.equal(await status('GET', `/v2/here/manifests/${image.digest}`).then(String), '404,MANIFEST_UNKNOWN');
    });

    test('by one digest takes it under the other', async () => {
      for (const asked of ['sha256', 'sha512'] as const) {
        const { data } = await registry.pushImage('algorithms', 'a');
        const other = digestOf(data, 'sha512');
        assert.equal((await registry.pushManifest('algorithms', `${other}?tag=b`, data)).status, 201);
        assert.equal(await status('DELETE', `/v2/algorithms/manifests/${digestOf(data, asked)}`), 202);
        for (const reference of [digestOf(data), other, 'a', 'b'])
          assert.equal(await status('HEAD', `/v2/algorithms/manifests/${reference}`), 404, reference);
        assert.deepEqual(await tagsOf('algorithms'), []);
      }
    });

    test('leaves nothing of it but its bytes', async () => {
      const image = await registry.pushImage('traces', 'a');
      const data = indexOf([image.data], { subject: { mediaType: OCI_MANIFEST, digest: image.digest, size: 1 } });
      await registry.pushManifest('traces', digestOf(data), data, OCI_INDEX);
      for (const digest of [digestOf(data), image.digest])
        assert.equal(await status('DELETE', `/v2/traces/manifests/${digest}`), 202);
      const files = await readdir(folder('traces'), { recursive: true, withFileTypes: true });
      const left = files.filter(file => file.isFile() && !file.parentPath.includes('_layers'));
      assert.deepEqual(left, []);
    });

    test('pushed again it is there again', async () => {
      const image = await registry.pushImage('again', 'a');
      assert.equal(await status('DELETE', `/v2/again/manifests/${image.digest}`), 202);
      assert.equal((await registry.pushManifest('again', 'a', image.data)).status, 201);
      assert.equal(await status('GET', '/v2/again/manifests/a'), 200);
    });

    test('beside pushes of the same, in this process or another, leaves no tag that points at nothing', async () => {
      const image = await registry.pushImage('race', 'a');
      const another = await RegistryFixture.start({ root: registry.root });
      try {
        for (let round = 0; round < 40; round++) {
          const deleter = round % 2 ? registry : another;
          await Promise.all([
            registry.pushManifest('race', 'a', image.data),
            deleter.call('DELETE', `/v2/race/manifests/${image.digest}`),
            registry.pushManifest('race', `${digestOf(image.data, 'sha512')}?tag=b`, image.data),
          ]);
          for (const tag of await tagsOf('race')) assert.equal(await status('GET', `/v2/race/manifests/${tag}`), 200);
        }
      } finally {
        await another.stop({ keep: true });
      }
    });
  });

  describe('beside a push in another process', () => {
    /** Deletes in a process of its own, and does the push just before the delete removes something at such a key. */
    const race = async (path: string, at: RegExp, push: () => Promise<Answer>) => {
      const driver = new FilesystemDriver({ root: registry.root });
      let pushed: Promise<Answer> | undefined;
      const first = async (key: string) => {
        if (!at.test(key)) return;
        pushed ??= push();
        assert.equal((await pushed).status, 201);
      };
      const another = await RegistryFixture.start({
        driver: instead(driver, {
          remove: async key => first(key).then(() => driver.remove(key)),
          removeAll: async (key, options) => first(key).then(() => driver.removeAll(key, options)),
          removeStale: async (key, ...rest) => first(key).then(() => driver.removeStale(key, ...rest)),
        }),
      });
      try {
        assert.ok((await another.call('DELETE', path)).status < 300);
        assert.ok(pushed, 'the push was done');
      } finally {
        await another.stop();
      }
    };
    const referrersOf = async (repository: string, digest: string) =>
      ((await registry.call('GET', `/v2/${repository}/referrers/${digest}`)).json() as { manifests: unknown[] })
        .manifests.length;
    const signed = async (repository: string) => {
      const { digest } = await registry.pushImage(repository, 'image');
      const data = indexOf([], { subject: { mediaType: OCI_MANIFEST, digest, size: 1 } });
      const push = (reference: string) => registry.pushManifest(repository, reference, data, OCI_INDEX);
      await push('signature');
      return { digest, data, push };
    };

    test('a manifest is there with all that is known of it', async () => {
      const { digest, data, push } = await signed('noted');
      const path = `/v2/noted/manifests/${digestOf(data)}`;
      await race(path, /_referrers/, () => push('again'));
      assert.equal(await status('HEAD', path), 200);
      assert.equal(await referrersOf('noted', digest), 1);
      assert.deepEqual(await tagsOf('noted'), ['again', 'image']);
    });

    test('a manifest goes under the digest too that the push gave it', async () => {
      const { digest, data, push } = await signed('named');
      const other = digestOf(data, 'sha512');
      await race(`/v2/named/manifests/${digestOf(data)}`, /revisions.sha256/, () => push(`${other}?tag=again`));
      for (const method of ['GET', 'HEAD'])
        for (const reference of [digestOf(data), other, 'again'])
          assert.equal((await registry.call(method, `/v2/named/manifests/${reference}`)).status, 404);
      assert.equal(await referrersOf('named', digest), 0);
      assert.deepEqual(await tagsOf('named'), ['image']);
    });

    test('a tag that the push points elsewhere stays', async () => {
      const { digest } = await registry.pushImage('moved', 'latest');
      const next = await registry.pushImage('moved', 'next');
      // The time of a file may be that of the last tick of the kernel's clock.
      await pause(20);
      const push = () => registry.pushManifest('moved', 'latest', next.data);
      await race(`/v2/moved/manifests/${digest}`, /tags.latest/, push);
      assert.equal(
        (await registry.call('HEAD', '/v2/moved/manifests/latest')).headers['docker-content-digest'],
        next.digest,
      );
      assert.equal(await status('HEAD', `/v2/moved/manifests/${digest}`), 404);
    });

    test('nothing is left of a repository that would be there in part', async () => {
      const { digest, data, push } = await signed('partly');
      await race('/api/v1/repositories/partly', /_(records|referrers)$/, () => push('again'));
      assert.equal((await registry.call('HEAD', `/v2/partly/manifests/${digestOf(data)}`)).status, 404);
      assert.equal(await referrersOf('partly', digest), 0);
      assert.deepEqual(await status('GET', '/v2/partly/tags/list'), [404, 'NAME_UNKNOWN']);
    });
  });

  describe('deleting blobs', () => {
    test('takes it from this repository only, and pushing it again gives it back', async () => {
      const data = Buffer.from('a blob of two');
      const digest = await registry.pushBlob('one', data);
      await registry.pushBlob('two', data);
      assert.equal(await status('DELETE', `/v2/one/blobs/${digest}`), 202);
      assert.equal(await status('HEAD', `/v2/one/blobs/${digest}`), 404);
      assert.deepEqual(await status('GET', `/v2/one/blobs/${digest}`), [404, 'BLOB_UNKNOWN']);
      assert.deepEqual(await status('DELETE', `/v2/one/blobs/${digest}`), [404, 'BLOB_UNKNOWN']);
      assert.equal(await status('GET', `/v2/two/blobs/${digest}`), 200);
      await registry.pushBlob('one', data);
      assert.equal(await status('HEAD', `/v2/one/blobs/${digest}`), 200);
    });

    test('by one digest takes it under the other', async () => {
      for (const asked of ['sha256', 'sha512'] as const) {
        const data = Buffer.from(`by ${asked}`);
        const long = digestOf(data, 'sha512');
        await registry.pushBlob('algorithms', data);
        await registry.call('POST', `/v2/algorithms/blobs/uploads/?digest=${long}`, { body: data });
        assert.equal(await status('HEAD', `/v2/algorithms/blobs/${long}`), 200);
        assert.equal(await status('DELETE', `/v2/algorithms/blobs/${digestOf(data, asked)}`), 202);
        assert.equal(await status('HEAD', `/v2/algorithms/blobs/${digestOf(data)}`), 404);
        assert.equal(await status('HEAD', `/v2/algorithms/blobs/${long}`), 404);
      }
    });

    test('of a bad digest is 400', async () => {
      for (const digest of ['sha256:abc', 'md5:d41d8cd98f00b204e9800998ecf8427e', 'latest'])
        assert.deepEqual(await status('DELETE', `/v2/one/blobs/${digest}`), [400, 'DIGEST_INVALID']);
    });

    test('one that is gone stays gone although another repository is read', async () => {
      const data = Buffer.from('cached elsewhere');
      const digest = await registry.pushBlob('x', data);
      await registry.pushBlob('y', data);
      assert.equal(await status('DELETE', `/v2/x/blobs/${digest}`), 202);
      assert.equal(await status('GET', `/v2/y/blobs/${digest}`), 200);
      assert.equal(await status('HEAD', `/v2/x/blobs/${digest}`), 404);
    });
  });

  describe('deleting a repository', () => {
    test('takes all that it holds, and none of those below its name', async () => {
      const image = await registry.pushImage('whole', 'a');
      await registry.pushImage('whole/below', 'a');
      const upload = await registry.call('POST', '/v2/whole/blobs/uploads/');
      assert.equal(await status('DELETE', '/api/v1/repositories/whole'), 204);
      assert.deepEqual(await status('GET', '/v2/whole/tags/list'), [404, 'NAME_UNKNOWN']);
      assert.deepEqual(await status('GET', '/v2/whole/manifests/a'), [404, 'NAME_UNKNOWN']);
      assert.equal(await status('HEAD', `/v2/whole/manifests/${image.digest}`), 404);
      assert.equal(await status('HEAD', `/v2/whole/blobs/${image.layer}`), 404);
      assert.equal(await status('HEAD', upload.headers.location!), 404);
      assert.equal(await status('GET', '/v2/whole/below/manifests/a'), 200);
      const { repositories } = (await registry.call('GET', '/v2/_catalog?n=1000')).json() as { repositories: string[] };
      assert.ok(!repositories.includes('whole') && repositories.includes('whole/below'));
      assert.deepEqual(await readdir(folder('whole')), ['below']);
      assert.deepEqual(await status('DELETE', '/api/v1/repositories/whole'), [404, 'NAME_UNKNOWN']);
    });

    test('ends a push of a blob that is under way, as any other upload', async () => {
      await registry.pushImage('busy', 'v1');
      const data = Buffer.alloc(200_000, 'x');
      const uploads = join(folder('busy'), '_uploads');
      const body = async function* () {
        yield data.subarray(0, 100_000);
        while (!(await readdir(uploads, { recursive: true }).catch(() => [])).some(path => path.includes('segments/')))
          await pause(10);
        assert.equal(await status('DELETE', '/api/v1/repositories/busy'), 204);
        yield data.subarray(100_000);
      };
      const path = `/v2/busy/blobs/uploads/?digest=${digestOf(data)}`;
      const answer = await registry.call('POST', path, { body: body(), headers: { 'content-length': data.length } });
      assert.deepEqual([answer.status, answer.code], [404, 'BLOB_UPLOAD_UNKNOWN']);
      assert.deepEqual(await status('GET', '/v2/busy/tags/list'), [404, 'NAME_UNKNOWN']);
    });

    test('of a bad name is 400, and nothing else is served there', async () => {
      for (const name of ['', 'A', '_x', 'a//b', '../a', '%2e%2e', 'a%2fb'])
        assert.deepEqual(await status('DELETE', `/api/v1/repositories/${name}`), [400, 'NAME_INVALID'], name);
      const answer = await registry.call('PUT', '/api/v1/repositories/two');
      assert.deepEqual([answer.status, answer.code, answer.headers.allow], [405, 'UNSUPPORTED', 'GET, HEAD, DELETE']);
      assert.deepEqual(await status('DELETE', '/api/v1/repositories'), [405, 'UNSUPPORTED']);
      assert.deepEqual(await status('DELETE', '/api/v1/repository/two'), [404, 'UNSUPPORTED']);
    });
  });

  test('where deletes are off, every one of them is 405 and deletes nothing (CVE-2026-41888)', async () => {
    const { root } = registry;
    const image = await registry.pushImage('kept', 'a');
    const off = await RegistryFixture.start({ root, deletes: false });
    try {
      for (const path of [
        '/v2/kept/manifests/a',
        '/v2/kept/manifests/absent',
        `/v2/kept/manifests/${image.digest}`,
        `/v2/kept/blobs/${image.layer}`,
      ]) {
        const answer = await off.call('DELETE', path);
        assert.deepEqual([answer.status, answer.code], [405, 'UNSUPPORTED'], path);
        assert.match(answer.headers.allow!, /^GET, HEAD(, PUT)?$/);
      }
      const answer = await off.call('DELETE', '/api/v1/repositories/kept');
      assert.deepEqual([answer.status, answer.code], [405, 'UNSUPPORTED']);
      assert.equal((await off.call('GET', '/v2/kept/manifests/a')).status, 200);
      assert.equal((await off.call('GET', `/v2/kept/blobs/${image.layer}`)).status, 200);
      const upload = await off.call('POST', '/v2/kept/blobs/uploads/');
      assert.equal(
        (await off.call('DELETE', upload.headers.location!)).status,
        204,
        'to cancel an upload is no delete',
      );
    } finally {
      await off.stop({ keep: true });
    }
  });

  test('a repository whose bytes are lost can still be deleted from', async () => {
    const image = await registry.pushImage('lost', 'a');
    const hex = image.digest.slice(7);
    await rm(join(registry.root, 'docker/registry/v2/blobs/sha256', hex.slice(0, 2), hex), { recursive: true });
    assert.equal(await status('DELETE', `/v2/lost/manifests/${image.digest}`), 202);
    assert.deepEqual(await tagsOf('lost'), []);
  });
});
