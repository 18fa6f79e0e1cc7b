import { type FileHandle, unlink } from 'node:fs/promises';
import { type SegmentWriter, StorageError } from '../driver.js';
import type { BufferBudget } from './budget.js';
import { storageFailure } from './failure.js';
import type { Flusher } from './flusher.js';

/** The most buffers that one writev takes (IOV_MAX): it also bounds what a client of one-byte records can pile up. */
const MOST_CHUNKS = 1024;

/** Half of it costs a third more processor time with four uploads at once (docs/decisions/0006). */
const EARLY_FLUSH = 64 * 1024 * 1024;

/**
 * Writes a file in large batches: while the disk takes one, the next is collected. Chunks are never copied. Every 64 MiB
 * the disk begins to write, beside the upload: the kernel alone would wait for half a minute, and the last flush would
 * have it all to do.
 */
export class FileSegment implements SegmentWriter {
  #collected: Uint8Array[] = [];
  #collectedBytes = 0;
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
    this.#collected.push(chunk);
    this.#collectedBytes += chunk.length;
    this.#total += chunk.length;
    if (this.#collectedBytes < this.budget.share() && this.#collected.length < MOST_CHUNKS) return undefined;
    if (this.#inFlight !== undefined) return this.#landed().then(() => this.#launch());
    this.#launch();
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
    this.#collected = [];
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
    const batch = this.#collected;
    if (batch.length === 0) return;
    this.#unflushed += this.#collectedBytes;
    this.#collected = [];
    this.#collectedBytes = 0;
    this.#inFlight = this.#outcome(writeAll(this.handle, batch)).then(() => {
      this.#inFlight = undefined;
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

/** writev may take a part only, above all when the disk runs full: then it is called again with the rest. */
async function writeAll(handle: FileHandle, chunks: Uint8Array[]): Promise<void> {
  let rest = chunks;
  while (rest.length > 0) {
    const { bytesWritten } = await handle.writev(rest);
    if (bytesWritten === 0) throw new StorageError('unavailable', 'the file takes no more bytes');
    let index = 0;
    let into = bytesWritten;
    while (index < rest.length && into >= rest[index]!.length) into -= rest[index++]!.length;
    rest = rest.slice(index);
    if (into > 0) rest[0] = rest[0]!.subarray(into);
  }
}
