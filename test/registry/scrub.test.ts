import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { appendFile, mkdir, readdir, readFile, rm, stat, truncate, utimes, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import type { Digest } from '../../src/reference.js';
import { layout } from '../../src/store/layout.js';
import { type Finding, isOpen, type ScrubReport, scrub } from '../../src/store/scrub.js';
import type { Validation } from '../../src/store/validation.js';
import {
  digestOf,
  indexOf,
  manifestOf,
  OCI_INDEX,
  type PushedImage,
  RegistryFixture,
} from '../support/registry-fixture.js';

const STRICT: Validation = { urls: undefined, indexes: 'all', images: 'all' };

interface Result {
  readonly report: ScrubReport;
  readonly findings: Finding[];
  /** Kind and digest or tag of each finding, in order. */
  readonly kinds: string[];
}

async function run(
  registry: RegistryFixture,
  { repair = false, validation = STRICT, patience = 20 } = {},
): Promise<Result> {
  const findings: Finding[] = [];
  const report = await scrub(registry.driver, registry.store, {
    repair,
    validation,
    patience,
    onFinding: finding => findings.push(finding),
    onProgress: () => {},
  });
  return { report, findings, kinds: findings.map(({ kind }) => kind).sort() };
}

describe('scrub', () => {
  let registry: RegistryFixture;
  let image: PushedImage;
  const file = (key: string) => join(registry.root, key);
  const blobFile = (digest: Digest) => file(layout.blob(digest));
  /** Every layer and the config again, and the manifest under its tag: as docker does where HEAD says 404. */
  const pushAgain = async (content: Record<string, Buffer>, repository = 'a/b', tag = 'v1') => {
    for (const [name, data] of Object.entries(content))
      if (
        name !== 'manifest' &&
        (await registry.call('HEAD', `/v2/${repository}/blobs/${digestOf(data)}`)).status === 404
      )
        await registry.pushBlob(repository, data);
    assert.equal((await registry.pushManifest(repository, tag, content.manifest!)).status, 201);
  };
  const contentOf = async ({ digest, layer, config }: PushedImage) => ({
    manifest: await readFile(blobFile(digest)),
    layer: await readFile(blobFile(layer)),
    config: await readFile(blobFile(config)),
  });

  before(async () => {
    registry = await RegistryFixture.start();
  });
  beforeEach(async () => {
    await rm(file('docker'), { recursive: true, force: true });
    await registry.pushImage('a/b', 'other');
    image = await registry.pushImage('a/b', 'v1', { annotations: { name: 'value' } });
  });
  after(async () => {
    assert.deepEqual(registry.faults, []);
    await registry.stop();
  });

  test('finds nothing in what was pushed, and counts it', async () => {
    const signature = manifestOf(Buffer.from('{}'), [], { subject: { mediaType: 'x', digest: image.digest, size: 1 } });
    await registry.pushBlob('a/b', Buffer.from('{}'));
    await registry.pushManifest('a/b', digestOf(signature, 'sha512'), signature);
    await registry.pushManifest('a/b', 'list', indexOf([image.data]), OCI_INDEX);
    const sha512 = digestOf(image.data, 'sha512');
    await registry.pushManifest('a/b', sha512, image.data);
    const { report, findings } = await run(registry);
    assert.deepEqual(findings, []);
    assert.deepEqual(
      [report.clean, report.blobs, report.repositories, report.manifests, report.tags, report.losses],
      [true, 9, 1, 4, 3, 0],
    );
    assert.equal(report.bytes, report.totalBytes);
  });

  for (const [what, damage] of [
    ['a changed byte', async (path: string) => writeFile(path, randomBytes((await stat(path)).size))],
    ['a lost end', (path: string) => truncate(path, 10)],
    ['no bytes left', (path: string) => truncate(path, 0)],
    ['bytes too many', (path: string) => appendFile(path, 'x')],
  ] as const)
    for (const part of ['layer', 'config', 'digest'] as const)
      test(`${what} in ${part === 'digest' ? 'the manifest' : `the ${part}`}: found, moved away, and pushed again it is mended`, async () => {
        const content = await contentOf(image);
        await damage(blobFile(image[part]));
        const found = await run(registry);
        assert.deepEqual(found.kinds, ['broken-image', 'corrupt-blob']);
        const corrupt = found.findings.find(({ kind }) => kind === 'corrupt-blob')!;
        assert.deepEqual([corrupt.digest, corrupt.key], [image[part], layout.blob(image[part])]);
        const broken = found.findings.find(({ kind }) => kind === 'broken-image')!;
        assert.deepEqual([broken.repository, broken.digest, broken.tags], ['a/b', image.digest, ['v1']]);
        assert.equal(found.report.clean, false);
        assert.deepEqual((await run(registry)).kinds, found.kinds, 'without --repair nothing has changed');

        const damaged = await readFile(blobFile(image[part]));
        const repaired = await run(registry, { repair: true });
        assert.deepEqual(repaired.kinds, found.kinds);
        const moved = repaired.findings.find(({ kind }) => kind === 'corrupt-blob')!;
        assert.equal(isOpen(moved), true, 'it has to be pushed again');
        assert.match(moved.repaired!, /^moved to registry-secure\/quarantine\//);
        assert.deepEqual(await readFile(file(moved.repaired!.replace('moved to ', ''))), damaged);
        await assert.rejects(stat(blobFile(image[part])), { code: 'ENOENT' });
        await pushAgain(content);
        const again = await run(registry);
        assert.deepEqual([again.kinds, again.report.clean], [[], true]);
      });

  test('bytes that are gone: the image is broken, with every tag that leads to it', async () => {
    await registry.pushManifest('a/b', 'list', indexOf([image.data]), OCI_INDEX);
    await rm(dirname(blobFile(image.layer)), { recursive: true });
    const { findings, kinds, report } = await run(registry);
    assert.deepEqual(kinds, ['broken-image', 'orphan']);
    const broken = findings.find(({ kind }) => kind === 'broken-image')!;
    assert.deepEqual(broken.tags, ['list', 'v1']);
    assert.match(broken.message, new RegExp(`lacks ${image.layer}$`));
    assert.equal(report.clean, false);
  });

  test('what a sparse image or index may lack, as configured, is not missed', async () => {
    await registry.pushManifest('a/b', 'list', indexOf([image.data]), OCI_INDEX);
    await rm(dirname(blobFile(image.layer)), { recursive: true });
    await rm(file(layout.revision('a/b', image.digest)), { recursive: true });
    await rm(file(layout.tag('a/b', 'v1')), { recursive: true });
    assert.deepEqual((await run(registry)).kinds, ['broken-image', 'orphan']);
    const sparse: Validation = { urls: undefined, indexes: 'none', images: 'none' };
    assert.deepEqual((await run(registry, { validation: sparse })).kinds, ['orphan']);
  });

  describe('links that hold no digest', () => {
    const tear = (key: string, content = '') => writeFile(file(key), content);

    test('of a tag: it points again at what it pointed at last', async () => {
      const newer = await registry.pushImage('a/b', 'v1');
      await tear(layout.tagLink('a/b', 'v1'));
      assert.deepEqual((await run(registry)).kinds, ['torn-link']);
      const { findings, report } = await run(registry, { repair: true });
      assert.match(findings[0]!.repaired!, new RegExp(`^points at ${newer.digest} again`));
      assert.equal(report.clean, true);
      assert.equal(
        (await registry.call('HEAD', '/v2/a/b/manifests/v1')).headers['docker-content-digest'],
        newer.digest,
      );
      assert.deepEqual((await run(registry)).kinds, []);
    });

    test('of a tag that never pointed at anything: it goes', async () => {
      await mkdir(dirname(file(layout.tagLink('a/b', 'new'))), { recursive: true });
      await tear(layout.tagLink('a/b', 'new'));
      assert.equal((await run(registry, { repair: true })).findings[0]!.repaired, 'removed');
      assert.deepEqual((await run(registry)).kinds, []);
    });

    test('of a manifest: written anew where its bytes are there', async () => {
      await tear(layout.revisionLink('a/b', image.digest), 'sha256:12');
      const found = await run(registry);
      assert.deepEqual(found.kinds, ['torn-link']);
      assert.deepEqual(found.findings[0]!.tags, ['v1']);
      assert.equal((await run(registry, { repair: true })).findings[0]!.repaired, 'written anew');
      assert.deepEqual((await run(registry)).kinds, []);
      assert.equal((await registry.call('GET', '/v2/a/b/manifests/v1')).status, 200);
    });

    test('of a layer: it goes, and the image that needs it is broken until it is pushed again', async () => {
      const content = await contentOf(image);
      await tear(layout.layerLink('a/b', image.layer));
      assert.deepEqual((await run(registry)).kinds, ['broken-image', 'torn-link']);
      const { findings } = await run(registry, { repair: true });
      assert.equal(findings.find(({ kind }) => kind === 'torn-link')!.repaired, 'removed');
      await pushAgain(content);
      assert.deepEqual((await run(registry)).kinds, []);
    });
  });

  test('a tag on a manifest that the repository does not have', async () => {
    await rm(file(layout.revision('a/b', image.digest)), { recursive: true });
    const { findings, kinds } = await run(registry);
    assert.deepEqual(kinds, ['dangling-tag']);
    assert.deepEqual([findings[0]!.tags, findings[0]!.digest], [['v1'], image.digest]);
  });

  test('links to bytes that nothing needs, as the collector of registry:2 leaves them, are mere notes', async () => {
    const lost = await registry.pushBlob('a/b', randomBytes(10));
    await rm(dirname(blobFile(lost)), { recursive: true });
    const { kinds, report } = await run(registry);
    assert.deepEqual([kinds, report.clean, report.notes], [['orphan'], true, 1]);
    assert.equal((await run(registry, { repair: true })).findings[0]!.repaired, 'removed');
    assert.deepEqual((await run(registry)).kinds, []);
  });

  test('notes of manifests: missing ones are made, wrong ones made anew, those of what is gone removed', async () => {
    const record = layout.record('a/b', image.digest);
    const { taggedAt, ...written } = JSON.parse(await readFile(file(record), 'utf8'));
    await rm(file(record));
    const missing = await run(registry);
    assert.deepEqual([missing.kinds, missing.report.clean], [['missing-record'], true]);
    await run(registry, { repair: true });
    const made = JSON.parse(await readFile(file(record), 'utf8'));
    assert.deepEqual({ ...made, pushedAt: '', pushedBy: 'tester' }, { ...written, pushedAt: '' }, 'all but the push');

    for (const wrong of ['', 'null', '{"size":1}', JSON.stringify({ ...written, taggedAt, size: 1 })]) {
      await writeFile(file(record), wrong);
      assert.deepEqual((await run(registry)).kinds, ['wrong-record'], wrong);
      assert.equal((await run(registry, { repair: true })).report.clean, true);
      assert.deepEqual((await run(registry)).kinds, []);
    }
    const mended = JSON.parse(await readFile(file(record), 'utf8'));
    assert.deepEqual([mended.pushedBy, mended.taggedAt], ['tester', taggedAt], 'what could be read stays');

    const gone = layout.record('a/b', digestOf(Buffer.from('gone')));
    await writeFile(file(gone), '{}');
    assert.deepEqual((await run(registry)).kinds, [], 'it may be a push that is under way');
    const long = new Date(Date.now() - 2 * 3_600_000);
    await utimes(file(gone), long, long);
    assert.deepEqual((await run(registry, { repair: true })).kinds, ['orphan']);
    await assert.rejects(stat(file(gone)), { code: 'ENOENT' });
  });

  test('findings of many repositories wait for their second look together', async () => {
    const names = Array.from({ length: 20 }, (_, n) => `many/r${n}`);
    for (const name of names) {
      await registry.pushImage(name, 'v1');
      await rm(file(layout.records(name)), { recursive: true });
    }
    const start = performance.now();
    const { kinds } = await run(registry, { patience: 3_000 });
    assert.deepEqual(kinds, Array(20).fill('missing-record'));
    assert.ok(performance.now() - start < 40_000, 'not one after the other');
  });

  test('entries among the referrers are made, and removed', async () => {
    const signature = manifestOf(Buffer.from('{}'), [], { subject: { mediaType: 'x', digest: image.digest, size: 1 } });
    await registry.pushBlob('a/b', Buffer.from('{}'));
    await registry.pushManifest('a/b', digestOf(signature), signature);
    const entry = file(layout.referrer('a/b', image.digest, digestOf(signature)));
    const before = await readFile(entry, 'utf8');
    await rm(entry);
    assert.deepEqual((await run(registry, { repair: true })).kinds, ['missing-record']);
    assert.equal(await readFile(entry, 'utf8'), before);
    await rm(file(layout.revision('a/b', digestOf(signature))), { recursive: true });
    const long = new Date(Date.now() - 2 * 3_600_000);
    for (const path of [entry, file(layout.record('a/b', digestOf(signature)))]) await utimes(path, long, long);
    assert.deepEqual((await run(registry, { repair: true })).kinds, ['orphan', 'orphan']);
    assert.deepEqual((await run(registry)).kinds, []);
  });

  test('a corrupt blob that is pushed again while it is being moved away stays', async () => {
    const data = await readFile(blobFile(image.layer));
    await writeFile(blobFile(image.layer), randomBytes(data.length));
    const { removeStale } = registry.driver;
    registry.driver.removeStale = async (...args) => {
      registry.driver.removeStale = removeStale;
      await registry.pushBlob('a/b', data);
      return removeStale.apply(registry.driver, args);
    };
    const { kinds } = await run(registry, { repair: true });
    assert.deepEqual(kinds, []);
    assert.deepEqual(await readFile(blobFile(image.layer)), data);
    const quarantine = await readdir(file('registry-secure/quarantine'));
    assert.ok(!quarantine.some(name => name.startsWith(image.layer.slice('sha256:'.length))));
  });

  test('finds nothing while images are pushed, overwritten and deleted', async () => {
    let done = false;
    const busy = async (worker: number) => {
      for (let count = 0; !done; count++) {
        // It may be refused: its layers have just been deleted with the repository.
        const digest = await registry.pushImage(`busy/${worker % 2}`, `t${count % 3}`).then(
          image => image.digest,
          (error: Error) => assert.match(error.message, /400/),
        );
        if (!digest) continue;
        if (count % 3 === 0) await registry.call('DELETE', `/v2/busy/${worker % 2}/manifests/${digest}`);
        if (count % 5 === 0) await registry.call('DELETE', `/api/v1/repositories/busy/${worker % 2}`);
      }
    };
    const workers = [0, 1, 2].map(busy);
    try {
      // A push is done within that, on a busy machine too.
      for (let count = 0; count < 8; count++) {
        const { findings } = await run(registry, { patience: 1_000 });
        assert.deepEqual(findings.filter(isOpen), []);
      }
    } finally {
      done = true;
      await Promise.all(workers);
    }
  });
});
