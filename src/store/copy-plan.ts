import type { Digest } from '../reference.js';
import type { StorageDriver } from '../storage/driver.js';
import type { CopyTarget } from './copy.js';
import { DigestSet } from './digest-set.js';
import { layout } from './layout.js';

/** Copies nothing, and counts the bytes that would be. */
export class PlanTarget implements CopyTarget {
  bytes = 0;
  private readonly seen = new DigestSet();

  /** @param present whether an object is there already */
  constructor(private readonly present: (key: string) => Promise<unknown>) {}

  async blob(_source: StorageDriver, digest: Digest, size: number): Promise<void> {
    if (this.seen.has(digest)) return;
    this.seen.add(digest);
    if (!(await this.present(layout.blob(digest)))) this.bytes += size;
  }

  async link(): Promise<void> {}
  async note(): Promise<void> {}
  async tag(): Promise<void> {}
}
