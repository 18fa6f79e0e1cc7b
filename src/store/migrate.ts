import type { Digest } from '../reference.js';
import type { StorageDriver } from '../storage/driver.js';
import { beginMirror, checkMirror, keysBelow, lastingKeys } from './backup.js';
import { inBatches } from './batches.js';
import { everyRepository } from './collector.js';
import { BrokenImage, type CopyTarget, type Reached } from './copy.js';
import { checkStillMirror, type FolderReport, FolderTarget } from './copy-folder.js';
import { PlanTarget } from './copy-plan.js';
import { layout } from './layout.js';
import { digestsIn, readLink } from './links.js';
import { Store } from './store.js';

export interface MigrateOptions {
  /** How many blobs are on their way at a time. */
  readonly jobs: number;
  /** Whether bytes may be shared, where both places can do that. */
  readonly share: boolean;
  readonly dryRun: boolean;
  /** Told of the bytes that were read, of those that are to be read. */
  readonly onProgress: (done: number, total: number) => void;
  /** Told of each blob, manifest and tag that is left out, with a line that says why. */
  readonly onProblem: (message: string) => void;
}

export interface MigrateReport extends Pick<FolderReport, 'blobs' | 'bytes' | 'tags'> {
  /** Of what is no part of an image: keys and tokens, accounts, immutable tags and the like. */
  readonly state: { written: number; same: number; removed: number };
}

/** Nothing is there, as for a place that a dry run must not make. */
const NOWHERE = {
  stat: async () => undefined,
  get: async () => undefined,
  list: async () => [],
} as unknown as StorageDriver;

/**
 * Makes a place the same as another one that may be served meanwhile: every repository with its manifests, tags and their past,
 * blobs and notes, and tokens, accounts and keys. Left where they are: uploads, leases, temporaries, and bytes that no
 * repository has. All blobs are held against their digests. What is there already is not read again.
 * @param target undefined in a dry run for a place that is not there
 * @throws OperatorError where the place has images that no backup and no migration has put there
 */
export async function migrate(
  source: StorageDriver,
  target: StorageDriver | undefined,
  options: MigrateOptions,
): Promise<MigrateReport> {
  const { dryRun, share, jobs, onProblem } = options;
  const place = target ?? NOWHERE;
  const validation = { urls: undefined, indexes: 'none', images: 'all' } as const;
  const store = new Store(source, { largestManifest: 0, validation, verify: 'off' });
  if (target && !(await checkMirror(target, store)) && !dryRun) await beginMirror(target);

  const plan = new PlanTarget(key => place.stat(key));
  await moveRepositories(source, plan, { jobs, onProblem: () => {} });
  let done = 0;
  const onBytes = (bytes: number) => {
    done += bytes;
    options.onProgress(done, plan.bytes);
  };
  const copy = new FolderTarget(place, { mode: 'mirror', share, dryRun, onBytes });
  await moveRepositories(source, copy, { jobs, onProblem });
  const state = { written: 0, same: 0, removed: 0 };
  await mirror(source, place, [await lastingKeys(source), await lastingKeys(place)], state, dryRun);
  for await (const { name } of everyRepository(source)) {
    const keys = await Promise.all([source, place].map(one => keysBelow(one, layout.immutables(name))));
    await mirror(source, place, keys as [string[], string[]], state, dryRun);
  }
  await copy.prune();
  const { blobs, bytes, tags } = copy.report;
  return { blobs, bytes, tags, state };
}

async function moveRepositories(
  source: StorageDriver,
  target: CopyTarget,
  options: Pick<MigrateOptions, 'jobs' | 'onProblem'>,
): Promise<void> {
  // One that has only uploads is none yet.
  for await (const { name, parts } of everyRepository(source))
    if (parts.some(part => part === '_manifests' || part === '_layers'))
      await new RepositoryMove(source, target, options, name).run();
}

/** All of one repository. */
class RepositoryMove {
  private readonly reached = {
    tags: new Set<string>(),
    past: new Map<string, ReadonlySet<Digest>>(),
    manifests: new Set<Digest>(),
    layers: new Set<Digest>(),
    notes: new Set<string>(),
  } satisfies Reached;
  private whole = true;

  constructor(
    private readonly source: StorageDriver,
    private readonly target: CopyTarget,
    private readonly options: Pick<MigrateOptions, 'jobs' | 'onProblem'>,
    private readonly repository: string,
  ) {}

