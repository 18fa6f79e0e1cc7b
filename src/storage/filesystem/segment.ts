import { constants } from 'node:fs';
import { type FileHandle, open, unlink } from 'node:fs/promises';
import { systemCode } from '../../errors.js';
import { type SegmentWriter, StorageError } from '../driver.js';
import { type BufferBudget, Portion, SLAB } from './budget.js';
import { storageFailure } from './failure.js';
import type { Flusher } from './flusher.js';

/** Half of it costs a third more processor time with four uploads at once (docs/decisions/0006). */
const EARLY_FLUSH = 64 * 1024 * 1024;

/** What goes past the page cache costs a trip to the disk: of less at a time the kernel makes larger ones. */
const LEAST_DIRECT = 512 * 1024;

/**
 * Writes a file in batches: while the disk takes one, the next is collected. Chunks are copied, into buffers that are used
 * again: to keep thousands of them until they are written costs more, most of it in garbage collection.
 *
 * Large batches go past the page cache (O_DIRECT) where the file system can do that: a copy, the making of its pages, and
 * in the end their flush cost more than the disk's part (docs/decisions/0024). The others it takes, and every 64 MiB the
 * disk begins to write, beside the upload: the kernel alone would wait for half a minute, and the last flush would have it
 * all to do.
 */
export class FileSegment implements SegmentWriter {
  #batch: Buffer[] = [];
  #filled = 0;
  readonly #portion: Portion;
  /** How large the batch may become. */
  #most: number;
  /** Where in the file the batch belongs. */
  #position = 0;
  #inFlight: Promise<void> | undefined;
  /** Undefined before the first large batch, and 'no' where the file system has turned it down. */
  #direct: FileHandle | 'no' | undefined;
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
    this.#portion = new Portion(budget);
    this.#most = this.#portion.next();
  }

  write(chunk: Uint8Array): Promise<void> | undefined {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    return this.#collect(chunk, 0);
  }

  /** What does not fit into the batch waits until the disk has taken the one before. */
  #collect(chunk: Uint8Array, from: number): Promise<void> | undefined {
    for (let at = from; at < chunk.length; ) {
      if (this.#isFull()) {
        if (this.#inFlight !== undefined)
          return this.#landed().then(() => {
            if (!this.#open) return;
            this.#launch();
            return this.#collect(chunk, at);
          });
        this.#launch();
      }
      const offset = this.#filled % SLAB;
      if (offset === 0) this.#batch.push(this.budget.take());
      const end = Math.min(chunk.length, at + SLAB - offset);
      this.#batch.at(-1)!.set(chunk.subarray(at, end), offset);
      this.#filled += end - at;
      at = end;
    }
    if (this.#isFull() && this.#inFlight === undefined) this.#launch();
    return undefined;
  }

  #isFull(): boolean {
    return this.#filled % SLAB === 0 && this.#filled > 0 && this.#filled + SLAB > this.#most;
  }

  async close(): Promise<number> {
    try {
      await this.#landed();
      this.#launch();
      await this.#landed();
      await this.#flushed();
      this.#release();
      await this.#closeFiles();
      return this.#position;
    } catch (error) {
      await this.abort();
      throw storageFailure(`write ${this.path}`, error);
    }
  }

  async abort(): Promise<void> {
    if (this.#open) {
      this.#release();
      // A descriptor closed under a running call could by then be another file's.
      await this.#inFlight;
      await this.#flushing;
      await this.#closeFiles().catch(() => {});
    }
    await unlink(this.path).catch(() => {});
  }

  #release(): void {
    this.#open = false;
    this.budget.leave();
    for (const slab of this.#batch.splice(0)) this.budget.give(slab);
    this.#filled = 0;
  }

  async #closeFiles(): Promise<void> {
    try {
      if (typeof this.#direct === 'object') await this.#direct.close();
    } finally {
      await this.handle.close();
    }
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
    const slabs = this.#batch;
    const bytes = slabs.map((slab, index) => slab.subarray(0, Math.min(SLAB, this.#filled - index * SLAB)));
    const position = this.#position;
    this.#position += this.#filled;
    this.#batch = [];
    this.#filled = 0;
    this.#most = this.#portion.next();
    this.#inFlight = this.#outcome(this.#write(bytes, position)).then(() => {
      this.#inFlight = undefined;
      for (const slab of slabs) this.budget.give(slab);
      this.#flushEarly();
    });
  }

  /** A write may take a part only, above all when the disk runs full: then it is called again with the rest. */
  async #write(bytes: readonly Buffer[], from: number): Promise<void> {
    let position = from;
    let left = bytes;
    const direct = await this.#directly(bytes, from);
    for (let taken = direct; ; ) {
      position += taken;
      left = after(left, taken);
      if (left.length === 0) break;
      taken = (await this.handle.writev(left, position)).bytesWritten;
      if (taken === 0) throw new StorageError('unavailable', 'the file takes no more bytes');
    }
    this.#unflushed += position - from - direct;
  }

  /** Writes whole slabs past the page cache. @returns how many bytes went that way */
  async #directly(bytes: readonly Buffer[], position: number): Promise<number> {
    const whole = bytes.filter(({ length }) => length === SLAB);
    if (whole.length * SLAB < LEAST_DIRECT || !bytes.every(slab => this.budget.isAligned(slab))) return 0;
    this.#direct ??= await openDirect(this.path);
    const file = this.#direct;
    if (file === 'no') return 0;
    try {
      return (await this.flusher.inTurn(() => file.writev(whole, position))).bytesWritten;
    } catch (error) {
      if (!isUnable(error)) throw error;
      this.#direct = 'no';
      await file.close();
      return 0;
    }
  }

  #flushEarly(): void {
    if (this.#unflushed < EARLY_FLUSH || this.#flushing !== undefined || !this.#open) return;
    const early = this.flusher.early(this.handle.fd, this.path);
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

async function openDirect(path: string): Promise<FileHandle | 'no'> {
  // Not every system has it.
  if (!constants.O_DIRECT) return 'no';
  // Whatever the reason is: there is a file that takes the bytes. An upload that was discarded meanwhile has lost its name.
  return open(path, constants.O_WRONLY | constants.O_DIRECT).catch(() => 'no');
}

/** The file system does not do it, or not for pieces of this size. */
function isUnable(error: unknown): boolean {
  return ['EINVAL', 'ENOTSUP', 'EOPNOTSUPP'].includes(systemCode(error) ?? '');
}

/** What is left of `bytes` behind the first `count`. */
function after(bytes: readonly Buffer[], count: number): Buffer[] {
  let skip = count;
  return bytes.flatMap(buffer => {
    const skipped = Math.min(skip, buffer.length);
    skip -= skipped;
    return skipped < buffer.length ? [buffer.subarray(skipped)] : [];
  });
}
