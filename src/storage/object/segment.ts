import type { SegmentWriter } from '../driver.js';
import { type PartBudget, sizeOfPart } from './parts.js';
import { newWrite, type ObjectStore, type Part, type Upload } from './store.js';

/**
 * Collects bytes into parts: while the service takes one, the next is collected. What fits into one is written in one
 * request when it is closed; nobody sees the object before.
 */
export class ObjectSegment implements SegmentWriter {
  #part: Buffer | undefined;
  #filled = 0;
  #total = 0;
  #upload: Upload | undefined;
  /** Of its first part. */
  readonly #size: number;
  readonly #parts: Part[] = [];
  #number = 0;
  #sending: Promise<void> | undefined;
  #failure: unknown;
  #state: 'open' | 'closed' | 'gone' = 'open';

  constructor(
    private readonly store: ObjectStore,
    private readonly key: string,
    private readonly budget: PartBudget,
    private readonly onClosed: (size: number) => void,
  ) {
    this.#size = budget.enter();
  }

  write(chunk: Uint8Array): Promise<void> | undefined {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    this.#total += chunk.length;
    return this.#collect(chunk);
  }

  async close(): Promise<number> {
    try {
      await this.#sent();
      if (this.#upload === undefined) await this.#writeWhole();
      else {
        if (this.#filled > 0) this.#send();
        await this.#sent();
        await this.store.completeUpload(this.#upload, this.#parts);
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
    await this.#sending;
    if (state === 'open' && this.#upload !== undefined)
      await this.store.abortUpload(this.#upload, this.#parts).catch(() => undefined);
    if (state === 'closed') await this.store.drop(this.key).catch(() => undefined);
  }

  #collect(chunk: Uint8Array): Promise<void> | undefined {
    for (let at = 0; at < chunk.length; ) {
      // A full part is sent when there is more: what fits into one needs no upload of parts.
      if (this.#part && this.#filled === this.#part.length) {
        if (this.#sending) return this.#sent().then(() => this.#collect(chunk.subarray(at)));
        this.#send();
      }
      this.#part ??= Buffer.allocUnsafeSlow(sizeOfPart(this.#number + 1, this.#size));
      const end = Math.min(chunk.length, at + this.#part.length - this.#filled);
      this.#part.set(chunk.subarray(at, end), this.#filled);
      this.#filled += end - at;
      at = end;
    }
    return undefined;
  }

  #end(state: 'closed' | 'gone'): void {
    if (this.#state === 'open') this.budget.leave(this.#size);
    this.#state = state;
    this.#part = undefined;
  }

  async #writeWhole(): Promise<void> {
    const data = this.#part?.subarray(0, this.#filled) ?? Buffer.alloc(0);
    await this.budget.sending(data.length, () => this.store.put(this.key, data, { write: newWrite() }));
  }

  async #sent(): Promise<void> {
    await this.#sending;
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Never rejects: the next call that waits hears of the failure. */
  #send(): void {
    const data = this.#part!.subarray(0, this.#filled);
    const number = ++this.#number;
    this.#part = undefined;
    this.#filled = 0;
    this.#upload ??= this.store.startUpload(this.key);
    const upload = this.#upload;
    this.#sending = this.budget
      .sending(data.length, async () => {
        this.#parts.push(await this.store.uploadPart(upload, number, data));
      })
      .catch(error => {
        this.#failure ??= error;
      })
      .then(() => {
        this.#sending = undefined;
      });
  }
}
