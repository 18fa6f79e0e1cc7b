import { setTimeout as sleep } from 'node:timers/promises';
import { type SegmentWriter, StorageError } from '../driver.js';
import { type PartBudget, sizeOfPart } from '../object/parts.js';
import type { Bucket, Part, Upload } from './bucket.js';
import { isUploadGone, s3Failure } from './failure.js';

/** What an object is made for. */
export interface Purpose {
  readonly onClosed?: (size: number) => void;
  /** Of one that is not a segment of another, but stands under its own name. */
  readonly lasting?: {
    /** Says that it was written now, before it is there. */
    readonly renew: () => Promise<void>;
    /** Whether no removal that was under way has taken it. */
    readonly stays: () => Promise<boolean>;
  };
}

/**
 * Collects bytes into parts: while the service takes one, the next is collected. What fits into one is written in one
 * request when it is closed; nobody sees the object before.
 */
export class S3Segment implements SegmentWriter {
  #part: Buffer | undefined;
  #filled = 0;
  #total = 0;
  #upload: Upload | undefined;
  #number = 0;
  /** Of its first part. */
  readonly #size: number;
  readonly #parts: Part[] = [];
  #spare: Buffer | undefined;
  #inFlight: Promise<void> | undefined;
  #failure: unknown;
  #state: 'open' | 'closed' | 'gone' = 'open';

  constructor(
    private readonly bucket: Bucket,
    private readonly key: string,
    private readonly budget: PartBudget,
    private readonly purpose: Purpose,
  ) {
    this.#size = budget.enter();
  }

  write(chunk: Uint8Array): Promise<void> | undefined {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    this.#total += chunk.length;
    return this.#collect(chunk, 0);
  }

  #collect(chunk: Uint8Array, from: number): Promise<void> | undefined {
    for (let at = from; at < chunk.length; ) {
      // A full part is sent when there is more: what fits into one needs no upload of parts.
      if (this.#part && this.#filled === this.#part.length) {
        if (this.#inFlight)
          return this.#landed().then(() => {
            if (this.#state !== 'open') return undefined;
            this.#launch();
            return this.#collect(chunk, at);
          });
        this.#launch();
      }
      this.#part ??= this.#buffer();
      const end = Math.min(chunk.length, at + this.#part.length - this.#filled);
      this.#part.set(chunk.subarray(at, end), this.#filled);
      this.#filled += end - at;
      at = end;
    }
    return undefined;
  }

  async close(): Promise<number> {
    try {
      await this.#landed();
      if (this.#number === 0) await this.#writeWhole();
      else await this.#complete();
    } catch (error) {
      await this.abort();
      throw error;
    }
    this.#end('closed');
    this.purpose.onClosed?.(this.#total);
    return this.#total;
  }

  async abort(): Promise<void> {
    const state = this.#state;
    this.#end('gone');
    await this.#inFlight;
    if (state === 'open' && this.#upload !== undefined)
      await this.bucket.abortUpload(this.key, this.#upload.id).catch(() => undefined);
    if (state === 'closed' && !this.purpose.lasting) await this.bucket.delete(this.key).catch(() => undefined);
  }

  #end(state: 'closed' | 'gone'): void {
    if (this.#state === 'open') this.budget.leave(this.#size);
    this.#state = state;
    this.#part = undefined;
    this.#spare = undefined;
  }

  async #writeWhole(): Promise<void> {
    const data = this.#part?.subarray(0, this.#filled) ?? Buffer.alloc(0);
    do await this.budget.sending(data.length, () => this.bucket.put(this.key, data));
    while (!(await this.#stays()));
  }

  async #complete(): Promise<void> {
    if (this.#filled > 0) this.#launch();
    await this.#landed();
    await this.purpose.lasting?.renew();
    const upload = this.#upload!;
    // From here on nobody knows how it stands when there is no answer: it must not be given up while the service is at it.
    this.#upload = undefined;
    await completeUpload(this.bucket, this.key, upload, this.#parts);
    // Its bytes are here no more: whoever has sent them has to do it again.
    if (!(await this.#stays()))
      throw new StorageError('unavailable', `write ${this.key}: what stood there was just being removed`);
  }

  async #stays(): Promise<boolean> {
    return (await this.purpose.lasting?.stays()) ?? true;
  }

  async #landed(): Promise<void> {
    await this.#inFlight;
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Never rejects: the next call that waits hears of the failure. */
  #launch(): void {
    const part = this.#part!;
    const data = part.subarray(0, this.#filled);
    const number = ++this.#number;
    this.#part = undefined;
    this.#filled = 0;
    this.#inFlight = this.budget
      .sending(data.length, async () => {
        this.#upload ??= await this.bucket.startUpload(this.key);
        this.#parts.push(await this.bucket.uploadPart(this.key, this.#upload.id, number, data));
      })
      .catch(error => {
        this.#failure ??= error;
      })
      .then(() => {
        this.#inFlight = undefined;
        if (this.#state === 'open') this.#spare = part;
      });
  }

  #buffer(): Buffer {
    const size = sizeOfPart(this.#number + 1, this.#size);
    const spare = this.#spare;
    this.#spare = undefined;
    return spare?.length === size ? spare : Buffer.allocUnsafeSlow(size);
  }
}

/** How long an object is waited for (ms) whose making was asked for more than once, and where the service knows no more of it. */
const PATIENCE = 300_000;
const GONE_PATIENCE = 10_000;
const POLL = 500;

/**
 * Makes the object of its parts. When the service's answer is lost and it is asked again, some say that there is no such
 * upload, and some that all is done while they are still at it, and may fail: so then the object tells.
 */
export async function completeUpload(
  bucket: Bucket,
  key: string,
  { id, write }: Upload,
  parts: readonly Part[],
): Promise<void> {
  let failure: unknown;
  try {
    if (await bucket.completeUpload(key, id, parts)) return;
  } catch (error) {
    failure = s3Failure(`complete ${key}`, error);
    if (!isUploadGone(error)) throw failure;
  }
  const end = performance.now() + (failure ? GONE_PATIENCE : PATIENCE);
  while ((await bucket.find(key))?.write !== write) {
    if (performance.now() > end)
      throw (
        failure ??
        new StorageError('unavailable', `complete ${key}: it was said to be done, but the object is not there`)
      );
    await sleep(POLL);
  }
}
