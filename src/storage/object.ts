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
import { PartBudget } from './object/parts.js';
import { ObjectReader } from './object/reader.js';
import { ServiceError, UNREADABLE } from './object/requests.js';
import { ObjectSegment } from './object/segment.js';
import { SegmentSizes } from './object/segment-sizes.js';
import {
  newWrite,
  type ObjectStore,
  type Page,
  type Piece,
  type PutOptions,
  TEMPORARY,
  temporaryKey,
} from './object/store.js';
import { redirectsOf, spanOf } from './redirect.js';

const MIB = 1024 * 1024;

const SMALL_OBJECT = 16 * MIB;

/** How many requests run at once on behalf of one call. */
const WIDTH = 16;

/** How far the clocks may lie apart (ms): leases and the collector compare times of both. */
const MOST_SKEW = 5 * 60_000;

/** How long it counts that a list showed what was just written (ms). */
const LISTS_HOLD = 60_000;

/** After this time (ms) what has no name yet is what a process that died has left. */
const ABANDONED = 7 * 24 * 3_600_000;

/** What of an object store the operator has a say in. */
export interface ObjectDriverOptions {
  /** Of the parts in which blobs are uploaded, in bytes. */
  readonly chunkSize: number;
  readonly readOnly: boolean;
  /** Told what the operator should know about the service. */
  readonly onNotice?: ((message: string) => void) | undefined;
  /** Whether clients are sent to the service for what they pull: not at all, unless told. */
  readonly redirect?: RedirectOptions | undefined;
}

interface RedirectOptions {
  /** `storage.redirect.disable` */
  readonly disable: boolean | undefined;
  /** Told what speaks against it, where it was asked for. */
  readonly onWarning: (message: string) => void;
}

/**
 * Objects of a service that removes an object only while it is still the one that was looked at, and can set its time. So
 * what `removeStale` promises needs nothing but that condition (docs/decisions/0028). What the service has answered is durable,
 * and its lists show it.
 */
export class ObjectDriver implements StorageDriver {
  readonly name: string;
  readonly epoch: string;
  readonly #budget: PartBudget;
  readonly #sizes = new SegmentSizes(segment => this.store.find(segment));
  #passed = 0;
  #redirects = false;
  #listed = { at: Number.NEGATIVE_INFINITY, current: Promise.resolve() };

  constructor(
    private readonly store: ObjectStore,
    private readonly options: ObjectDriverOptions,
  ) {
    this.name = store.name;
    this.epoch = store.name;
    this.#budget = new PartBudget(options.chunkSize);
  }

  /** How many requests of each kind were sent to the service. */
  get requests(): ReadonlyMap<string, number> {
    return this.store.requests.counts;
  }

  /** How many bytes have passed through this machine once more, since the service could not join them by itself. */
  get passedAgain(): number {
    return this.#passed;
  }

  get solitary(): boolean {
    return this.store.solitary;
  }

  async open(): Promise<void> {
    const { store } = this;
    try {
      await store.prepare();
      await store.list(`${PRIVATE}/`, { most: 1 });
      this.#checkClock();
      const format = await this.get(FORMAT_FILE.key, 1024);
      if (format) checkFormat(format.toString('utf8'), `${FORMAT_FILE.key} in ${store.place}`);
      await this.#prepareRedirects();
      if (this.options.readOnly) return;
      await this.#probe();
      if (!format) await this.create(FORMAT_FILE.key, FORMAT_FILE.content);
    } catch (error) {
      throw this.#refusal(error);
    }
    if (store.solitary)
      this.options.onNotice?.(
        `${store.place} cannot decide between processes: one alone may serve it (workers: 1), and gc and the like run in that one`,
      );
    this.#tidy().catch(() => undefined);
  }

  async close(): Promise<void> {
    this.store.close();
  }

  async stat(key: string): Promise<ObjectInfo | undefined> {
    checkKey(key);
    return (await this.store.find(key))?.info;
  }

  async get(key: string, limit = SMALL_OBJECT): Promise<Buffer | undefined> {
    checkKey(key);
    const found = await this.store.get(key);
    if (!found) return undefined;
    const { size } = found.info;
    const reader = new ObjectReader(this.store, key, found, 0, size);
    if (size > limit) {
      await reader.return();
      throw new StorageError('unavailable', `get ${key}: it has ${size} bytes, more than ${limit}`);
    }
    const chunks: Buffer[] = [];
    for await (const chunk of reader) chunks.push(chunk);
    return Buffer.concat(chunks);
  }

