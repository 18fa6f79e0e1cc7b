import type { FileHandle } from 'node:fs/promises';
import { type ByteStream, LENT_CHUNKS, type ObjectInfo, StorageError } from '../driver.js';
import { type BufferBudget, Portion } from './budget.js';
import { storageFailure } from './failure.js';

/**
 * The bytes of an open file from `start` to before `end`, in buffers that are used in turns: to make a megabyte for each
 * chunk costs more than to read and encrypt it, most of it in garbage collection. Owns the handle.
 */
export class FileReader implements ByteStream {
  readonly #ring: Buffer[] = [];
  readonly #portion: Portion;
  #turn = 0;
  #at: number;
  #reading: Promise<unknown> | undefined;
  #closed: Promise<void> | undefined;

  constructor(
    private readonly handle: FileHandle,
    readonly info: ObjectInfo,
    start: number,
    private readonly end: number,
    private readonly budget: BufferBudget,
  ) {
    this.#at = start;
    this.#portion = new Portion(budget);
    budget.enter();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<Buffer, undefined>> {
    if (this.#closed || this.#at >= this.end) return this.return();
    const buffer = this.#buffer(Math.min(this.#portion.next(), this.end - this.#at));
    try {
      const reading = this.handle.read(buffer, 0, buffer.length, this.#at);
      this.#reading = reading;
      const { bytesRead } = await reading;
      if (bytesRead === 0)
        throw new StorageError('unavailable', `read: the file ends at ${this.#at} instead of ${this.end}`);
      this.#at += bytesRead;
      return { done: false, value: buffer.subarray(0, bytesRead) };
    } catch (error) {
      await this.return();
      throw storageFailure('read', error);
    }
  }

  async return(): Promise<IteratorReturnResult<undefined>> {
    this.#closed ??= this.#close();
    await this.#closed;
    return { done: true, value: undefined };
  }

  async #close(): Promise<void> {
    this.budget.leave();
    // A descriptor closed under a running read could by then be another file's.
    await this.#reading?.catch(() => undefined);
    await this.handle.close();
  }

  #buffer(size: number): Buffer {
    const turn = this.#turn++ % LENT_CHUNKS;
    let buffer = this.#ring[turn];
    // One that has become too large is let go.
    if (!buffer || buffer.length < size || buffer.length > 2 * size) {
      buffer = Buffer.allocUnsafeSlow(size);
      this.#ring[turn] = buffer;
    }
    return buffer.subarray(0, size);
  }
}
