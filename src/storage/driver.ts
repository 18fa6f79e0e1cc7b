import type { ByteRange } from '../reference.js';

/**
 * Where bytes live. Keys are relative paths of `/`-joined components, all of them made by `store/layout.ts` from
 * validated names, so none is empty, `.`, `..` or holds a NUL. Whatever resolves has happened durably: it survives
 * SIGKILL and, where said, a power cut. Absence is an answer (undefined, false), never an exception.
 */
export interface StorageDriver {
  readonly name: string;

  /**
   * Names the stretch of time in which bytes that were written but not flushed are still there: a machine's boot on a
   * file system, always the same on a store that acknowledges only what is durable.
   */
  readonly epoch: string;

  /**
   * Whether one process alone may write here, since the place cannot create an object only where there is none. Known once it
   * is open; no unless told.
   */
  readonly solitary?: boolean;

  /** Checks that the place can be read and written, and makes what is missing. @throws OperatorError with the fix. */
  open(): Promise<void>;
  close(): Promise<void>;

  /** What keeps everything from being written now, where the place can tell: no room, or a failure until the next start. */
  impediment?(): Promise<'full' | 'failed' | undefined>;

  /**
   * What is known of one object without reading it; undefined when there is none.
   * @param options.enough of one that was changed at that time or later it need not be found out whether it was touched since:
   *   `modified` may then be earlier than it is, but not than that
   */
  stat(key: string, options?: { enough?: Date }): Promise<ObjectInfo | undefined>;

  /**
   * A whole small object, not to be changed: the next who asks may get the very same.
   * @throws StorageError 'unavailable' when it is larger than `limit` bytes (default 16 MiB).
   */
  get(key: string, limit?: number): Promise<Buffer | undefined>;

  /**
   * What `get` or `list` would answer, where that can be told at once, by a look at what is there now; undefined where it
   * cannot, and for what is not there.
   */
  recall?(key: string): Recalled | undefined;

  /** An object, or the given range of it. Opened before it resolves, so absence is known by then. */
  read(key: string, range?: ByteRange): Promise<ByteStream | undefined>;

  /**
   * A URL by which whoever has it can read the object, or a range of it, by GET for the next minutes: a secret. It is made without
   * a look at the object. Undefined where pulls are not to be sent elsewhere.
   */
  readUrl?(key: string): Promise<string | undefined>;

  /** Replaces a small object atomically: a reader sees the old bytes or the new ones. Survives a power cut. */
  write(key: string, data: Uint8Array, options?: Settling): Promise<void>;

  /**
   * Creates a small object unless there is one: of any number of callers in any process exactly one has true. Its
   * content is complete from the first moment. The one primitive of concurrency. Survives a power cut unless
   * `durable` is false (then SIGKILL only).
   * @param options.secret nobody else can know the key yet: then nobody is kept from seeing it half made
   */
  create(key: string, data: Uint8Array, options?: { durable?: boolean; secret?: boolean }): Promise<boolean>;

  /** Removes one object; false when there was none. Survives a power cut. */
  remove(key: string): Promise<boolean>;

  /**
   * Removes every object below the folder `prefix`, in the order of their names, and where the place has folders, those.
   * Survives a power cut unless `durable` is false. Symbolic links go, what they point at stays.
   */
  removeAll(prefix: string, options?: { durable?: boolean }): Promise<void>;

  /**
   * The children of a folder in the byte order of their names, from after `after`, at most `limit` (default: all). Who
   * gets the very same list again knows that there was no change.
   */
  list(prefix: string, options?: { after?: string; limit?: number }): Promise<readonly Entry[]>;

  /** Starts an object of unknown size that nobody refers to yet. Not durable until `assemble`. */
  createSegment(key: string): Promise<SegmentWriter>;

  /**
   * Starts an object of unknown size under the name that it is to keep, and of which nobody sees anything until it is closed;
   * then it replaces what is there, survives a power cut, and `abort` does nothing any more. Only where `assemble` has to copy.
   */
  createObject?(key: string): Promise<SegmentWriter>;

  /**
   * Makes one object of the segments, in order, replacing what is there. No reader sees a part. Survives a power cut. The
   * segments stay, so that it can be done again by whoever crashes before the object is referred to. No segment at all
   * makes an empty object.
   */
  assemble(segments: readonly string[], key: string, options?: Settling): Promise<void>;

