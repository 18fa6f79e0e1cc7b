import { RegistryError } from '../errors.js';
import { growingCache } from '../growing-cache.js';
import { NOBODY, type Others } from '../others.js';
import type { StorageDriver } from '../storage/driver.js';
import { inBatches } from './batches.js';
import { everyRepository } from './collector.js';
import { layout } from './layout.js';

/** The time between two looks through the storage (ms). */
const INTERVAL = 30_000;

const TOPIC = 'uploads';

/** Of somebody who has many, there are more, or fewer. */
interface Change {
  readonly owner: string;
  readonly more: number;
}

/**
 * Bounds the unfinished uploads of each principal, so that nobody fills the storage with what will never be an image.
 * Uploads are not counted in a file of their own, which each push would have to write. A process counts those that it
 * has seen itself; only for somebody who has many it looks at all there are, once in a while, and tells the processes
 * beside it what changes in between. So with several the bound may be passed, by an eighth (or by ten) for each.
 */
export class UploadCap {
  readonly #open = growingCache<string, number>(100_000);
  /** Those that ended lately: a slow request may say it long after another has. */
  readonly #ended = growingCache<string, true>(10_000);
  #looked = Number.NEGATIVE_INFINITY;
  #looking: Promise<void> | undefined;

  /** @param most 0 for any number */
  constructor(
    private readonly driver: StorageDriver,
    private readonly most: number,
    private readonly others: Others = NOBODY,
  ) {
    others.hear(TOPIC, change => this.#add(change as Change));
  }

  /** An upload is about to be started. @throws RegistryError TOOMANYREQUESTS */
  async enter(owner: string): Promise<void> {
    const { most } = this;
    if (most === 0) return;
    if (this.#hasMany(owner) && (this.#looking || performance.now() - this.#looked > INTERVAL)) await this.#look();
    const count = this.#count(owner);
    if (count >= most)
      throw new RegistryError('TOOMANYREQUESTS', {
        message: `${count} unfinished uploads: finish or cancel some, or wait until they expire (limits.uploads: ${most})`,
        headers: { 'Retry-After': '60' },
      });
    this.#change({ owner, more: 1 });
  }

  /** An upload was finished, cancelled or lost; of requests that do so at once, each says it. */
  leave(owner: string, uuid: string): void {
    if (this.#ended.has(uuid)) return;
    this.#ended.set(uuid, true);
    this.#change({ owner, more: -1 });
  }

  #change(change: Change): void {
    this.#add(change);
    if (this.#hasMany(change.owner)) this.others.tell(TOPIC, change);
  }

  #add({ owner, more }: Change): void {
    this.#open.set(owner, Math.max(0, this.#count(owner) + more));
  }

  #hasMany(owner: string): boolean {
    return this.#count(owner) >= Math.min(this.most, Math.max(10, Math.floor(this.most / 8)));
  }

  #count(owner: string): number {
    return this.#open.get(owner) ?? 0;
  }

  #look(): Promise<void> {
    this.#looking ??= this.#countAll().finally(() => {
      this.#looking = undefined;
      this.#looked = performance.now();
    });
    return this.#looking;
  }

  async #countAll(): Promise<void> {
    const before = new Map(this.#open.entries());
    const counts = new Map<string, number>();
    for await (const { name, parts } of everyRepository(this.driver)) {
      if (!parts.includes('_uploads')) continue;
      await inBatches(await this.driver.list(layout.uploads(name)), async upload => {
        const owner = await this.#ownerOf(layout.uploadStep(name, upload.name, 0));
        if (owner !== undefined) counts.set(owner, (counts.get(owner) ?? 0) + 1);
      });
    }
    for (const owner of new Set([...before.keys(), ...counts.keys()])) {
      const sinceThen = Math.max(0, this.#count(owner) - (before.get(owner) ?? 0));
      this.#open.set(owner, (counts.get(owner) ?? 0) + sinceThen);
    }
  }

  /** Undefined for an upload that is gone, or of `registry:2`. */
  async #ownerOf(firstStep: string): Promise<string | undefined> {
    const data = await this.driver.get(firstStep, 64 * 1024);
    try {
      return data && (JSON.parse(data.toString('utf8')) as { owner: string }).owner;
    } catch {
      return undefined;
    }
  }
}
