import { randomUUID } from 'node:crypto';
import { allDone } from '../at-once.js';
import { OperatorError } from '../errors.js';
import type { ByteRange } from '../reference.js';
import {
  type ByteStream,
  type Entry,
  type ObjectInfo,
  type SegmentWriter,
  type StorageDriver,
  StorageError,
} from './driver.js';
import { checkFormat, FORMAT_FILE, PRIVATE } from './format.js';
import { checkKey } from './key.js';
import { listChildren } from './object/listing.js';
import { PartBudget, SMALLEST_PART } from './object/parts.js';
import { SegmentSizes } from './object/segment-sizes.js';
import { spanOf } from './redirect.js';
import { gather, joinParts, planParts, Turnstile } from './s3/assemble.js';
import { Bucket, type Found, newWrite } from './s3/bucket.js';
import { isUnknown, isUnmet, s3Failure, s3Refusal } from './s3/failure.js';
import type { S3Options } from './s3/options.js';
import { S3Reader } from './s3/reader.js';
import { Removals } from './s3/removals.js';
import { S3Segment } from './s3/segment.js';
import { ObjectTurns } from './turns.js';

const SMALL_OBJECT = 16 * 1024 * 1024;

/** How many requests run at once on behalf of one call. */
const WIDTH = 16;

/** How far the clocks may lie apart (ms): leases and the collector compare times of both. */
const MOST_SKEW = 5 * 60_000;

/** After this time (ms) an upload of parts is one of a process that died. */
const ABANDONED = 7 * 24 * 3_600_000;

/** A renewal without its object is not touched for so long (ms). */
const LEFT_ALONE = 3_600_000;

/** What is added to the key of an object for the one whose time says when it was renewed last. */
const RENEWED = '~renewed';

/**
 * Objects of a bucket: the key is the one of S3, below the root. What the service has answered is durable, and its lists
 * show it. It has no conditional deletes that would serve (s3/removals.ts), and no way to set a time without writing the
 * bytes again: so a renewal is an object of its own, beside the one that it is for.
 */
export class S3Driver implements StorageDriver {
  readonly name = 's3';
  readonly epoch = 's3';
  readonly #bucket: Bucket;
  readonly #removals: Removals;
  readonly #budget: PartBudget;
  readonly #copies: Turnstile;
  readonly #sizes = new SegmentSizes(segment => this.#bucket.find(segment));
  /** Whether the service creates an object only where there is none. */
  #conditional = true;
  /** What waits for a key, where it does not. */
  readonly #turns = new ObjectTurns();
  #passed = 0;

  constructor(private readonly options: S3Options) {
    this.#bucket = new Bucket(options);
    this.#removals = new Removals(this.#bucket, options.calm);
    this.#budget = new PartBudget(options.chunkSize);
    this.#copies = new Turnstile(options.copy.concurrency);
  }

  /** How many requests of each kind were sent to the service. */
  get requests(): ReadonlyMap<string, number> {
    return this.#bucket.requests;
  }

  /** How many bytes have passed through this machine once more, since the service could not join them by itself. */
  get passedAgain(): number {
    return this.#passed;
  }

  get solitary(): boolean {
    return !this.#conditional;
  }

  async open(): Promise<void> {
    const bucket = this.#bucket;
    try {
      await bucket.list(`${PRIVATE}/`, { most: 1 });
      if (Math.abs(bucket.ahead) > MOST_SKEW)
        throw new OperatorError(
          `the clocks of this machine and of the object store lie ${Math.round(Math.abs(bucket.ahead) / 60_000)} minutes apart`,
          { fix: 'set the clock of this machine, best by NTP: timedatectl set-ntp true' },
        );
      const format = await this.get(FORMAT_FILE.key, 1024);
      if (format) checkFormat(format.toString('utf8'), `${FORMAT_FILE.key} in the bucket ${bucket.name}`);
      if (this.options.readOnly) return;
      await this.#probe();
      if (!format) await this.create(FORMAT_FILE.key, FORMAT_FILE.content);
    } catch (error) {
      throw s3Refusal({ bucket: bucket.name, endpoint: bucket.endpoint, region: this.options.region }, error);
    }
    // Mere tidying up, which not every service has.
    this.#giveUpAbandoned().catch(() => undefined);
  }

  async close(): Promise<void> {
    await this.#removals.close().catch(() => undefined);
    this.#bucket.close();
  }

