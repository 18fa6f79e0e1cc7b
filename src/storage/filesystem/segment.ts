import { type FileHandle, unlink } from 'node:fs/promises';
import { type SegmentWriter, StorageError } from '../driver.js';
import type { BufferBudget } from './budget.js';
import { storageFailure } from './failure.js';
import type { Flusher } from './flusher.js';

/** Half of it costs a third more processor time with four uploads at once (docs/decisions/0006). */
const EARLY_FLUSH = 64 * 1024 * 1024;

/** Fits into a core's cache, so that the kernel copies what was just decrypted from there. */
const BATCH = 128 * 1024;

/**
 * Writes a file in batches: while the disk takes one, the next is collected. Chunks are copied, into two buffers that are
 * used in turns: to keep thousands of them until they are written costs more, most of it in garbage collection. Every
 * 64 MiB the disk begins to write, beside the upload: the kernel alone would wait for half a minute, and the last flush
 * would have it all to do.
 */
export class FileSegment implements SegmentWriter {
  #batch: Buffer | undefined;
  #filled = 0;
  #spare: Buffer | undefined;
  #total = 0;
  #inFlight: Promise<void> | undefined;
  #unflushed = 0;
  #flushing: Promise<void> | undefined;
  #failure: unknown;
  #open = true;

  constructor(
    readonly handle: FileHandle,
    readonly path: string,
    readonly budget: BufferBudget,
    readonly flusher: Flusher,
  ) {
    budget.enter();
  }

  write(chunk: Uint8Array): Promise<void> | undefined {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (chunk.length === 0) return undefined;
    this.#total += chunk.length;
    return this.#collect(chunk, 0);
  }

  /** What does not fit into the batch waits until the disk has taken the one before. */
  #collect(chunk: Uint8Array, from: number): Promise<void> | undefined {
    for (let at = from; at < chunk.length; ) {
      if (this.#batch === undefined) {
        const size = Math.min(BATCH, this.budget.share());
        this.#batch = this.#spare ?? Buffer.allocUnsafeSlow(size);
        this.#spare = undefined;
      }
      const end = Math.min(chunk.length, at + this.#batch.length - this.#filled);
      this.#batch.set(chunk.subarray(at, end), this.#filled);
      this.#filled += end - at;
      at = end;
      if (this.#filled < this.#batch.length) return undefined;
      if (this.#inFlight !== undefined)
        return this.#landed().then(() => {
          if (!this.#open) return;
          this.#launch();
          return this.#collect(chunk, at);
        });
      this.#launch();
    }
    return undefined;
  }

  async close(): Promise<number> {
    try {
      await this.#landed();
      this.#launch();
      await this.#landed();
      await this.#flushed();
    } catch (error) {
      await this.abort();
      throw error;
    }
    this.#release();
    await this.handle.close();
    return this.#total;
  }

  async abort(): Promise<void> {
    if (this.#open) {
      this.#release();
      // A descriptor closed under a running call could by then be another file's.
      await this.#inFlight;
      await this.#flushing;
      await this.handle.close().catch(() => {});
    }
    await unlink(this.path).catch(() => {});
  }

  #release(): void {
    this.#open = false;
    this.budget.leave();
  }

  /** The batch in flight, if any, is with the kernel. */
  async #landed(): Promise<void> {
    await this.#inFlight;
    if (this.#failure !== undefined) throw this.#failure;
  }

  async #flushed(): Promise<void> {
    await this.#flushing;
    if (this.#failure !== undefined) throw this.#failure;
  }

  #launch(): void {
    const batch = this.#batch;
    if (batch === undefined) return;
    const filled = this.#filled;
    this.#unflushed += filled;
    this.#batch = undefined;
    this.#filled = 0;
    this.#inFlight = this.#outcome(writeAll(this.handle, batch.subarray(0, filled))).then(() => {
      this.#inFlight = undefined;
      this.#spare = batch;
      this.#flushEarly();
    });
  }

  #flushEarly(): void {
    if (this.#unflushed < EARLY_FLUSH || this.#flushing !== undefined || !this.#open) return;
    const early = this.flusher.early(this.handle, this.path);
    if (early === undefined) return;
    this.#unflushed = 0;
    this.#flushing = this.#outcome(early).then(() => {
      this.#flushing = undefined;
    });
  }

  /** Never rejects: the next call that waits hears of the failure. */
  async #outcome(work: Promise<void>): Promise<void> {
    try {
      await work;
    } catch (error) {
      this.#failure ??= storageFailure(`write ${this.path}`, error);
    }
  }
}

/** A write may take a part only, above all when the disk runs full: then it is called again with the rest. */
async function writeAll(handle: FileHandle, bytes: Buffer): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    const { bytesWritten } = await handle.write(bytes, at, bytes.length - at);
    if (bytesWritten === 0) throw new StorageError('unavailable', 'the file takes no more bytes');
    at += bytesWritten;
  }
}
