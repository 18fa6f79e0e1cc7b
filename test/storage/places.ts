import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { StorageDriver } from '../../src/storage/driver.js';
import { FilesystemDriver } from '../../src/storage/filesystem.js';

/** Somewhere empty that any number of drivers can share, as processes and replicas do. */
export interface Place {
  /**
   * A new driver on this place, not yet opened.
   * @param options.flush false where no power cut is to be survived: a test of a thousand small changes need not wait for
   *   a disk. True unless told.
   */
  connect(options?: { readonly flush?: boolean }): StorageDriver;
  /** Frees everything. All drivers are closed by then. */
  remove(): Promise<void>;
  /** Whether the times of objects are whole seconds there. */
  readonly wholeSeconds?: boolean;
  /** How much of what is tried many times is enough, since the service is slow: from 0 to 1. All unless told. */
  readonly share?: number;
}

/** Two ticks of the slowest clock of Linux (ms): so tests see what is kept, without seconds of waiting. */
export const SETTLED = 20;

/** Every storage driver that needs nothing but Node; those that need a service are in test/stores. */
export const PLACES: Readonly<Record<string, () => Promise<Place>>> = {
  filesystem: async () => {
    const root = await mkdtemp(join(tmpdir(), 'registry-secure-'));
    return {
      connect: ({ flush = true } = {}) =>
        new FilesystemDriver({ root, settled: SETTLED, ...(!flush && { sync: async () => {} }) }),
      remove: () => rm(root, { recursive: true }),
    };
  },
};
