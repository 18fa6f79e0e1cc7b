import { finished, type Readable } from 'node:stream';
import { systemCode } from '../errors.js';
import type { SegmentWriter } from '../storage/driver.js';

/** What one request brings: in memory while it is little, then in a segment. */
export class Incoming {
  #bytes = Buffer.alloc(0);
  #received = 0;
  #writer: SegmentWriter | undefined;

  /** @param most how many bytes are little */
  constructor(
    private readonly most: number,
    private readonly createSegment: () => Promise<SegmentWriter>,
  ) {}

  get isLarge(): boolean {
    return this.#writer !== undefined;
  }

  /** As `SegmentWriter.write`. */
  write(chunk: Buffer): Promise<void> | undefined {
    if (this.#writer) return this.#writer.write(chunk);
    const received = this.#received + chunk.length;
    if (received > this.most) return this.#spill(chunk);
    // What a chunk is a part of may be many times as large.
    if (received > this.#bytes.length) {
      const grown = Buffer.allocUnsafeSlow(Math.min(this.most, Math.max(2 * received, 1024)));
      this.#bytes.copy(grown, 0, 0, this.#received);
      this.#bytes = grown;
    }
    chunk.copy(this.#bytes, this.#received);
    this.#received = received;
    return undefined;
  }

  async #spill(chunk: Buffer): Promise<void> {
    this.#writer = await this.createSegment();
    if (this.#received > 0) await this.#writer.write(this.#bytes.subarray(0, this.#received));
    this.#bytes = Buffer.alloc(0);
    await this.#writer.write(chunk);
  }

  /** @returns what is not in the segment */
  async close(): Promise<Buffer | undefined> {
    if (!this.#writer) return this.#bytes.subarray(0, this.#received);
    await this.#writer.close();
    return undefined;
  }

  /** As `SegmentWriter.abort`. */
  async abort(): Promise<void> {
    await this.#writer?.abort();
  }
}

/**
 * Passes a body on, chunk by chunk, which costs half of what an asynchronous iteration does. A body that is given up is
 * left paused, its connection open for the answer. `cut` is set, not thrown, where the client left: what came before is
 * still good.
 */
export async function receive(
  body: Readable,
  take: (chunk: Buffer) => Promise<void> | undefined,
): Promise<{ received: number; cut?: Error }> {
  let received = 0;
  let taken: Promise<void> | undefined;
  const cut = await new Promise<Error | undefined>((resolve, reject) => {
    const leave = finished(body, { writable: false }, error => {
      stop();
      resolve(error ?? undefined);
    });
    const stop = () => {
      leave();
      body.off('data', pass).pause();
    };
    const fail = (error: unknown) => {
      stop();
      reject(error);
    };
    const pass = (chunk: Buffer) => {
      received += chunk.length;
      try {
        taken = take(chunk);
      } catch (error) {
        fail(error);
        return;
      }
      if (!taken) return;
      body.pause();
      taken.then(() => body.resume(), fail);
    };
    body.on('data', pass);
  });
  await taken;
  if (cut && !isClientGone(cut)) throw cut;
  return cut ? { received, cut } : { received };
}

/** Whether an error says that the request was cut off, and not that the storage failed. */
export function isClientGone(error: unknown): boolean {
  const code = systemCode(error);
  return code === 'ECONNRESET' || code === 'ERR_STREAM_PREMATURE_CLOSE' || code === 'ABORT_ERR';
}
