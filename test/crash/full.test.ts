import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fillBlocks, fillInodes } from '../support/full.js';
import { must, requireTools } from '../support/process.js';
import { Random } from '../support/random.js';
import { Refused } from '../support/registry-client.js';
import { Ledger, type RepositoryLedger } from './ledger.js';
import { LONG, Rig, SEED, type Server } from './rig.js';
import { noFindings, verify, verifyFiles } from './verify.js';
import { newImage, pushBlob, pushImage, Worker } from './workload.js';

const WORKERS = 3;
const SHARED = ['shared/one', 'shared/two'];
/** What each worker still tries once the disk is full. */
const TRIES = 25;

const MIB = 1024 * 1024;

const tmpfs = (options: string) => async (rig: Rig, name: string) =>
  rig.mount(name, '-t', 'tmpfs', '-o', options, name);
const image =
  (mkfs: string, size: string, ...options: string[]) =>
  async (rig: Rig, name: string) => {
    const file = join(rig.dir, `${name}.img`);
    await must(['truncate', '-s', size, file]);
    await must([mkfs, '-q', ...options, file]);
    return rig.mount(name, '-o', 'loop', file);
  };

/** How each is made and filled, and how much room the workers begin with. */
const KINDS = [
  ['ext4-blocks', image('mkfs.ext4', '64M', '-b', '4096'), fillBlocks, 10 * MIB],
  ['ext4-inodes', image('mkfs.ext4', '64M', '-b', '4096', '-N', '2000'), fillInodes, 1000],
] as const;
const MORE_KINDS = [
  ['xfs-blocks', image('mkfs.xfs', '300M'), fillBlocks, 20 * MIB],
  ['tmpfs-blocks', tmpfs('size=32m'), fillBlocks, 10 * MIB],
  ['tmpfs-inodes', tmpfs('size=64m,nr_inodes=2000'), fillInodes, 1000],
] as const;

describe('a full disk', () => {
  let rig: Rig;
  before(() => {
    requireTools('mkfs.ext4', 'mkfs.xfs', 'truncate');
    rig = new Rig();
  });
  after(() => rig.close());

  for (const [kind, make, fill, room] of LONG ? [...KINDS, ...MORE_KINDS] : KINDS)
    test(`${kind}: nothing is damaged, pulls and deletes go on, and space that is freed can be used at once`, async t => {
      t.diagnostic(`SEED=${SEED} repeats the choices`);
      const figures = { done: 0, full: 0, ...noFindings() };
      const random = new Random(SEED);
      const folder = await make(rig, kind);
      const root = join(folder, 'data');
      const filler = join(folder, 'filler');
      await fill(filler, room);
      const env = {
        REGISTRY_HEALTH_STORAGEDRIVER_INTERVAL: '100ms',
        REGISTRY_STORAGE_MAINTENANCE_GC_GRACE: '1ms',
      };
      // A minute after its start a server collects by itself, what somebody has pushed just then: until that is wanted, none does.
      const idle = { ...env, REGISTRY_STORAGE_MAINTENANCE_GC_ENABLED: 'false' };
      let server = await rig.start({ root, env: idle });
      const ledger = new Ledger();
      const repository = (name: string) => ledger.repository(name);
      const workers = Array.from(
        { length: WORKERS },
        (_, index) => new Worker(`worker${index}`, random.fork(), repository, SHARED),
      );
      const pulled = () => verifyWithoutUploads(server, ledger);

      /** Works until the disk is full, or so many times beyond that. */
      const work = async (worker: Worker, tries: number) => {
        for (let left = tries; left > 0; )
          try {
            await worker.act(server.client);
            figures.done += 1;
            if (tries > 1) left -= 1;
          } catch (error) {
            assertFull(error);
            figures.full += 1;
            left -= 1;
          }
      };
      const healthIs = (status: RegExp) =>
        server.process.until(async () => {
          const answer = await server.client.must(200, 'GET', '/healthz');
          return status.test(answer.body.toString());
        });

      /** Again and again: a file that the server replaces just then leaves room for one more. */
      const fillUntilFull = () =>
        server.process.until(async () => {
          await fill(filler);
          const answer = await server.client.must(200, 'GET', '/healthz');
          return answer.body.toString().includes('"ok, but the storage is full: nothing can be pushed"');
        });

      // The look at the storage makes one itself, for a moment.
      const withoutTemporaries = () =>
        server.process.until(() => readdirSync(join(root, 'registry-secure/tmp')).length === 0);

      await Promise.all(workers.map(worker => work(worker, 10)));
      await healthIs(/"ok"/);
      await Promise.all(workers.map(worker => work(worker, 1)));
      await fillUntilFull();
      await Promise.all(workers.map(worker => work(worker, TRIES)));
      assert.ok(figures.full > 2 * WORKERS, `${figures.full} refusals`);
      await withoutTemporaries();
      await pulled();

      // Everything that can be deleted is: each delete is done whole, however full the disk is.
      await fill(filler);
      const garbage = [...ledger.repositories.values()].filter(({ name }) => name.startsWith('worker0/'));
      for (const one of garbage) await remove(server, one);
      // It would go on with what is gone.
      workers.shift();
      await pulled();

      // The collector needs no room to make some: as a command first, beside the server.
      await fill(filler);
      await assert.rejects(pushBlob(server.client, repository('late/one'), random.bytes(100_000), 'whole'), assertFull);
      forgetGarbage(ledger);
      const printed = await rig.run(['gc', '--root', root, '--grace', '0s', '--json'], { env });
      assert.match(printed.stderr, /^$|the disk is full, so other collectors cannot be told of this one/);
      assert.equal(printed.status, 0, printed.stderr);
      const report = JSON.parse(printed.stdout) as { freedBytes: number; blobs: { removed: number } };
      assert.ok(report.blobs.removed > 0, printed.stdout);
      await pushImage(server.client, repository('late/two'), 'tag', newImage(random, [5000]), ['whole']);

      // Then by itself, in a server that was started on the full disk.
      for (let n = 0; n < 10; n++)
        await pushBlob(server.client, repository('late/three'), random.bytes(50_000), 'whole');
      forgetGarbage(ledger);
      await fill(filler);
      await rig.stop(server);
      server = await rig.start({ root, env: { ...env, REGISTRY_STORAGE_MAINTENANCE_GC_INTERVAL: '100ms' } });
      await server.process.until(() => /msg="collected garbage" bytes=[1-9]/.test(server.process.stderr));
      await rig.stop(server);
      server = await rig.start({ root, env: idle });
      await pushImage(server.client, repository('late/four'), 'tag', newImage(random, [5000]), ['whole']);

      // Room again, and the server that met the full disk goes on.
      await fillUntilFull();
      await assert.rejects(pushBlob(server.client, repository('late/five'), random.bytes(100_000), 'put'), assertFull);
      await rm(filler, { recursive: true });
      await healthIs(/"ok"/);
      await verify(server.client, ledger.repositories.values(), figures);
      await Promise.all(workers.map(worker => work(worker, 10)));
      await verify(server.client, ledger.repositories.values(), figures);
      const scrubbed = await rig.run(['verify', '--root', root, '--json']);
      assert.equal(scrubbed.status, 0, scrubbed.stdout + scrubbed.stderr);
      await withoutTemporaries();
      await rig.stop(server);
      await verifyFiles(root);
      await rig.unmount(folder);
      t.diagnostic(JSON.stringify({ ...figures, freed: report.freedBytes }));
    });
});

