import type { FileHandle } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { StorageError } from '../driver.js';
import type { BufferBudget } from './budget.js';
import { storageFailure } from './failure.js';

/** The bytes of an open file from `start` to before `end`. Owns the handle: end, error and destroy close it. */
export class FileReader extends Readable {
  #at: number;
  #reading: Promise<void> | undefined;

  constructor(
    readonly handle: FileHandle,
    start: number,
    readonly end: number,
    readonly budget: BufferBudget,
  ) {
    // One buffer at a time is read ahead, whatever its size.
    super({ highWaterMark: 1 });
    this.#at = start;
    budget.enter();
  }

  override _read(): void {
    if (this.#at >= this.end) {
      this.push(null);
      return;
    }
    this.#reading = this.#readOne().finally(() => {
      this.#reading = undefined;
    });
  }

  async #readOne(): Promise<void> {
    const buffer = Buffer.allocUnsafeSlow(Math.min(this.budget.share(), this.end - this.#at));
    try {
      const { bytesRead } = await this.handle.read(buffer, 0, buffer.length, this.#at);
      if (this.destroyed) return;
      if (bytesRead === 0)
        throw new StorageError('unavailable', `read: the file ends at ${this.#at} instead of ${this.end}`);
      this.#at += bytesRead;
      this.push(bytesRead === buffer.length ? buffer : buffer.subarray(0, bytesRead));
    } catch (error) {
      this.destroy(storageFailure('read', error) as Error);
    }
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.budget.leave();
    // A descriptor closed under a running read could by then be another file's.
    const closed = this.#reading === undefined ? this.handle.close() : this.#reading.then(() => this.handle.close());
    closed.then(
      () => callback(error),
      failed => callback(error ?? failed),
    );
  }
}
