import type { Readable } from 'node:stream';
import { type ByteStream, type ObjectInfo, StorageError } from '../driver.js';
import type { Bucket, Found } from './bucket.js';
import { s3Failure } from './failure.js';

/** How often in a row a body may end early without a byte having come. */
const TRIES = 3;

/**
 * The bytes of an object from `at` to before `end`. A body that breaks off is asked for again from there, as long as it is
 * the same object: a connection that a slow client left idle is cut by any service.
 */
export class S3Reader implements ByteStream {
  readonly info: ObjectInfo;
  readonly #etag: string | undefined;
  #body: Readable;
  #chunks: AsyncIterator<Buffer>;
  #failures = 0;
  #closed = false;

  constructor(
    private readonly bucket: Bucket,
    private readonly key: string,
    found: Found & { body: Readable },
    private at: number,
    private readonly end: number,
  ) {
    this.info = found.info;
    this.#etag = found.etag;
    this.#body = found.body;
    this.#chunks = this.#body[Symbol.asyncIterator]();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<Buffer, undefined>> {
    while (!this.#closed && this.at < this.end) {
      try {
        const { done, value } = await this.#chunks.next();
        if (done) throw new StorageError('unavailable', `read ${this.key}: it ended at ${this.at} of ${this.end}`);
        this.at += value.length;
        this.#failures = 0;
        if (this.at > this.end) throw new TypeError(`read ${this.key}: more came than was asked for`);
        return { done: false, value };
      } catch (error) {
        if (this.#closed) break;
        if (error instanceof TypeError || ++this.#failures > TRIES) {
          await this.return();
          throw s3Failure(`read ${this.key}`, error);
        }
        await this.#reopen();
      }
    }
    return this.return();
  }

  async return(): Promise<IteratorReturnResult<undefined>> {
    const body = this.#body;
    if (!this.#closed && this.at === this.end) this.#finish(body);
    else body.destroy();
    this.#closed = true;
    return { done: true, value: undefined };
  }

  /** Has all of a body been read, its end is yet to be: then its connection serves the next request. */
  #finish(body: Readable): void {
    this.#chunks.next().then(
      ({ done }) => done || body.destroy(),
      () => body.destroy(),
    );
  }

  async #reopen(): Promise<void> {
    this.#body.destroy();
    const range = { start: this.at, end: this.end - 1 };
    const found = await this.bucket.get(this.key, { range, etag: this.#etag }).catch(async error => {
      await this.return();
      throw error;
    });
    if (!found || found.info.size !== this.info.size) {
      await this.return();
      throw new StorageError('unavailable', `read ${this.key}: it was replaced or removed on the way`);
    }
    this.#body = found.body;
    this.#chunks = this.#body[Symbol.asyncIterator]();
  }
}
