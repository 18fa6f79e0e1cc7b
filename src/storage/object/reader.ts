import { type ByteStream, type ObjectInfo, StorageError } from '../driver.js';
import { storageFailure, wayError } from './requests.js';
import type { Body, ObjectStore } from './store.js';

/** How often in a row a body may end early without a byte having come. */
const TRIES = 3;

/** How long a body may stay silent while somebody waits for it (ms). */
const IDLE = 30_000;

/**
 * The bytes of an object from `at` to before `end`. A body that breaks off is asked for again from there, as long as it is
 * the same object.
 */
export class ObjectReader implements ByteStream {
  readonly info: ObjectInfo;
  #body: Body['body'];
  #chunks: AsyncIterator<Buffer>;
  #failures = 0;
  #closed = false;

  constructor(
    private readonly store: ObjectStore,
    private readonly key: string,
    private readonly found: Body,
    private at: number,
    private readonly end: number,
  ) {
    this.info = found.info;
    this.#body = found.body;
    this.#chunks = found.body[Symbol.asyncIterator]();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<Buffer, undefined>> {
    while (!this.#closed && this.at < this.end) {
      try {
        const { done, value } = await this.#nextInTime();
        if (done) throw new Error(`it ended at ${this.at} of ${this.end}`);
        this.at += value.length;
        this.#failures = 0;
        if (this.at > this.end) throw new TypeError(`read ${this.key}: more came than was asked for`);
        return { done: false, value };
      } catch (error) {
        if (this.#closed) break;
        if (error instanceof TypeError || ++this.#failures > TRIES) {
          await this.return();
          throw error instanceof TypeError ? error : storageFailure(`read ${this.key}`, wayError(error));
        }
        await this.#reopen();
      }
    }
    return this.return();
  }

  async return(): Promise<IteratorReturnResult<undefined>> {
    this.#closed = true;
    this.#discard();
    return { done: true, value: undefined };
  }

  async #nextInTime(): Promise<IteratorResult<Buffer>> {
    const body = this.#body;
    const timer = setTimeout(() => body.destroy(new Error('no byte came in time')), IDLE);
    try {
      return await this.#chunks.next();
    } finally {
      clearTimeout(timer);
    }
  }

  /** A body that is given up may still say that it broke, and nobody waits for that. */
  #discard(): void {
    this.#body.on('error', () => {}).destroy();
  }

  async #reopen(): Promise<void> {
    this.#discard();
    try {
      const range = { start: this.at, end: this.end - 1 };
      const { bytes } = this.found;
      const again = await this.store.get(this.key, { range, bytes });
      // A lease may have been renewed meanwhile: that leaves the bytes as they are.
      if (again?.bytes !== bytes) {
        again?.body.on('error', () => {}).destroy();
        throw new StorageError('unavailable', `read ${this.key}: it was replaced or removed on the way`);
      }
      this.#body = again.body;
      this.#chunks = again.body[Symbol.asyncIterator]();
    } catch (error) {
      await this.return();
      throw error;
    }
  }
}
