import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { parseGlob } from '../../src/glob.js';
import type { Digest } from '../../src/reference.js';
import { type StorageDriver, StorageError } from '../../src/storage/driver.js';
import { type CollectOptions, type CollectorEvent, collect, purgeUploads } from '../../src/store/collector.js';
import { lastCollected, recordCollected, runningCollector, whileAlone } from '../../src/store/collector-lease.js';
import { layout } from '../../src/store/layout.js';
import type { ManifestRecord } from '../../src/store/records.js';
import type { RetentionPolicy } from '../../src/store/retention.js';
import { instead } from '../support/instead.js';
import {
  descriptorOf,
  digestOf,
  indexOf,
  manifestOf,
  OCI_INDEX,
  OCI_MANIFEST,
  type PushedImage,
  RegistryFixture,
} from '../support/registry-fixture.js';

const HOUR = 3_600_000;
const DAY = 24 * HOUR;

describe('the collector', () => {
  let registry: RegistryFixture;
  beforeEach(async () => {
    registry = await RegistryFixture.start();
  });
  afterEach(async () => {
    await registry.stop();
    assert.deepEqual(registry.faults, []);
  });

  /** With no grace, what is there when it begins may go. */
  const run = async (options: Partial<CollectOptions> = {}) => {
    // Times are whole milliseconds: what was written in this one would count as young.
    await setTimeout(2);
    return collect(registry.driver, { grace: 0, ...options });
  };
  const has = async (kind: 'blobs' | 'manifests', repository: string, reference: string) =>
    (await registry.call('GET', `/v2/${repository}/${kind}/${reference}`)).status === 200;
  const isWhole = async (repository: string, reference: string, image: PushedImage) =>
    (await has('manifests', repository, reference)) &&
    (await has('blobs', repository, image.config)) &&
    (await has('blobs', repository, image.layer));
  const remove = async (path: string) => assert.equal((await registry.call('DELETE', `/v2/${path}`)).status, 202);
  const bytesOf = (digest: Digest) => existsSync(join(registry.root, layout.blob(digest)));
  const files = async () =>
    (await readdir(registry.root, { recursive: true, withFileTypes: true }))
      .filter(entry => entry.isFile())
      .map(entry => join(entry.parentPath, entry.name))
      .filter(path => path.startsWith(join(registry.root, 'docker/')))
      .sort();
  const setAge = async (key: string, age: number) => {
    const time = new Date(Date.now() - age);
    await utimes(join(registry.root, key), time, time);
  };

  describe('what goes and what stays', () => {
    test('keeps every image and every untagged manifest, and frees what no manifest names', async () => {
      const image = await registry.pushImage('team/app', 'latest');
      const untagged = await registry.pushImage('team/app', 'moved');
      await registry.pushImage('team/app', 'moved');
      const data = randomBytes(1000);
      const lost = await registry.pushBlob('team/app', data);
      const report = await run();
      assert.ok(await isWhole('team/app', 'latest', image));
      assert.ok(await isWhole('team/app', untagged.digest, untagged));
      assert.ok(!(await has('blobs', 'team/app', lost)));
      assert.ok(!bytesOf(lost));
      assert.deepEqual(report, {
        dryRun: false,
        repositories: 1,
        tags: { kept: 2, removed: 0 },
        manifests: { kept: 3, removed: 0 },
        layers: { kept: 6, removed: 1 },
        blobs: { kept: 9, removed: 1, young: 0 },
        uploads: { kept: 0, removed: 0 },
        freedBytes: 1000,
        problems: [],
      });
    });

    test('leaves alone what is younger than the grace and the age of leases', async () => {
      const lost = await registry.pushBlob('team/app', randomBytes(10));
      const keys = [layout.layerLink('team/app', lost), layout.blob(lost)];
      const at = async (age: number, options: Partial<CollectOptions>) => {
        for (const key of keys) await setAge(key, age);
        return run(options);
      };
      assert.equal((await at(0, { grace: DAY })).blobs.young, 0, 'a young link keeps its bytes, whatever their age');
      assert.equal((await at(29 * HOUR, { grace: DAY })).layers.removed, 0, 'a day, and a quarter for the lease');
      assert.equal((await at(29 * HOUR, { grace: HOUR, servedGrace: 5 * DAY })).layers.removed, 0);
      await setAge(keys[1]!, 0);
      await setAge(keys[0]!, 31 * HOUR);
      const report = await run({ grace: DAY });
      assert.deepEqual([report.layers.removed, report.blobs.removed, report.blobs.young], [1, 0, 1]);
      assert.ok(bytesOf(lost));
      await setAge(keys[1]!, 31 * HOUR);
      assert.equal((await run({ grace: DAY })).blobs.removed, 1);
    });

    test('frees a deleted image, but nothing that another image or repository has', async () => {
      const [config, shared, own] = [Buffer.from('{}'), randomBytes(10), randomBytes(10)];
      for (const blob of [config, shared, own]) await registry.pushBlob('one', blob);
      const [gone, stays] = [manifestOf(config, [shared, own]), manifestOf(config, [shared])];
      for (const data of [gone, stays]) await registry.pushManifest('one', digestOf(data), data);
      const mount = `/v2/two/blobs/uploads/?mount=${digestOf(own)}&from=one`;
      assert.equal((await registry.call('POST', mount)).status, 201);
      await registry.pushBlob('two', config);
      const elsewhere = manifestOf(config, [own]);
      await registry.pushManifest('two', 'latest', elsewhere);
      await remove(`one/manifests/${digestOf(gone)}`);
      const report = await run();
      assert.deepEqual([report.layers.removed, report.blobs.removed], [1, 1], 'the link to the layer, the manifest');
      assert.ok(!(await has('blobs', 'one', digestOf(own))));
      assert.ok(await has('blobs', 'two', digestOf(own)));
      assert.ok(await has('blobs', 'one', digestOf(shared)));
      assert.ok(!bytesOf(digestOf(gone)));
    });

    test('a repository of which nothing is left disappears', async () => {
      const { digest } = await registry.pushImage('team/gone/deep', 'latest');
      await registry.pushImage('team/kept', 'latest');
      await remove(`team/gone/deep/manifests/${digest}`);
      await run();
      const { repositories } = (await registry.call('GET', '/v2/_catalog')).json() as { repositories: string[] };
      assert.deepEqual(repositories, ['team/kept']);
      assert.ok(!existsSync(join(registry.root, layout.repository('team/gone'))));
    });

    test('understands digests of another algorithm', async () => {
      const [config, layer, lost] = [Buffer.from('{}'), randomBytes(10), randomBytes(10)];
      await registry.pushBlob('long', config);
      for (const blob of [layer, lost]) {
        const path = `/v2/long/blobs/uploads/?digest=${digestOf(blob, 'sha512')}`;
        assert.equal((await registry.call('POST', path, { body: blob })).status, 201);
      }
      const data = manifestOf(config, [], {
        layers: [{ ...descriptorOf(layer, 'application/x'), digest: digestOf(layer, 'sha512') }],
      });
      const long = digestOf(data, 'sha512');
      const path = `/v2/long/manifests/${long}?tag=latest`;
      const headers = { 'content-type': OCI_MANIFEST };
      assert.equal((await registry.call('PUT', path, { body: data, headers })).status, 201);
      const report = await run({ untagged: true });
      assert.deepEqual([report.manifests.kept, report.layers.removed, report.blobs.removed], [1, 2, 1]);
      for (const reference of ['latest', long, digestOf(data)])
        assert.ok(await has('manifests', 'long', reference), reference);
      assert.ok(await has('blobs', 'long', digestOf(layer, 'sha512')));
      assert.ok(!(await has('blobs', 'long', digestOf(lost, 'sha512'))));
      await remove('long/manifests/latest');
      assert.equal((await run({ untagged: true })).manifests.removed, 1);
      for (const reference of [long, digestOf(data)])
        assert.ok(!(await has('manifests', 'long', reference)), reference);
      assert.deepEqual(await files(), []);
    });

    test('a manifest that cannot be read keeps all layers of its repository, and is reported', async () => {
      const image = await registry.pushImage('broken', 'latest');
      const other = await registry.pushBlob('other', randomBytes(10));
      for (const content of ['{"layers"', undefined]) {
        const path = join(registry.root, layout.blob(image.digest));
        if (content) await writeFile(path, content);
        else await registry.driver.remove(layout.blob(image.digest));
        const report = await run({ untagged: true });
        assert.deepEqual(report.problems, [
          `broken: the manifest ${image.digest} cannot be read, so all layers of the repository stay`,
        ]);
        assert.ok(await has('blobs', 'broken', image.layer));
      }
      assert.ok(!bytesOf(other), 'other repositories go on');
    });

    test('a tag on nothing, and a link that a crash emptied, keep what they led to', async () => {
      const image = await registry.pushImage('crashed', 'latest');
      await writeFile(join(registry.root, layout.revisionLink('crashed', image.digest)), '');
      await run({ untagged: true });
      assert.equal((await registry.pushManifest('crashed', 'latest', image.data)).status, 201, 'all is still there');
      await registry.driver.remove(layout.revisionLink('crashed', image.digest));
      await run({ untagged: true });
      assert.ok(bytesOf(image.digest));
    });

    test('folders without a repository name count, and what is none of ours stays', async () => {
      const data = randomBytes(10);
      const digest = await registry.pushBlob('real', data);
      const odd = layout.layerLink('UPPER/lost+found', digest);
      await mkdir(join(registry.root, odd, '..'), { recursive: true });
      await writeFile(join(registry.root, odd), digest);
      await writeFile(join(registry.root, layout.repositories, 'README'), 'x');
      await writeFile(join(registry.root, layout.blobs, 'README'), 'x');
      await setAge(odd, 0);
      await run({ grace: HOUR });
      await setAge(layout.layerLink('real', digest), DAY);
      await setAge(layout.blob(digest), DAY);
      await run({ grace: HOUR });
      assert.ok(bytesOf(digest));
      assert.ok(existsSync(join(registry.root, layout.repositories, 'README')));
      assert.ok(existsSync(join(registry.root, layout.blobs, 'README')));
    });
  });

  describe('untagged manifests, where they may go', () => {
    test('go, unless a tag or an index leads to them, or they are young', async () => {
      const [tagged, child, untagged] = [
        await registry.pushImage('app', 'latest'),
        await registry.pushImage('app', 'child'),
        await registry.pushImage('app', 'old'),
      ];
      const [inner, outer] = [indexOf([child.data]), indexOf([indexOf([child.data])])];
      for (const [tag, data] of [
        [digestOf(inner), inner],
        ['multi', outer],
      ] as const)
        assert.equal((await registry.pushManifest('app', tag, data, OCI_INDEX)).status, 201);
      for (const tag of ['child', 'old']) await remove(`app/manifests/${tag}`);
      for (const image of [tagged, child, untagged])
        for (const key of [
          layout.revisionLink('app', image.digest),
          layout.record('app', image.digest),
          layout.layerLink('app', image.layer),
        ])
          await setAge(key, 2 * DAY);
      assert.equal((await run({ grace: 2 * DAY, untagged: true })).manifests.removed, 0);
      const report = await run({ grace: DAY, untagged: true });
      assert.equal(report.manifests.removed, 1);
      assert.ok(await isWhole('app', 'latest', tagged));
      assert.ok(await isWhole('app', child.digest, child));
      assert.ok(await has('manifests', 'app', 'multi'));
      assert.ok(!(await has('manifests', 'app', untagged.digest)));
      assert.ok(!existsSync(join(registry.root, layout.record('app', untagged.digest))), 'its record too');
      assert.ok(!(await has('blobs', 'app', untagged.layer)));
    });

    test('follow their subject', async () => {
      const image = await registry.pushImage('signed', 'latest');
      const subject = descriptorOf(image.data, OCI_MANIFEST);
      const config = Buffer.from('{}');
      const signature = manifestOf(config, [], { subject, artifactType: 'application/x-signature' });
      const ofSignature = manifestOf(config, [], { subject: descriptorOf(signature, OCI_MANIFEST) });
      await registry.pushBlob('signed', config);
      for (const data of [signature, ofSignature]) await registry.pushManifest('signed', digestOf(data), data);
      const referrers = async () => {
        const answer = await registry.call('GET', `/v2/signed/referrers/${image.digest}`);
        return (answer.json() as { manifests: unknown[] }).manifests.length;
      };
      await run({ untagged: true });
      assert.equal(await referrers(), 1);
      for (const data of [signature, ofSignature]) assert.ok(await has('manifests', 'signed', digestOf(data)));
      await remove('signed/manifests/latest');
      assert.equal((await run({ untagged: true })).manifests.removed, 3);
      assert.equal(await referrers(), 0);
      assert.deepEqual(await files(), [], 'no record, no entry, no link, no byte');
    });

    test('stay with all that they lead to, when an index needs them while they are being removed', async () => {
      const child = await registry.pushImage('revived', 'latest');
      const config = Buffer.from('{}');
      await registry.pushBlob('revived', config);
      const signature = manifestOf(config, [], { subject: descriptorOf(child.data, OCI_MANIFEST) });
      await registry.pushManifest('revived', digestOf(signature), signature);
      await remove('revived/manifests/latest');
      for (const file of await files()) await setAge(file.slice(registry.root.length + 1), 2 * DAY);
      let pushed: Promise<unknown> | undefined;
      const removeStale: StorageDriver['removeStale'] = async (key, before, options) => {
        // Nothing of what it leads to is renewed by this.
        if (key === layout.revisionLink('revived', child.digest))
          pushed ??= registry.pushManifest('revived', 'multi', indexOf([child.data]), OCI_INDEX);
        await pushed;
        return registry.driver.removeStale(key, before, options);
      };
      const report = await collect(instead(registry.driver, { removeStale }), { grace: DAY, untagged: true });
      assert.ok(pushed);
      assert.deepEqual([report.manifests.removed, report.layers.removed], [0, 0]);
      assert.ok(await isWhole('revived', child.digest, child));
      assert.ok(await has('manifests', 'revived', digestOf(signature)));
      assert.ok(await has('manifests', 'revived', 'multi'));
    });

    test('lists of caches keep their layers', async () => {
      const layer = randomBytes(10);
      await registry.pushBlob('cache', layer);
      await registry.pushManifest('cache', 'buildcache', indexOf([layer]), OCI_INDEX);
      await run({ untagged: true });
      assert.ok(await has('blobs', 'cache', digestOf(layer)));
    });

    test('stay where only other repositories let them go', async () => {
      const policy: RetentionPolicy = { repositories: [parseGlob('tmp/**')], tags: [parseGlob('**')], untagged: true };
      const images = [];
      for (const repository of ['tmp/a', 'kept/a']) {
        images.push((await registry.pushImage(repository, 'latest')).digest);
        await remove(`${repository}/manifests/latest`);
      }
      assert.equal((await run({ retention: { policies: [policy] } })).manifests.removed, 1);
      assert.ok(await has('manifests', 'kept/a', images[1]!));
    });
  });

  describe('retention policies', () => {
    const policy = (more: Partial<RetentionPolicy>): RetentionPolicy => ({
      repositories: [parseGlob('**')],
      tags: [parseGlob('**')],
      untagged: false,
      ...more,
    });
    const tags = async (repository: string) => {
      const answer = await registry.call('GET', `/v2/${repository}/tags/list`);
      return answer.status === 404 ? undefined : (answer.json() as { tags: string[] }).tags;
    };
    /** Makes the manifest look as if it had been pushed so long ago. */
    const setPushed = async (repository: string, { digest }: PushedImage, age: number) => {
      const path = join(registry.root, layout.record(repository, digest));
      const record = JSON.parse(await readFile(path, 'utf8')) as ManifestRecord;
      const pushedAt = new Date(Date.now() - age).toISOString();
      const taggedAt = Object.fromEntries(Object.keys(record.taggedAt ?? {}).map(tag => [tag, pushedAt]));
      await writeFile(path, JSON.stringify({ ...record, pushedAt, taggedAt }));
    };
    const pushTags = async (repository: string, ages: Record<string, number>) => {
      for (const [tag, age] of Object.entries(ages))
        await setPushed(repository, await registry.pushImage(repository, tag), age);
    };

    test('keep the last tags by the recorded time of their push', async () => {
      await pushTags('app', { v1: 5 * DAY, v2: 1 * DAY, v3: 9 * DAY, dev: 90 * DAY });
      const report = await run({ retention: { policies: [policy({ tags: [parseGlob('v*')], keepLast: 2 })] } });
      assert.deepEqual(await tags('app'), ['dev', 'v1', 'v2']);
      assert.deepEqual(report.tags, { kept: 3, removed: 1 });
      assert.equal(report.manifests.removed, 0, 'the manifest stays, untagged');
      assert.ok(!existsSync(join(registry.root, layout.tag('app', 'v3'))), 'registry:2 must not list it either');
    });

    test('keep what is younger than some days, and what any policy keeps', async () => {
      await pushTags('app', { 'pr-1': 40 * DAY, 'pr-2': 20 * DAY, 'pr-3': 35 * DAY, old: 50 * DAY });
      await run({
        untagged: true,
        retention: {
          policies: [
            policy({ keepDays: 30 }),
            policy({ tags: [parseGlob('pr-*')], keepLast: 2 }),
            policy({ repositories: [parseGlob('other')], keepDays: 1 }),
          ],
        },
      });
      assert.deepEqual(await tags('app'), ['pr-2', 'pr-3']);
    });

    test('go by the time of the file where registry:2 wrote the tag', async () => {
      for (const [tag, age] of Object.entries({ one: 50, two: 3 })) {
        const { digest } = await registry.pushImage('app', tag);
        await registry.driver.remove(layout.record('app', digest));
        await setAge(layout.tagLink('app', tag), age * DAY);
      }
      await run({ retention: { policies: [policy({ keepDays: 30 })] } });
      assert.deepEqual(await tags('app'), ['two']);
    });

    test('go by the push of the tag, though its image is pushed under another one later', async () => {
      const images: PushedImage[] = [];
      for (const [tag, age] of Object.entries({ v1: 9, v2: 5, v3: 3 })) {
        images.push(await registry.pushImage('app', tag));
        await setPushed('app', images.at(-1)!, age * DAY);
      }
      await Promise.all(['stable', 'newest'].map(tag => registry.pushManifest('app', tag, images[0]!.data)));
      await setAge(layout.tagLink('app', 'newest'), 90 * DAY);
      await run({ retention: { policies: [policy({ tags: [parseGlob('v*')], keepLast: 2 })] } });
      assert.deepEqual(await tags('app'), ['newest', 'stable', 'v2', 'v3']);
      await run({ retention: { policies: [policy({ keepDays: 2 })] } });
      assert.deepEqual(await tags('app'), ['newest', 'stable'], 'what is recorded counts, not the time of a file');
    });

    test('make a tag of registry:2 no younger when its file is copied', async () => {
      const image = await registry.pushImage('app', 'old');
      await setPushed('app', image, 50 * DAY);
      const path = join(registry.root, layout.record('app', image.digest));
      const { taggedAt: _, ...record } = JSON.parse(await readFile(path, 'utf8')) as ManifestRecord;
      await writeFile(path, JSON.stringify(record));
      await run({ retention: { policies: [policy({ keepDays: 30 })] } });
      assert.deepEqual(await tags('app'), []);
    });

    test('count no signatures, which go once their image is gone', async () => {
      await pushTags('app', { v1: 9 * DAY, v2: 8 * DAY });
      const { digest } = await registry.pushImage('app', 'v3');
      const sha512 = digestOf((await registry.call('GET', '/v2/app/manifests/v3')).body, 'sha512');
      await registry.call('PUT', `/v2/app/manifests/${sha512}?tag=v4`, {
        body: (await registry.call('GET', '/v2/app/manifests/v3')).body,
      });
      const [one, other] = [digest, sha512].map(name => name.replace(':', '-').slice(0, 7 + 64));
      const followers = [`${one}.sig`, `${one}.att`, one!, `${other}.sig`];
      for (const tag of followers) await setPushed('app', await registry.pushImage('app', tag), 20 * DAY);
      const lost = `sha256-${'0'.repeat(64)}.sig`;
      await setPushed('app', await registry.pushImage('app', lost), 20 * DAY);
      await setPushed('app', await registry.pushImage('app', `sha512-${'0'.repeat(64)}.sig`), 20 * DAY);
      const policies = [policy({ keepLast: 3 })];
      await run({ retention: { policies } });
      assert.deepEqual(await tags('app'), [...followers, 'v2', 'v3', 'v4'].sort());
      await registry.call('DELETE', `/v2/app/manifests/${digest}`);
      await run({ retention: { policies: [policy({ keepLast: 3, keepDays: 30 })] } });
      assert.deepEqual(await tags('app'), [...followers, 'v2'].sort(), 'young enough');
      await run({ retention: { policies } });
      assert.deepEqual(await tags('app'), ['v2']);
    });

    test('never by what the image says of itself', async () => {
      const created = { annotations: { 'org.opencontainers.image.created': '2001-01-01T00:00:00Z' } };
      await registry.pushImage('app', 'latest', created);
      await run({ retention: { policies: [policy({ keepDays: 1 })] } });
      assert.deepEqual(await tags('app'), ['latest']);
    });

    test('leave a tag that is pushed again while they are applied', async () => {
      const images = [await registry.pushImage('app', 'one'), await registry.pushImage('app', 'two')];
      for (const image of images) await setPushed('app', image, 9 * DAY);
      const retention = { policies: [policy({ keepDays: 1 })] };
      let pushed: Promise<unknown> | undefined;
      const onEvent = ({ event }: CollectorEvent) => {
        if (event === 'removed') pushed ??= registry.pushManifest('app', 'two', images[1]!.data);
      };
      // The push may come before or after the look at its tag; in either case it counts.
      await run({ retention, onEvent });
      await pushed;
      assert.deepEqual(await tags('app'), ['two']);
      assert.ok(await isWhole('app', 'two', images[1]!));
    });

    test('that are tried out only tell of the tags that would go', async () => {
      await pushTags('app', { old: 50 * DAY, young: DAY });
      const expired: CollectorEvent[] = [];
      const policies = [policy({ keepDays: 30, untagged: true })];
      const onEvent = (event: CollectorEvent) => event.event === 'expired' && expired.push(event);
      const report = await run({ retention: { policies, dryRun: true }, onEvent });
      assert.deepEqual(expired, [{ event: 'expired', repository: 'app', name: 'old' }]);
      assert.deepEqual(report.tags, { kept: 2, removed: 0 });
      assert.deepEqual(await tags('app'), ['old', 'young']);
    });

    test('do not touch immutable tags', async () => {
      await pushTags('app', { v1: 50 * DAY, dev: 50 * DAY });
      await run({
        retention: { policies: [policy({ keepDays: 1 })] },
        isImmutable: (_repository, tag) => tag.startsWith('v'),
      });
      assert.deepEqual(await tags('app'), ['v1']);
    });
  });

  describe('abandoned uploads', () => {
    const start = async (repository: string) => {
      const { headers } = await registry.call('POST', `/v2/${repository}/blobs/uploads/`);
      const path = headers.location!;
      await registry.call('PATCH', path, { body: randomBytes(500) });
      return { path, uuid: path.split('/').at(-1)! };
    };
    const startedAt = (repository: string, uuid: string, age: number) =>
      writeFile(
        join(registry.root, layout.uploadStartedAt(repository, uuid)),
        new Date(Date.now() - age).toISOString(),
      );
    const uploads = (repository: string) => readdir(join(registry.root, layout.uploads(repository)));

    test('go when they were started long enough ago', async () => {
      const [old, young] = [await start('app'), await start('app')];
      await startedAt('app', old.uuid, 8 * DAY);
      assert.equal((await run()).uploads.removed, 0, 'only when told so');
      const dry = await run({ uploads: { age: 7 * DAY, dryRun: true } });
      assert.deepEqual(dry.uploads, { kept: 1, removed: 1 });
      assert.equal((await registry.call('GET', old.path)).status, 204);
      const report = await run({ uploads: { age: 7 * DAY } });
      assert.deepEqual(report.uploads, { kept: 1, removed: 1 });
      assert.ok(report.freedBytes >= 500);
      assert.equal((await registry.call('GET', old.path)).status, 404);
      assert.equal((await registry.call('GET', young.path)).status, 204);
      assert.deepEqual(await uploads('app'), [young.uuid]);
    });

    test('of registry:2 go too, those that were pushed in one request, and empty folders', async () => {
      await registry.pushImage('app', 'latest');
      const at = (uuid: string, ...path: string[]) => join(registry.root, layout.upload('app', uuid), ...path);
      const [theirs, whole, recent, empty] = [randomUUID(), randomUUID(), randomUUID(), randomUUID()];
      await mkdir(at(theirs, 'hashstates/sha256'), { recursive: true });
      await writeFile(at(theirs, 'startedat'), '2020-01-02T03:04:05Z');
      await writeFile(at(theirs, 'data'), 'x');
      await writeFile(at(theirs, 'hashstates/sha256/0'), 'x');
      for (const uuid of [whole, recent]) {
        await mkdir(at(uuid, 'segments'), { recursive: true });
        await writeFile(at(uuid, 'segments/1'), 'x');
      }
      await setAge(layout.uploadSegment('app', whole, '1'), 8 * DAY);
      await mkdir(at(empty));
      const report = await run({ uploads: { age: 7 * DAY } });
      assert.deepEqual(report.uploads, { kept: 1, removed: 2 });
      assert.deepEqual(await uploads('app'), [recent]);
    });

    test('go from repositories that have nothing else', async () => {
      const { uuid } = await start('only/uploads');
      await startedAt('only/uploads', uuid, 8 * DAY);
      await registry.pushBlob('garbage', randomBytes(10));
      const report = await purgeUploads(registry.driver, { age: 7 * DAY });
      assert.deepEqual([report.uploads.removed, report.blobs.removed], [1, 0]);
      assert.equal((await files()).length, 2, 'nothing else is collected');
      assert.ok(!existsSync(join(registry.root, layout.repository('only'))));
    });
  });

  describe('runs', () => {
    test('a dry run removes nothing, and reports what a real one does', async () => {
      const image = await registry.pushImage('app', 'latest');
      await registry.pushImage('app', 'latest');
      await registry.pushBlob('app', randomBytes(77));
      await mkdir(join(registry.root, layout.repository('empty/_layers/sha256')), { recursive: true });
      const before = await files();
      const dryEvents: CollectorEvent[] = [];
      const dry = await run({ dryRun: true, untagged: true, onEvent: event => dryEvents.push(event) });
      assert.deepEqual(await files(), before);
      assert.ok(existsSync(join(registry.root, layout.repository('empty/_layers/sha256'))));
      const events: CollectorEvent[] = [];
      const real = await run({ untagged: true, onEvent: event => events.push(event) });
      const sorted = (list: readonly CollectorEvent[]) => list.map(event => JSON.stringify(event)).sort();
      assert.deepEqual(sorted(dryEvents), sorted(events));
      assert.deepEqual({ ...real, dryRun: true }, dry);
      assert.equal(real.manifests.removed, 1);
      assert.ok(!bytesOf(image.digest));
      assert.ok(!existsSync(join(registry.root, layout.repository('empty'))));
    });

    test('an error while it looks for what is needed stops it before any bytes are removed', async () => {
      const lost = await registry.pushBlob('a', randomBytes(10));
      await registry.pushImage('b', 'latest');
      const list: StorageDriver['list'] = async (prefix, options) => {
        if (prefix.endsWith('b/_manifests/revisions')) throw new StorageError('unavailable', 'list: EIO');
        return registry.driver.list(prefix, options);
      };
      await assert.rejects(collect(instead(registry.driver, { list }), { grace: 0 }), { name: 'StorageError' });
      assert.ok(bytesOf(lost));
    });

    test('a list that lacks what is there loses nothing', async () => {
      const child = await registry.pushImage('nfs', 'child');
      await registry.pushManifest('nfs', 'multi', indexOf([child.data]), OCI_INDEX);
      await remove('nfs/manifests/child');
      const list: StorageDriver['list'] = async (prefix, options) => {
        const entries = await registry.driver.list(prefix, options);
        return /_manifests\/revisions\/|_layers\//.test(prefix) ? [] : entries;
      };
      await setTimeout(2);
      const report = await collect(instead(registry.driver, { list }), { grace: 0, untagged: true });
      assert.deepEqual([report.blobs.removed, report.problems], [0, []]);
      assert.ok(await isWhole('nfs', child.digest, child));
      assert.ok(await has('manifests', 'nfs', 'multi'));
    });

    test('a run can be stopped', async () => {
      await registry.pushImage('a', 'latest');
      await registry.pushBlob('a', randomBytes(10));
      const before = await files();
      await assert.rejects(run({ signal: AbortSignal.abort() }), { name: 'AbortError' });
      assert.deepEqual(await files(), before);
    });

    test('several at once remove the same as one', async () => {
      const images = [];
      for (let n = 0; n < 5; n++) images.push(await registry.pushImage(`app${n}`, 'latest'));
      for (let n = 0; n < 5; n++) for (let m = 0; m < 5; m++) await registry.pushBlob(`app${n}`, randomBytes(10));
      const reports = await Promise.all([run(), run(), run()]);
      for (const [n, image] of images.entries()) assert.ok(await isWhole(`app${n}`, 'latest', image));
      assert.equal((await run()).layers.removed, 0);
      assert.equal((await files()).filter(file => file.endsWith('/data')).length, 15);
      assert.ok(reports.some(report => report.blobs.removed > 0));
    });

    test('progress shows the report as it grows', async () => {
      for (const repository of ['a', 'b', 'c']) await registry.pushImage(repository, 'latest');
      const seen: number[] = [];
      await run({ onProgress: ({ repositories }) => seen.push(repositories) });
      assert.deepEqual(seen.slice(0, 3), [1, 2, 3]);
    });
  });

  describe('its lease', () => {
    test('lets one run at a time, anywhere, and the next after it, also after a failure', async () => {
      const { driver } = registry;
      let running = 0;
      const tasks = Array.from({ length: 5 }, () =>
        whileAlone(driver, async () => {
          running += 1;
          assert.equal(running, 1);
          assert.match(await runningCollector(driver), /^on .+, since 20/);
          running -= 1;
          return 'done';
        }),
      );
      const results = await Promise.all(tasks);
      assert.ok(results.includes('done'));
      const fail = async () => {
        throw new Error('failed');
      };
      await assert.rejects(whileAlone(driver, fail), /failed/);
      assert.equal(await whileAlone(driver, async () => 'again'), 'again');
    });

    test('of a process that died counts no longer than ten minutes', async () => {
      const { driver } = registry;
      await driver.write(layout.collectorLease, Buffer.from('not even JSON'));
      assert.equal(await whileAlone(driver, async () => 'done'), undefined);
      assert.equal(await runningCollector(driver), 'somewhere');
      await setAge(layout.collectorLease, 11 * 60_000);
      assert.equal(await whileAlone(driver, async () => 'done'), 'done');
      assert.equal(await driver.stat(layout.collectorLease), undefined);
    });

    test('the end of a run is remembered', async () => {
      const { driver } = registry;
      assert.equal(await lastCollected(driver), undefined);
      const before = Date.now();
      await recordCollected(driver, await run());
      assert.ok((await lastCollected(driver))!.getTime() >= before);
      assert.equal((await stat(join(registry.root, layout.collected))).mode & 0o777, 0o600);
      await driver.write(layout.collected, Buffer.from('damaged'));
      assert.equal(await lastCollected(driver), undefined);
    });
  });
});