  async stat(key: string, { enough }: { enough?: Date } = {}): Promise<ObjectInfo | undefined> {
    checkKey(key);
    if (!enough) return (await this.#look(key))?.info;
    const found = await this.#bucket.find(key);
    if (!found || found.info.modified >= enough) return found?.info;
    return (await this.#look(key, found))?.info;
  }

  async get(key: string, limit = SMALL_OBJECT): Promise<Buffer | undefined> {
    checkKey(key);
    const found = await this.#bucket.get(key);
    if (!found) return undefined;
    const { size } = found.info;
    if (size > limit) {
      found.body.destroy();
      throw new StorageError('unavailable', `get ${key}: it has ${size} bytes, more than ${limit}`);
    }
    const chunks: Buffer[] = [];
    for await (const chunk of new S3Reader(this.#bucket, key, found, 0, size)) chunks.push(chunk);
    return Buffer.concat(chunks);
  }

  async read(key: string, range?: ByteRange): Promise<ByteStream | undefined> {
    checkKey(key);
    const found = await this.#bucket.get(key, { range });
    if (!found) return undefined;
    const end = range === undefined ? found.info.size : Math.min(range.end + 1, found.info.size);
    return new S3Reader(this.#bucket, key, found, range?.start ?? 0, end);
  }

  async readUrl(key: string): Promise<string | undefined> {
    checkKey(key);
    return this.options.redirects ? this.#bucket.readUrl(key, spanOf(this.#bucket.now())) : undefined;
  }

  async write(key: string, data: Uint8Array): Promise<void> {
    checkKey(key);
    this.#checkWritable(`write ${key}`);
    do await this.#bucket.put(key, data);
    while (!(await this.#stays(key)));
  }

  async create(key: string, data: Uint8Array): Promise<boolean> {
    checkKey(key);
    this.#checkWritable(`create ${key}`);
    const write = newWrite();
    for (;;) {
      const created = this.#conditional
        ? await this.#createOnCondition(key, data, write)
        : await this.#turns.take(key, () => this.#createUnlessThere(key, data, write));
      if (!created || (await this.#removals.spared(key))) return created;
      const found = await this.#bucket.find(key);
      if (found) return found.write === write;
    }
  }

  async remove(key: string): Promise<boolean> {
    checkKey(key);
    this.#checkWritable(`remove ${key}`);
    const found = await this.#look(key);
    if (!found) return false;
    if (found.isRenewed) await this.#bucket.deleteInTime(key + RENEWED);
    await this.#bucket.deleteInTime(key);
    return true;
  }

  async removeAll(prefix: string, { durable = true }: { durable?: boolean } = {}): Promise<void> {
    checkKey(prefix);
    this.#checkWritable(`remove all of ${prefix}`);
    // What may come back with a power cut is garbage of which nobody writes the like again.
    const remove = (key: string) => (durable ? this.#bucket.deleteInTime(key) : this.#bucket.delete(key));
    let isFirst = true;
    for (let token: string | undefined, last = false; !last; ) {
      const { objects, next } = await this.#bucket.list(`${prefix}/`, { token });
      const keys = objects.map(({ key }) => key);
      // The first by itself: it is the one without which the others count for nothing.
      for (const batch of isFirst ? [keys.slice(0, 1), ...inParts(keys.slice(1))] : inParts(keys))
        await allDone(batch.map(remove));
      isFirst = false;
      token = next;
      last = next === undefined;
    }
  }

  async list(prefix: string, options: { after?: string; limit?: number } = {}): Promise<Entry[]> {
    checkKey(prefix);
    return listChildren(this.#bucket, prefix, options, name => name.endsWith(RENEWED));
  }

  async createSegment(key: string): Promise<SegmentWriter> {
    checkKey(key);
    this.#checkWritable(`create segment ${key}`);
    return new S3Segment(this.#bucket, key, this.#budget, { onClosed: size => this.#sizes.remember(key, size) });
  }

  async createObject(key: string): Promise<SegmentWriter> {
    checkKey(key);
    this.#checkWritable(`create ${key}`);
    const lasting = { renew: () => this.#renew(key), stays: () => this.#lasts(key) };
    return new S3Segment(this.#bucket, key, this.#budget, { lasting });
  }

  async assemble(segments: readonly string[], key: string): Promise<void> {
    for (const one of [...segments, key]) checkKey(one);
    this.#checkWritable(`assemble ${key}`);
    const pieces = await Promise.all(
      segments.map(async segment => ({ key: segment, size: await this.#sizes.of(segment) })),
    );
    const size = pieces.reduce((sum, piece) => sum + piece.size, 0);
    const { threshold, chunkSize, concurrency } = this.options.copy;
    do {
      if (pieces.length === 1 && size <= threshold) await this.#bucket.copy(pieces[0]!.key, key);
      else if (size < SMALLEST_PART) {
        const whole = pieces.flatMap(piece =>
          piece.size > 0 ? [{ key: piece.key, range: { start: 0, end: piece.size - 1 } }] : [],
        );
        await this.#bucket.put(key, await gather(this.#bucket, whole));
        this.#passed += size;
      } else {
        const with_ = { bucket: this.#bucket, budget: this.#budget, copies: this.#copies, concurrency };
        // Such an object can carry the time at which it was begun.
        this.#passed += await joinParts(with_, key, planParts(pieces, chunkSize), () => this.#renew(key));
      }
    } while (!(await this.#lasts(key)));
  }

  async touch(key: string): Promise<boolean> {
    checkKey(key);
    this.#checkWritable(`touch ${key}`);
    if (!(await this.#bucket.find(key))) return false;
    for (;;) {
      await this.#renew(key);
      const spared = await this.#removals.spared(key);
      const found = await this.#look(key);
      if (!found) return false;
      if (spared || found.isRenewed) return true;
    }
  }

  async removeStale(key: string, known: Date | ObjectInfo): Promise<boolean> {
    checkKey(key);
    this.#checkWritable(`remove stale ${key}`);
    const isStale = ({ modified, version }: ObjectInfo) =>
      known instanceof Date
        ? modified < known
        : version === known.version && modified.getTime() === known.modified.getTime();
    const look = async () => {
      const found = await this.#look(key);
      return found && isStale(found.info) ? { also: found.isRenewed ? [key + RENEWED] : [] } : undefined;
    };
    return (await look()) !== undefined && this.#removals.remove(key, look);
  }

  /** Renewals whose objects are gone; not such as an object is about to come to. */
  async removeEmptyFolders(prefix: string): Promise<void> {
    checkKey(prefix);
    this.#checkWritable(`remove empty folders of ${prefix}`);
    const { objects, next } = await this.#bucket.list(`${prefix}/`);
    if (next !== undefined || objects.some(({ key }) => !key.endsWith(RENEWED))) return;
    const before = this.#bucket.now() - LEFT_ALONE;
    for (const { key, modified } of objects) if (modified.getTime() < before) await this.#bucket.deleteInTime(key);
  }

  #renew(key: string): Promise<void> {
    return this.#bucket.put(key + RENEWED, Buffer.alloc(0));
  }

  /** Whether an object that was just written is there, and no removal that is under way takes it. */
  async #stays(key: string): Promise<boolean> {
    return (await this.#removals.spared(key)) || (await this.#bucket.find(key)) !== undefined;
  }

  /**
   * The same for what may carry the time at which it was begun. So it was renewed before it was there; but whoever has removed
   * what stood there before may have taken the renewal along.
   */
  async #lasts(key: string): Promise<boolean> {
    return (await this.#removals.spared(key)) || this.touch(key);
  }

  /** The object with its renewal. @param known what a look at the object alone has told */
  async #look(key: string, known?: Found): Promise<(Found & { isRenewed: boolean }) | undefined> {
    const object = known ?? this.#bucket.find(key);
    const [found, renewal] = await Promise.all([object, this.#bucket.peek(key + RENEWED)]);
    if (!found) return undefined;
    const { info } = found;
    const modified = renewal && renewal.info.modified > info.modified ? renewal.info.modified : info.modified;
    return { ...found, info: { ...info, modified }, isRenewed: renewal !== undefined };
  }

  async #createOnCondition(key: string, data: Uint8Array, write: string): Promise<boolean> {
    try {
      await this.#bucket.putIfAbsent(key, data, write);
      return true;
    } catch (error) {
      if (!isUnmet(error)) throw s3Failure(`create ${key}`, error);
      // An answer may have been lost, on the way or to a proxy that asked again: then it is ours.
      return (await this.#bucket.find(key))?.write === write;
    }
  }

  async #createUnlessThere(key: string, data: Uint8Array, write: string): Promise<boolean> {
    if (await this.#bucket.find(key)) return false;
    await this.#bucket.put(key, data, write);
    return true;
  }

  /** Proves that objects can be written, read and removed, and finds out whether they are created on a condition. */
  async #probe(): Promise<void> {
    const bucket = this.#bucket;
    const key = `${PRIVATE}/tmp/${randomUUID()}`;
    const content = Buffer.from('check');
    const writes = async (): Promise<boolean> => {
      try {
        await bucket.putIfAbsent(key, content, newWrite());
        return true;
      } catch (error) {
        if (isUnmet(error)) return false;
        throw error;
      }
    };
    try {
      await writes();
      this.#conditional = !(await writes());
    } catch (error) {
      if (!isUnknown(error)) throw error;
      this.#conditional = false;
      await bucket.put(key, content);
    }
    const read = await this.get(key);
    await bucket.deleteWithin(60, key);
    if (!read?.equals(content) || (await bucket.find(key)))
      throw new StorageError('unavailable', 'what was written was not read, or what was removed is still there');
    if (!this.#conditional)
      this.options.onNotice?.(
        `the object store at ${bucket.endpoint} cannot create an object only where there is none: one process alone may serve this bucket (workers: 1)`,
      );
  }

  async #giveUpAbandoned(): Promise<void> {
    const before = this.#bucket.now() - ABANDONED;
    // The bucket may be shared with other programs.
    for (const own of ['docker/registry/v2/', `${PRIVATE}/`])
      for (const { key, id, started } of await this.#bucket.unfinishedUploads(own))
        if (started.getTime() < before) await this.#bucket.abortUpload(key, id);
  }

  #checkWritable(action: string): void {
    if (this.options.readOnly) throw new StorageError('unavailable', `${action}: the bucket is open for reading only`);
  }
}

function inParts<T>(items: readonly T[]): T[][] {
  const parts: T[][] = [];
  for (let start = 0; start < items.length; start += WIDTH) parts.push(items.slice(start, start + WIDTH));
  return parts;
}
