import { RegistryError } from '../errors.js';
import { NOBODY, type Others } from '../others.js';
import type { Digest } from '../reference.js';
import { roughSize } from '../size.js';
import type { StorageDriver } from '../storage/driver.js';
import { inBatches } from './batches.js';
import type { Catalog } from './catalog.js';
import { DigestSet } from './digest-set.js';
import { layout } from './layout.js';
import { contentOf } from './links.js';

/** Bytes by prefix: `team` bounds the repository `team` and all below `team/`, `*` all there are. */
export type QuotaLimits = Readonly<Record<string, number>>;

export interface QuotaUsage {
  readonly prefix: string;
  readonly limit: number;
  /** Bytes of the distinct blobs and manifests that the repositories have. */
  readonly used: number;
}

/** How soon a count may be repeated (ms): for somebody who is refused, and else. And how many times its own duration. */
const SOON = 5_000;
const LATER = 60_000;
const SHARE = 20;

const TOPIC = 'stored';

/**
 * Bounds the bytes that the repositories below a prefix have, each blob counted once. Every process counts by the links
 * that are there, and then adds what it commits itself: so within one process the bound is exact. The processes beside it
 * tell what they commit. Of what those of other machines commit, and of what is deleted, it learns when it counts again:
 * once a minute, and before it refuses somebody. Nothing is kept in the storage, so nothing there can be wrong.
 */
export class Quotas {
  readonly #quotas: readonly Quota[];

  constructor(
    driver: StorageDriver,
    catalog: Catalog,
    limits: QuotaLimits,
    private readonly others: Others = NOBODY,
  ) {
    this.#quotas = Object.entries(limits).map(([prefix, limit]) => new Quota(driver, catalog, prefix, limit));
    others.hear(TOPIC, value => {
      const { repository, ...blob } = value as Stored;
      for (const quota of this.#quotas) if (quota.covers(repository)) quota.heard(blob);
    });
  }

  /**
   * Does what gives a repository a blob or manifest, with room for it.
   * @throws RegistryError DENIED before the task is begun, where a quota does not hold it; whatever the task throws
   */
  async within<T>(repository: string, canonical: Digest, size: number, task: () => Promise<T>): Promise<T> {
    const quotas = this.#quotas.filter(quota => quota.covers(repository));
    const blob = { canonical, size };
    // Room may be gone again while that under another quota is looked for.
    do for (const quota of quotas) await quota.makeRoom(blob);
    while (!quotas.every(quota => quota.fits(blob)));
    for (const quota of quotas) quota.begin(blob);
    if (quotas.length > 0) this.others.tell(TOPIC, { repository, ...blob } satisfies Stored);
    try {
      return await task();
    } finally {
      for (const quota of quotas) quota.end(blob);
    }
  }

  /** Counts anew. */
  async usage(): Promise<QuotaUsage[]> {
    const usages: QuotaUsage[] = [];
    for (const quota of this.#quotas) usages.push(await quota.usage());
    return usages;
  }
}

interface Blob {
  readonly canonical: Digest;
  readonly size: number;
}

interface Stored extends Blob {
  readonly repository: string;
}

interface Count {
  readonly digests: DigestSet;
  bytes: number;
}

class Quota {
  #count: Count = { digests: new DigestSet(), bytes: 0 };
  #counting: Promise<void> | undefined;
  /** What is being committed, and what was while a count is under way: its links may not have been there yet. */
  readonly #inFlight = new Set<Blob>();
  #passed: Blob[] = [];
  #counted = false;
  #started = Number.NEGATIVE_INFINITY;
  #took = 0;

  constructor(
    private readonly driver: StorageDriver,
    private readonly catalog: Catalog,
    private readonly prefix: string,
    private readonly limit: number,
  ) {}

  covers(repository: string): boolean {
    return this.prefix === '*' || repository === this.prefix || repository.startsWith(`${this.prefix}/`);
  }

  /** Whether there is room for it now, or it needs none since it is there already. */
  fits({ canonical, size }: Blob): boolean {
    const { digests, bytes } = this.#count;
    return digests.has(canonical) || bytes + size <= this.limit;
  }

  /** @throws RegistryError DENIED */
  async makeRoom(blob: Blob): Promise<void> {
    if (!this.#counted) await this.#recount();
    else if (this.#isOlderThan(LATER)) void this.#recount().catch(() => undefined);
    // What was deleted since may have made room.
    if (!this.fits(blob) && (this.#counting || this.#isOlderThan(SOON))) await this.#recount();
    if (this.fits(blob)) return;
    const { prefix, limit } = this;
    const used = this.#count.bytes;
    throw new RegistryError('DENIED', {
      message: `the quota of ${prefix === '*' ? 'this registry' : prefix} is ${roughSize(limit)}: ${roughSize(used)} are in use, and this needs ${roughSize(blob.size)} more`,
      detail: { prefix, limit, used, size: blob.size },
    });
  }

  begin(blob: Blob): void {
    add(this.#count, blob);
    this.#inFlight.add(blob);
  }

  end(blob: Blob): void {
    this.#inFlight.delete(blob);
    if (this.#counting) this.#passed.push(blob);
  }

  /** Another process commits it. */
  heard(blob: Blob): void {
    add(this.#count, blob);
    this.end(blob);
  }

  async usage(): Promise<QuotaUsage> {
    await this.#recount();
    return { prefix: this.prefix, limit: this.limit, used: this.#count.bytes };
  }

  #isOlderThan(age: number): boolean {
    return performance.now() - this.#started > Math.max(age, SHARE * this.#took);
  }

  #recount(): Promise<void> {
    this.#counting ??= this.#countAll().finally(() => {
      this.#counting = undefined;
      this.#passed = [];
    });
    return this.#counting;
  }

  async #countAll(): Promise<void> {
    this.#started = performance.now();
    const count: Count = { digests: new DigestSet(), bytes: 0 };
    for await (const repository of this.#repositories())
      for (const names of await contentOf(this.driver, repository)) {
        const fresh = names.filter(digest => !count.digests.has(digest));
        await inBatches(fresh, async canonical => {
          const info = await this.driver.stat(layout.blob(canonical));
          if (info) add(count, { canonical, size: info.size });
        });
      }
    for (const blob of [...this.#passed, ...this.#inFlight]) add(count, blob);
    this.#count = count;
    this.#counted = true;
    this.#took = performance.now() - this.#started;
  }

  async *#repositories(): AsyncGenerator<string> {
    const { prefix } = this;
    if (prefix === '*') return yield* this.catalog.names();
    if (await this.catalog.exists(prefix)) yield prefix;
    for await (const name of this.catalog.names(`${prefix}/`)) {
      if (!this.covers(name)) return;
      yield name;
    }
  }
}

function add(count: Count, { canonical, size }: Blob): void {
  if (count.digests.has(canonical)) return;
  count.digests.add(canonical);
  count.bytes += size;
}