/** The answer to a push that does not fit. */
function assertFull(error: unknown): true {
  assert.ok(error instanceof Refused, String(error));
  const { status, body } = error.answer;
  assert.equal(status, 507, error.message);
  assert.deepEqual(JSON.parse(body.toString()), {
    errors: [{ code: 'UNAVAILABLE', message: 'the storage of the registry is full' }],
  });
  return true;
}

/** Looks at everything but the open uploads, which it would have to go on with. */
async function verifyWithoutUploads(server: Server, ledger: Ledger): Promise<void> {
  const open = [...ledger.repositories.values()].map(one => [one, [...one.uploads]] as const);
  for (const [one] of open) one.uploads.clear();
  await verify(server.client, ledger.repositories.values(), noFindings());
  for (const [one, uploads] of open) for (const upload of uploads) one.uploads.add(upload);
}

/** What no manifest names, the collector may take. */
function forgetGarbage(ledger: Ledger): void {
  for (const { manifests, blobs, references } of ledger.repositories.values()) {
    const there = [...manifests].filter(([, register]) => register.candidates().has(true));
    const needed = new Set(there.flatMap(([digest]) => references.get(digest)!));
    for (const digest of blobs.keys()) if (!needed.has(digest)) blobs.delete(digest);
  }
}

/** Deletes all manifests of a repository, by tag and by digest, and its blobs. */
async function remove(server: Server, repository: RepositoryLedger): Promise<void> {
  const path = `/v2/${repository.name}`;
  for (const [name, tag] of repository.tags) {
    const acknowledge = tag.begin(undefined);
    await server.client.must([202, 404], 'DELETE', `${path}/manifests/${name}`);
    acknowledge();
  }
  for (const [digest, manifest] of repository.manifests) {
    const acknowledge = manifest.begin(false);
    await server.client.must([202, 404], 'DELETE', `${path}/manifests/${digest}`);
    acknowledge();
  }
  for (const [digest, blob] of repository.blobs) {
    const acknowledge = blob.begin(false);
    await server.client.must([202, 404], 'DELETE', `${path}/blobs/${digest}`);
    acknowledge();
  }
}
