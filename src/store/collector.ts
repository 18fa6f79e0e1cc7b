import type { StorageDriver } from '../storage/driver.js';
import { type AbandonedUploads, removeAbandonedUploads } from './abandoned.js';
import { inBatches } from './batches.js';
import { DigestSet } from './digest-set.js';
import { layout } from './layout.js';
import { leaseAge } from './leases.js';
import type { RetentionPolicy } from './retention.js';
import { sweepRepository } from './sweep.js';

export interface CollectOptions {
  /** For how long what nothing refers to is left alone, in milliseconds. */
  readonly grace: number;
  /** The grace that whoever serves this store renews leases by, where it is another one. */
  readonly servedGrace?: number;
  /** Whether to remove nothing, and only report what would go. */
  readonly dryRun?: boolean;
  /** Whether manifests go that no tag leads to; else only where a policy says so. */
  readonly untagged?: boolean;
  readonly retention?: { readonly policies: readonly RetentionPolicy[]; readonly dryRun?: boolean };
  /** Tags that no policy may take. */
  readonly isImmutable?: (repository: string, tag: string) => boolean;
  /** Uploads that go because they were never finished; none unless told. */
  readonly uploads?: AbandonedUploads;
  readonly onEvent?: (event: CollectorEvent) => void;
  /** Told of the report as it grows. */
  readonly onProgress?: (report: CollectorReport) => void;
  /** Stops the run where it is; what it has done so far is whole. */
  readonly signal?: AbortSignal;
}

export type CollectorEvent =
  | { readonly event: 'repository'; readonly repository: string }
  /** Something that stays, since it is needed. */
  | { readonly event: 'marked'; readonly kind: 'manifest' | 'blob'; readonly repository: string; readonly name: string }
  /** A tag that the policies let go. */
  | { readonly event: 'expired'; readonly repository: string; readonly name: string }
  /** Something that went, or would go. A blob belongs to no repository. */
  | {
      readonly event: 'removed';
      readonly kind: 'tag' | 'manifest' | 'layer' | 'upload' | 'blob';
      readonly repository?: string;
      readonly name: string;
    };

interface Count {
  kept: number;
  removed: number;
}

/** What a run found and did; of a dry run, what it would have done. */
export interface CollectorReport {
  readonly dryRun: boolean;
  repositories: number;
  readonly tags: Count;
  readonly manifests: Count;
  /** Links of repositories to their blobs. */
  readonly layers: Count;
  /** The bytes themselves. `young` of the kept ones are needed by nothing, and stay for the grace. */
  readonly blobs: Count & { young: number };
  readonly uploads: Count;
  /** Of blobs and uploads. */
  freedBytes: number;
  /** Each one line. */
  readonly problems: string[];
}

/**
 * Removes what nothing needs, while others push, pull and delete, in this process and in others: first the links of each
 * repository, then the bytes that no link leads to and no manifest names. It looks at a repository once and remembers what its links lead to;
 * whoever makes a link later has renewed what it leads to (`Leases`), and so the sweep leaves that alone. An error stops
 * the run before it removes bytes. Several runs at once do no harm.
 */
export async function collect(driver: StorageDriver, options: CollectOptions): Promise<CollectorReport> {
  const run = new CollectorRun(driver, options);
  for await (const { name, parts } of everyRepository(driver)) {
    run.tell({ event: 'repository', repository: name });
    await sweepRepository(run, name, parts);
    if (options.uploads) await removeAbandonedUploads(run, name, options.uploads);
    run.report.repositories += 1;
    run.progress();
  }
  await sweepBlobs(run);
  return run.report;
}

/** Removes abandoned uploads, and nothing else. */
export async function purgeUploads(
  driver: StorageDriver,
  uploads: AbandonedUploads,
  options: Pick<CollectOptions, 'onEvent' | 'signal'> = {},
): Promise<CollectorReport> {
  const run = new CollectorRun(driver, { grace: 0, ...options });
  for await (const { name, parts } of everyRepository(driver)) {
    if (parts.includes('_uploads')) await removeAbandonedUploads(run, name, uploads);
    run.progress();
  }
  return run.report;
}