  async run(): Promise<void> {
    const { source, target, repository, reached } = this;
    // Read from the top down and written from below: what came meanwhile is left to the next time, and nothing is there
    // before what it needs.
    const tags = await this.tags();
    const subjects = await digestsIn(source, layout.subjects(repository));
    const notes = [
      ...(await digestsIn(source, layout.records(repository))).map(digest => layout.record(repository, digest)),
      ...(
        await inBatches(subjects, async subject =>
          (
            await digestsIn(source, layout.referrers(repository, subject))
          ).map(digest => layout.referrer(repository, subject, digest)),
        )
      ).flat(),
    ];
    const manifests = await digestsIn(source, layout.revisions(repository));
    const layers = await digestsIn(source, layout.layers(repository));

    await this.links(layers, digest => layout.layerLink(repository, digest), reached.layers);
    await this.links(manifests, digest => layout.revisionLink(repository, digest), reached.manifests);
    await inBatches(notes, async key => {
      const data = await source.get(key);
      if (!data) return;
      reached.notes.add(key);
      await target.note(key, data);
    });
    await inBatches(tags, tag => this.tag(tag));
    await target.done?.(repository, reached, this.whole);
  }

  private async tags(): Promise<Array<{ tag: string; digest: Digest; past: readonly Digest[] }>> {
    const { source, repository } = this;
    const names = (await source.list(layout.tags(repository))).map(({ name }) => name);
    const tags = await inBatches(names, async tag => {
      const digest = await readLink(source, layout.tagLink(repository, tag));
      return digest ? [{ tag, digest, past: await digestsIn(source, layout.tagIndex(repository, tag)) }] : [];
    });
    return tags.flat();
  }

  /** Links with the bytes that they lead to. Collectors of `registry:2` leave links behind that lead to nothing. */
  private async links(
    digests: readonly Digest[],
    linkOf: (digest: Digest) => string,
    there: Set<Digest>,
  ): Promise<void> {
    const { source, target, repository } = this;
    const move = async (digest: Digest): Promise<void> => {
      const canonical = await readLink(source, linkOf(digest));
      const info = canonical && (await source.stat(layout.blob(canonical)));
      if (!info) return;
      try {
        await target.blob(source, canonical, info.size);
        await target.link(linkOf(digest), canonical);
        there.add(digest);
      } catch (error) {
        if (!(error instanceof BrokenImage)) throw error;
        // Deleted and collected meanwhile.
        if (!(await readLink(source, linkOf(digest)))) return;
        this.problem(`${repository}@${digest} ${error.message}`);
      }
    };
    await inBatches(digests, move, this.options.jobs);
  }

  private async tag({ tag, digest, past }: { tag: string; digest: Digest; past: readonly Digest[] }): Promise<void> {
    const { source, target, repository, reached } = this;
    const key = layout.tagLink(repository, tag);
    if (!reached.manifests.has(digest)) {
      // Where it has moved meanwhile, the next time is for it.
      if ((await readLink(source, key)) === digest) this.problem(`${repository}:${tag} lacks the manifest ${digest}`);
      return;
    }
    reached.tags.add(tag);
    reached.past.set(tag, new Set([...past, digest]));
    for (const before of past) await target.link(layout.tagIndexLink(repository, tag, before), before);
    await target.tag(repository, tag, digest);
  }

  private problem(message: string): void {
    this.whole = false;
    this.options.onProblem(message);
  }
}

/** Makes small objects the same, and removes those that are not in the source any more. */
async function mirror(
  source: StorageDriver,
  target: StorageDriver,
  [here, there]: readonly [readonly string[], readonly string[]],
  counted: MigrateReport['state'],
  dryRun: boolean,
): Promise<void> {
  if (!dryRun) await checkStillMirror(target);
  await inBatches(here, async key => {
    const data = await source.get(key);
    const isSame = data && (await target.get(key))?.equals(data);
    if (!data) return;
    counted[isSame ? 'same' : 'written'] += 1;
    if (!isSame && !dryRun) await target.write(key, data);
  });
  const kept = new Set(here);
  const stale = there.filter(key => !kept.has(key));
  if (!dryRun && stale.length > 0) {
    await checkStillMirror(target);
    await inBatches(stale, key => target.remove(key));
  }
  counted.removed += stale.length;
}