  /**
   * Brings to the disk, all at once, the names of objects that were written with `settled: false`. Not there where nothing
   * has to be done for them.
   */
  settle?(keys: readonly string[]): Promise<void>;

  /**
   * Gives the bytes of an object of another place to one of the same key here, replacing what is there, without a copy.
   * Survives a power cut. From then on the two share their bytes and their times. Only for objects that nobody writes to.
   * @param check reads those very bytes, once it is known that they can be shared: where it throws, so does this, and nothing was done
   * @returns false where it cannot be done, and nothing was
   */
  share?(source: StorageDriver, key: string, check: (bytes: ByteStream) => Promise<void>): Promise<boolean>;

  /**
   * Sets an object's time of last change to now, which renews a lease; false when there is none. After true the object
   * is there, and no `removeStale` of a time in the past takes it.
   */
  touch(key: string): Promise<boolean>;

  /**
   * Removes one object unless it was changed, replaced or touched at `known` or later; or, where that is what `stat` has
   * told, since then. Atomic against all of those, in any process: an object that has to stay is never absent, not for a moment, nor after a crash. Takes the folders that
   * this leaves empty along. Not for keys that `create` decides. Survives a power cut unless `durable` is false.
   * @returns whether it has removed one
   */
  removeStale(key: string, known: Date | ObjectInfo, options?: { durable?: boolean }): Promise<boolean>;

  /** Removes the folder, those below it and those above, as far as they hold no object. Where there are no folders, nothing. */
  removeEmptyFolders(prefix: string): Promise<void>;
}

/** For `stat`, where the time of change is not asked for. */
export const WHENEVER = { enough: new Date(0) };

export interface Settling {
  /** False: the bytes survive a power cut, but under their name only once `settle` was called for it. */
  readonly settled?: boolean;
}

export interface ObjectInfo {
  readonly size: number;
  /** When it was changed, replaced or touched last. Where a store counts in whole seconds, the end of that second. */
  readonly modified: Date;
  /** Opaque. Whenever the object has been written or replaced it is another one, for every process. */
  readonly version: string;
}

/** Of an object its content, of a folder its entries, where they are known; the very same as long as there was no change. */
export interface Recalled {
  readonly content?: Buffer;
  readonly entries?: readonly Entry[];
}

/** How many chunks of a `ByteStream` are good at a time. */
export const LENT_CHUNKS = 3;

/**
 * The bytes of an object, in order. Chunks are lent: one stays as it is until the third `next` after its own is called,
 * so that a driver can use its buffers again. Who keeps one for longer copies it. To be read to its end, or given up by
 * `return`, as `for await` does; both free everything.
 */
export interface ByteStream extends AsyncIterableIterator<Buffer> {
  /** Of the whole object, as it was when it was opened: these are its bytes, whatever has taken its name since. */
  readonly info: ObjectInfo;
  return(): Promise<IteratorReturnResult<undefined>>;
}

export interface Entry {
  readonly name: string;
  /** Whether it has children of its own. On an object store a name can be both: then it is listed twice, object first. */
  readonly folder: boolean;
}

/** Takes the bytes of one segment in order. Not for concurrent calls. */
export interface SegmentWriter {
  /** Copies a chunk. Await the result before the next call, and before the chunk is changed: it is the backpressure. */
  write(chunk: Uint8Array): Promise<void> | undefined;
  /** All accepted bytes are in the object and survive SIGKILL. Resolves to their number. */
  close(): Promise<number>;
  /** Forgets the segment, also a closed one, and frees its place. Never throws. What `assemble` made of it stays. */
  abort(): Promise<void>;
}

/**
 * The storage cannot do what it should. `full`: no space or inodes or quota (507). `unavailable`: anything else (503).
 * The message is for the log, never for the client.
 */
export class StorageError extends Error {
  override readonly name = 'StorageError';
  constructor(
    readonly kind: 'full' | 'unavailable',
    message: string,
    cause?: unknown,
  ) {
    super(message, { cause });
  }
}

/** For what may be left undone when there is no room. */
export function unlessFull(error: unknown): undefined {
  if (!(error instanceof StorageError && error.kind === 'full')) throw error;
}