  async read(key: string, range?: ByteRange): Promise<ByteStream | undefined> {
    checkKey(key);
    const found = await this.store.get(key, { range });
    if (!found) return undefined;
    const end = range === undefined ? found.info.size : Math.min(range.end + 1, found.info.size);
    return new ObjectReader(this.store, key, found, range?.start ?? 0, end);
  }

  async readUrl(key: string): Promise<string | undefined> {
    checkKey(key);
    const { signer, requests } = this.store;
    return this.#redirects ? signer.sign(key, spanOf(Date.now() + requests.ahead)) : undefined;
  }

  async write(key: string, data: Uint8Array): Promise<void> {
    checkKey(key);
    this.#checkWritable(`write ${key}`);
    const write = newWrite();
    if (this.store.solitary) return void (await this.store.put(key, data, { write }));
    // What is sent again because it had no answer may also come late: by then there is another object than was found.
    let found = await this.store.find(key);
    let over: PutOptions['over'] = found ?? 'nothing';
    let neither = 0;
    while (!(await this.store.put(key, data, { write, over }))) {
      const next = await this.store.find(key);
      // It is ours, whose answer was lost; or another one's, and then it is as if that had come right after.
      if (next && next.write !== found?.write) return;
      if (next && next.etag === found?.etag)
        throw new StorageError('unavailable', `write ${key}: it was refused, although nothing has changed there`);
      // What is there time and again, and yet is no object, such as a copy that failed leaves, has no version to name.
      if (!next && !found) neither++;
      over = next ?? (neither < 2 ? 'nothing' : undefined);
      found = next;
    }
  }

  async create(key: string, data: Uint8Array): Promise<boolean> {
    checkKey(key);
    this.#checkWritable(`create ${key}`);
    const write = newWrite();
    if (await this.store.put(key, data, { write, over: 'nothing' })) return true;
    // An answer may have been lost, and the request sent again: then it is ours that is there.
    return (await this.store.find(key))?.write === write;
  }

  async remove(key: string): Promise<boolean> {
    checkKey(key);
    this.#checkWritable(`remove ${key}`);
    const first = await this.store.find(key);
    for (let found = first; found; found = await this.store.find(key)) {
      // Another object by now: then it is as if that had come right after the removal.
      if (found.write !== first!.write) return true;
      if (await this.store.remove(key, found)) return true;
    }
    return first !== undefined;
  }

