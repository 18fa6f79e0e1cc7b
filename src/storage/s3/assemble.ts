import { allDone } from '../../at-once.js';
import type { ByteRange } from '../../reference.js';
import { StorageError } from '../driver.js';
import { type PartBudget, SMALLEST_PART } from '../object/parts.js';
import type { Bucket, Part } from './bucket.js';
import { S3Reader } from './reader.js';
import { completeUpload } from './segment.js';

/** A stretch of one object. */
interface Stretch {
  readonly key: string;
  readonly range: ByteRange;
}

/** What one part is made of: a stretch that the service copies by itself, or several that pass through this machine. */
export type PartSource = Stretch | readonly Stretch[];

export interface Piece {
  readonly key: string;
  readonly size: number;
}

/**
 * Divides pieces into parts. No part but the last may be smaller than `smallest`, so smaller pieces are gathered, with as
 * much of the next as that takes. Of a single piece all parts but the last have one size.
 * @param chunkSize of what is copied at once, at least `smallest`
 */
export function planParts(pieces: readonly Piece[], chunkSize: number, smallest = SMALLEST_PART): PartSource[] {
  const parts: PartSource[] = [];
  let gathered: Stretch[] = [];
  let bytes = 0;
  for (const [index, { key, size }] of pieces.entries()) {
    const isLast = index === pieces.length - 1;
    let at = 0;
    while (at < size) {
      const left = size - at;
      if (bytes === 0 && (left >= smallest || isLast)) {
        // What is left after this part is none, or enough for one; or it is the end of all.
        const length = left < chunkSize + (isLast ? 0 : smallest) ? left : chunkSize;
        parts.push({ key, range: { start: at, end: at + length - 1 } });
        at += length;
        continue;
      }
      const length = Math.min(left, smallest - bytes);
      gathered.push({ key, range: { start: at, end: at + length - 1 } });
      bytes += length;
      at += length;
      if (bytes < smallest) continue;
      parts.push(gathered);
      gathered = [];
      bytes = 0;
    }
  }
  if (gathered.length > 0) parts.push(gathered);
  return parts;
}

/** Lets so many do something at once, of all uploads of a process: a service that is asked for too much times out. */
export class Turnstile {
  readonly #waiting: Array<() => void> = [];

  constructor(private free: number) {}

  async pass<T>(work: () => Promise<T>): Promise<T> {
    if (this.free > 0) this.free -= 1;
    else await new Promise<void>(resolve => this.#waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.free += 1;
    }
  }
}

/** The bytes of some stretches. @throws StorageError where one is not all there */
export async function gather(bucket: Bucket, stretches: readonly Stretch[]): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for (const { key, range } of stretches) {
    const found = await bucket.get(key, { range });
    if (!found) throw new StorageError('unavailable', `read ${key}: it is gone`);
    for await (const chunk of new S3Reader(bucket, key, found, range.start, range.end + 1)) chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/**
 * Makes one object of parts of others, in one step as readers see it.
 * @param copies what every copy passes through
 * @param concurrency how many parts are made at once
 * @param beforeLast called when all is there but the name
 * @returns how many bytes have passed through this machine
 */
export async function joinParts(
  {
    bucket,
    budget,
    copies,
    concurrency,
  }: { bucket: Bucket; budget: PartBudget; copies: Turnstile; concurrency: number },
  key: string,
  sources: readonly PartSource[],
  beforeLast: () => Promise<void>,
): Promise<number> {
  const upload = await bucket.startUpload(key);
  let passed = 0;
  let isCompleting = false;
  const make = async (source: PartSource, number: number): Promise<Part> => {
    if ('key' in source) return copies.pass(() => bucket.copyPart(key, upload.id, number, source.key, source.range));
    return budget.sending(SMALLEST_PART, async () => {
      const data = await gather(bucket, source);
      passed += data.length;
      return bucket.uploadPart(key, upload.id, number, data);
    });
  };
  try {
    const parts: Part[] = [];
    const waiting = sources.entries();
    const lane = async () => {
      for (const [index, source] of waiting) parts.push(await make(source, index + 1));
    };
    await allDone(Array.from({ length: Math.min(concurrency, sources.length) }, lane));
    await beforeLast();
    isCompleting = true;
    await completeUpload(bucket, key, upload, parts);
  } catch (error) {
    // The service may still be at it.
    if (!isCompleting) await bucket.abortUpload(key, upload.id).catch(() => undefined);
    throw error;
  }
  return passed;
}