/** What the parts of one run share. */
export class CollectorRun {
  readonly start = new Date();
  /** What has not been changed or renewed since is stale. */
  readonly before: Date;
  readonly dryRun: boolean;
  readonly report: CollectorReport;
  /** The canonical digests that links lead to, and those that manifests name. */
  readonly linked = new DigestSet();

  constructor(
    readonly driver: StorageDriver,
    readonly options: CollectOptions,
  ) {
    const { grace, servedGrace = grace, dryRun = false } = options;
    this.before = new Date(this.start.getTime() - grace - leaseAge(servedGrace));
    this.dryRun = dryRun;
    this.report = {
      dryRun,
      repositories: 0,
      tags: { kept: 0, removed: 0 },
      manifests: { kept: 0, removed: 0 },
      layers: { kept: 0, removed: 0 },
      blobs: { kept: 0, removed: 0, young: 0 },
      uploads: { kept: 0, removed: 0 },
      freedBytes: 0,
      problems: [],
    };
  }

  /** Removes one object if it is stale. @returns whether it went, or would go */
  async remove(key: string, { before = this.before, durable = true } = {}): Promise<boolean> {
    this.options.signal?.throwIfAborted();
    if (!this.dryRun) return this.driver.removeStale(key, before, { durable });
    const info = await this.driver.stat(key);
    return info !== undefined && info.modified < before;
  }

  /** Removes folders that a crash or another program has left without an object in them. */
  async removeEmptyFolders(prefix: string): Promise<void> {
    if (!this.dryRun) await this.driver.removeEmptyFolders(prefix);
  }

  tell(event: CollectorEvent): void {
    this.options.onEvent?.(event);
  }

  progress(): void {
    this.options.signal?.throwIfAborted();
    this.options.onProgress?.(this.report);
  }
}

/** Every folder with parts of a repository in it, also where no repository can be called so: its links count. */
export async function* everyRepository(
  driver: StorageDriver,
  above = '',
): AsyncGenerator<{ readonly name: string; readonly parts: readonly string[] }> {
  const entries = await driver.list(above === '' ? layout.repositories : layout.repository(above));
  const folders = entries.filter(({ name, folder }) => folder && !name.includes('\\')).map(({ name }) => name);
  const parts = folders.filter(name => name.startsWith('_'));
  if (above !== '' && parts.length > 0) yield { name: above, parts };
  for (const name of folders.filter(name => !name.startsWith('_')))
    yield* everyRepository(driver, above === '' ? name : `${above}/${name}`);
}

/** Removes the bytes that nothing needs. */
async function sweepBlobs(run: CollectorRun): Promise<void> {
  const { driver, report } = run;
  for (const { name: prefix } of await driver.list(layout.blobs)) {
    const folder = `${layout.blobs}/${prefix}`;
    const entries = await driver.list(folder);
    if (entries.length === 0) await run.removeEmptyFolders(folder);
    await inBatches(entries, async ({ name }) => {
      const digest = `sha256:${name}` as const;
      const key = layout.blob(digest);
      if (run.linked.has(digest)) {
        report.blobs.kept += 1;
        return;
      }
      const info = await driver.stat(key);
      // Once no link leads to them, bytes that a power cut brings back are mere garbage: no need to wait for the disk.
      if (info && (await run.remove(key, { durable: false }))) {
        report.blobs.removed += 1;
        report.freedBytes += info.size;
        run.tell({ event: 'removed', kind: 'blob', name: digest });
      } else if (info) {
        report.blobs.kept += 1;
        report.blobs.young += 1;
      } else await run.removeEmptyFolders(`${folder}/${name}`);
    });
    run.progress();
  }
}