  async removeAll(prefix: string): Promise<void> {
    checkKey(prefix);
    this.#checkWritable(`remove all of ${prefix}`);
    let isFirst = true;
    for (let token: string | undefined, last = false; !last; ) {
      const { objects, next } = await this.store.list(`${prefix}/`, { token });
      // The first by itself: it is the one without which the others count for nothing.
      if (isFirst) for (const object of objects.splice(0, 1)) await this.#removeListed(object);
      for (let at = 0; at < objects.length; at += WIDTH)
        await allDone(objects.slice(at, at + WIDTH).map(object => this.#removeListed(object)));
      isFirst = false;
      token = next;
      last = next === undefined;
    }
  }

  async list(prefix: string, options: { after?: string; limit?: number } = {}): Promise<Entry[]> {
    checkKey(prefix);
    return listChildren(this.store, prefix, options, () => false);
  }

  async createSegment(key: string): Promise<SegmentWriter> {
    checkKey(key);
    this.#checkWritable(`create segment ${key}`);
    return new ObjectSegment(this.store, key, this.#budget, size => this.#sizes.remember(key, size));
  }

  async assemble(segments: readonly string[], key: string): Promise<void> {
    for (const one of [...segments, key]) checkKey(one);
    this.#checkWritable(`assemble ${key}`);
    const pieces = await Promise.all(
      segments.map(async segment => ({ key: segment, size: await this.#sizes.of(segment) })),
    );
    const filled = pieces.filter(({ size }) => size > 0);
    if (filled.length === 0) await this.store.put(key, Buffer.alloc(0), { write: newWrite() });
    else if (filled.length === 1) await this.store.copy(filled[0]!.key, key);
    else if (this.store.join) await this.store.join(filled, key);
    else await this.#joinHere(filled, key);
  }

  async touch(key: string): Promise<boolean> {
    checkKey(key);
    this.#checkWritable(`touch ${key}`);
    for (;;) {
      const found = await this.store.find(key);
      if (!found) return false;
      if (await this.store.renew(key, found)) return true;
    }
  }

  async removeStale(key: string, known: Date | ObjectInfo): Promise<boolean> {
    checkKey(key);
    this.#checkWritable(`remove stale ${key}`);
    const found = await this.store.find(key);
    if (!found) return false;
    const { modified, version } = found.info;
    const isStale = known instanceof Date ? modified < known : version === known.version;
    if (!isStale) return false;
    await this.#checkLists();
    return this.store.remove(key, found);
  }

  /** There are no folders. */
  async removeEmptyFolders(prefix: string): Promise<void> {
    checkKey(prefix);
  }

  async #removeListed({ key, etag }: Page['objects'][number]): Promise<void> {
    if (etag === undefined) await this.store.drop(key);
    else if (!(await this.store.remove(key, { etag }))) await this.remove(key);
  }

  /** By way of this machine, under another name first: readers see it whole or not at all. */
  async #joinHere(pieces: readonly Piece[], key: string): Promise<void> {
    const joined = temporaryKey();
    const writer = new ObjectSegment(this.store, joined, this.#budget, () => {});
    try {
      for (const piece of pieces) {
        const stream = await this.read(piece.key);
        if (!stream) throw new StorageError('unavailable', `assemble: the segment ${piece.key} is gone`);
        for await (const chunk of stream) await writer.write(chunk);
      }
      this.#passed += await writer.close();
      await this.store.copy(joined, key);
    } finally {
      await writer.abort();
    }
  }

  async #tidy(): Promise<void> {
    const before = Date.now() + this.store.requests.ahead - ABANDONED;
    const { objects } = await this.store.list(TEMPORARY);
    for (const { key, modified } of objects) if (modified.getTime() < before) await this.store.drop(key);
  }

  /**
   * Who collects by old lists removes what is needed: Swift may show such, and so may what speaks the API of another.
   * @throws StorageError
   */
  #checkLists(): Promise<void> {
    if (performance.now() - this.#listed.at > LISTS_HOLD) {
      const at = performance.now();
      this.#listed = { at, current: this.#tryList() };
      this.#listed.current.catch(() => {
        if (this.#listed.at === at) this.#listed = { at: Number.NEGATIVE_INFINITY, current: Promise.resolve() };
      });
    }
    return this.#listed.current;
  }

  async #tryList(): Promise<void> {
    const folder = temporaryKey();
    const key = `${folder}/1`;
    await this.store.put(key, Buffer.alloc(0), { write: newWrite() });
    const { objects } = await this.store.list(`${folder}/`);
    await this.store.drop(key);
    if (!objects.some(object => object.key === key))
      throw new StorageError('unavailable', 'the lists of this object store lag behind: nothing can be removed safely');
  }

  #checkClock(): void {
    const apart = Math.abs(this.store.requests.ahead);
    if (apart <= MOST_SKEW) return;
    throw new OperatorError(
      `the clocks of this machine and of the object store lie ${Math.round(apart / 60_000)} minutes apart`,
      { fix: 'set the clock of this machine, best by NTP: timedatectl set-ntp true' },
    );
  }

  async #prepareRedirects(): Promise<void> {
    const { redirect, readOnly } = this.options;
    if (!redirect) return;
    const { signer } = this.store;
    const { on, warning } = redirectsOf(redirect.disable, signer.endpoint, signer.isInside);
    if (!on) return;
    const refusal = await signer.prepare({ readOnly });
    this.#redirects = refusal === undefined;
    const message = refusal === undefined ? warning : `pulls are streamed through this machine: ${refusal}`;
    if (message !== undefined && redirect.disable === false) redirect.onWarning(message);
  }

  /** Why the place cannot be opened, in one line with the way out. */
  #refusal(error: unknown): unknown {
    const { store } = this;
    const cause = error instanceof StorageError ? (error.cause ?? error) : error;
    if (cause instanceof ServiceError && cause.code !== UNREADABLE) return store.refusal(cause);
    if (!(error instanceof StorageError) || cause instanceof OperatorError) return cause;
    const fix = `check storage.${store.name}.* and the service`;
    return new OperatorError(`${store.place} cannot be used: ${error.message}`, { fix, cause });
  }

  /** Proves that objects can be written, read and removed, and that the conditions hold on which all else rests. */
  async #probe(): Promise<void> {
    const key = temporaryKey();
    const content = Buffer.from('check');
    const isCreated = await this.create(key, content);
    const again = await this.create(key, content);
    const read = await this.get(key);
    const removed = await this.remove(key);
    if (!isCreated || !read?.equals(content) || !removed || (await this.store.find(key)))
      throw new StorageError('unavailable', 'what was written was not read, or what was removed is still there');
    if (again) throw new StorageError('unavailable', 'an object was created where there was one');
  }

  #checkWritable(action: string): void {
    if (this.options.readOnly)
      throw new StorageError('unavailable', `${action}: ${this.store.place} is open for reading only`);
  }
}
