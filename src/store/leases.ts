import { type ObjectInfo, type StorageDriver, StorageError } from '../storage/driver.js';
import type { Integrity } from './integrity.js';

/** A day, in milliseconds: the default. */
export const GRACE = 24 * 3_600_000;

/** How old, at most, a lease is on which an answer relies; the collector adds it to the grace. */
export function leaseAge(grace: number): number {
  return grace / 4;
}

/**
 * What an answer called present stays for the grace, so that a client can rely on it until its manifest names it. The
 * lease is the time of change of the object, a link or the bytes, and the collector takes nothing that is younger. It is
 * renewed only where it has become old: reading it costs one look.
 */
export class Leases {
  private readonly oldest: number;

  /** @param grace in milliseconds, as the collector has it */
  constructor(
    private readonly driver: StorageDriver,
    private readonly integrity: Integrity,
    grace: number,
  ) {
    this.oldest = leaseAge(grace);
  }

  /**
   * @param before what to do before the object's time changes
   * @returns undefined when the object is gone, or going
   */
  async renew(key: string, before?: () => Promise<unknown>): Promise<ObjectInfo | undefined> {
    const enough = new Date(Date.now() - this.oldest);
    const info = await this.driver.stat(key, { enough });
    if (!info || info.modified > enough) return info;
    await before?.();
    if (!(await this.driver.touch(key))) return undefined;
    const renewed = await this.driver.stat(key);
    if (renewed) this.integrity.renewed(key, info, renewed);
    return renewed;
  }
}

/** For answers that only tell: a storage that cannot renew a lease, since it takes no writes, can still be read. */
export async function orUnheld<T>(held: Promise<T>, look: () => Promise<T>): Promise<T> {
  return held.catch(error => {
    if (error instanceof StorageError) return look();
    throw error;
  });
}
