import type { SegmentWriter } from '../driver.js';
import type { Bucket, Part, Upload } from './bucket.js';
import { isUploadGone, s3Failure } from './failure.js';
import { SMALLEST_PART } from './options.js';

const MIB = 1024 * 1024;

/** What the parts of all uploads may take together, two of each; beyond that, two of `SMALLEST_PART` for each. */
const HELD = 160 * MIB;

/** Of that, what may be under way at once. */
const SENT = 64 * MIB;

/** A service takes 10,000 parts: with these of 5 MiB, objects of 5 GiB, 15, 35 … and 310 in all. */
const PARTS_OF_ONE_SIZE = 1_024;
const MOST_DOUBLINGS = 6;

/** Divides memory among the uploads of a process. What is being collected fills up no faster than the client sends. */
export class PartBudget {
  #open = 0;
  #sent = 0;
  readonly #waiting: Array<() => void> = [];

  constructor(private readonly chunkSize: number) {}

  enter(): void {
    this.#open += 1;
  }

  leave(): void {
    this.#open -= 1;
  }

  /** The size of the part of that number, in bytes. */
  size(number: number): number {
    const share = Math.floor(HELD / (2 * Math.max(1, this.#open)));
    const size = Math.max(SMALLEST_PART, Math.min(this.chunkSize, share));
    return size * 2 ** Math.min(MOST_DOUBLINGS, Math.floor((number - 1) / PARTS_OF_ONE_SIZE));
  }

  /** Sends a part when there is room for it; a single one always has. */
  async sending<T>(bytes: number, send: () => Promise<T>): Promise<T> {
    while (this.#sent > 0 && this.#sent + bytes > SENT) await new Promise<void>(resolve => this.#waiting.push(resolve));
    this.#sent += bytes;
    try {
      return await send();
    } finally {
      this.#sent -= bytes;
      for (const resume of this.#waiting.splice(0)) resume();
    }
  }
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
  readonly #parts: Part[] = [];
  #spare: Buffer | undefined;
  #inFlight: Promise<void> | undefined;
  #failure: unknown;
  #state: 'open' | 'closed' | 'gone' = 'open';

  constructor(
    private readonly bucket: Bucket,
    private readonly key: string,
    private readonly budget: PartBudget,
    private readonly onClosed: (size: number) => void,
  ) {
    budget.enter();
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
      else {
        if (this.#filled > 0) this.#launch();
        await this.#landed();
        await completeUpload(this.bucket, this.key, this.#upload!, this.#parts);
      }
    } catch (error) {
      await this.abort();
      throw error;
    }
    this.#end('closed');
    this.onClosed(this.#total);
    return this.#total;
  }

  async abort(): Promise<void> {
    const state = this.#state;
    this.#end('gone');
    await this.#inFlight;
    if (state === 'open' && this.#upload !== undefined)
      await this.bucket.abortUpload(this.key, this.#upload.id).catch(() => undefined);
    if (state === 'closed') await this.bucket.delete(this.key).catch(() => undefined);
  }

  #end(state: 'closed' | 'gone'): void {
    if (this.#state === 'open') this.budget.leave();
    this.#state = state;
    this.#part = undefined;
    this.#spare = undefined;
  }

  async #writeWhole(): Promise<void> {
    const data = this.#part?.subarray(0, this.#filled) ?? Buffer.alloc(0);
    await this.budget.sending(data.length, () => this.bucket.put(this.key, data));
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
    const size = this.budget.size(this.#number + 1);
    const spare = this.#spare;
    this.#spare = undefined;
    return spare?.length === size ? spare : Buffer.allocUnsafeSlow(size);
  }
}

/**
 * Makes the object of its parts. When the service's answer is lost and it is asked again, some say that there is no such
 * upload: then the object tells.
 */
export async function completeUpload(
  bucket: Bucket,
  key: string,
  { id, write }: Upload,
  parts: readonly Part[],
): Promise<void> {
  try {
    await bucket.completeUpload(key, id, parts);
  } catch (error) {
    const found = isUploadGone(error) ? await bucket.find(key) : undefined;
    if (found?.write !== write) throw s3Failure(`complete ${key}`, error);
  }
}
