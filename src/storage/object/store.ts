import { randomBytes, randomUUID } from 'node:crypto';
import type { Readable } from 'node:stream';
import type { ByteRange } from '../../reference.js';
import { type ObjectInfo, StorageError } from '../driver.js';
import { PRIVATE } from '../format.js';
import type { Span } from '../redirect.js';
import type { Requests, ServiceError } from './requests.js';

/**
 * The objects of one bucket or container, by the driver's keys: what `ObjectDriver` needs of a service. Each call is one
 * request, or few, that is tried again (`Requests`) and carries a checksum that the service checks where it writes.
 * Whatever fails for good is a StorageError.
 */
export interface ObjectStore {
  /** Such as `azure`. */
  readonly name: string;
  /** How messages call it, such as `the container images at https://…`. */
  readonly place: string;
  /** Whether the service decides nothing between processes: conditions hold among the calls of this one only. */
  readonly solitary: boolean;
  readonly requests: Requests;
  readonly signer: Signer;

  /** What can be found out before the first object is touched. @throws OperatorError */
  prepare(): Promise<void>;
  close(): void;

  /** What to throw where the place cannot be opened: one line that says why, with the fix. */
  refusal(error: ServiceError): unknown;

  /** What is known of an object. That the bucket is gone is an error, never an absent object. */
  find(key: string): Promise<Found | undefined>;

  /** The object, or a range of it. @param bytes which are wanted, where that can be told; others may come all the same */
  get(key: string, options?: { range?: ByteRange | undefined; bytes?: string | undefined }): Promise<Body | undefined>;

  /**
   * Writes an object in one step.
   * @returns false where something else is there than was to be: also where an answer was lost and that is ours
   */
  put(key: string, data: Uint8Array, options: PutOptions): Promise<boolean>;

  /** Sets the time of change to now, if it is still the object that was found. */
  renew(key: string, found: Found): Promise<boolean>;

  /** Removes the object if it is still the one that was found. @returns false where it is another by now */
  remove(key: string, found: Pick<Found, 'etag'>): Promise<boolean>;

  /** Removes whatever has this key. Only for what nobody else writes: a request that comes late takes what is there then. */
  drop(key: string): Promise<void>;

  /** A page of the children of a folder, or with no `delimiter` of all below it. `prefix` ends with a slash. */
  list(prefix: string, options?: ListOptions): Promise<Page>;

  /** Begins an object of parts. Nobody sees it before it is complete. */
  startUpload(key: string): Upload;
  uploadPart(upload: Upload, number: number, data: Uint8Array): Promise<Part>;
  completeUpload(upload: Upload, parts: readonly Part[]): Promise<void>;
  abortUpload(upload: Upload, parts: readonly Part[]): Promise<void>;

  /** Gives the bytes of one object, or all of several in their order, to another, in one step as readers see it. */
  copy(from: string, key: string): Promise<void>;
  /** Where the service can do that by itself. None of the pieces is empty. */
  join?(pieces: readonly Piece[], key: string): Promise<void>;
}

/** Makes the URLs by which clients read objects from the service itself. */
export interface Signer {
  /** Where clients are sent. Known once the store is prepared. */
  readonly endpoint: string;
  /** Whether that is known to be an address for those inside, whatever its name. */
  readonly isInside?: boolean;

  /**
   * Finds out whether URLs can be signed that the service takes, and sees to it that they can.
   * @param options.readOnly whether nothing of the service may be changed for that
   * @returns why they cannot, for the operator
   */
  prepare(options: { readOnly: boolean }): Promise<string | undefined>;

  /** A URL of the object, for GET alone; undefined where none can be had now. Without a look at the object. */
  sign(key: string, span: Span): Promise<string | undefined>;
}

export interface PutOptions {
  /** Names this write, in `Found` too. */
  readonly write: string;
  /** What is to be there before: nothing, or what was found. Whatever there is unless told. */
  readonly over?: Pick<Found, 'etag'> | 'nothing' | undefined;
}

/** What one request has told of an object. */
export interface Found {
  readonly info: ObjectInfo;
  /** Changes with whatever is done to the object, a renewal too. */
  readonly etag: string;
  /** Changes with the bytes, and not with a renewal, as far as the service lets that be told. */
  readonly bytes: string;
  /** Which write has made it; undefined where another program did. */
  readonly write: string | undefined;
  /** What the service keeps beside the bytes, for those of its requests that replace all of it. */
  readonly metadata?: Readonly<Record<string, string>>;
}

export type Body = Found & { readonly body: Readable };

export interface ListOptions {
  readonly after?: string | undefined;
  readonly token?: string | undefined;
  readonly delimiter?: '/' | undefined;
  readonly most?: number | undefined;
}

export interface Page {
  /** With the `etag` of `Found` where the list tells it. */
  readonly objects: Array<{ readonly key: string; readonly modified: Date; readonly etag?: string | undefined }>;
  /** Without the slash at their end. */
  readonly folders: string[];
  readonly next: string | undefined;
}

export interface Upload {
  readonly key: string;
  /** Nobody else's. */
  readonly id: string;
}

export interface Part {
  readonly number: number;
  readonly size: number;
  /** What the service wants to be told of it at the end. */
  readonly tag: string;
}

export interface Piece {
  readonly key: string;
  readonly size: number;
}

/** How many names a list has at once, unless told. */
export const PAGE_SIZE = 1000;

/** Names the write that has made an object, in its metadata: two of the same bytes look alike otherwise. */
export const WRITE = 'registrysecurewrite';

/** What tells the bytes of an object from others of its key, where only the write does. */
export function bytesOf(write: string | undefined, size: number, etag: string): string {
  return write === undefined ? etag : `${write} ${size}`;
}

export function newWrite(): string {
  return randomBytes(8).toString('hex');
}

/** Where what has no name yet is; what is old there was left by a process that died. */
export const TEMPORARY = `${PRIVATE}/tmp/`;

export function temporaryKey(): string {
  return `${TEMPORARY}${randomUUID()}`;
}

/**
 * The object that an answer brings, whose stream is given up where it is another one.
 * @param answer.range what was asked for
 * @param found what the answer tells of the object; of the whole of it (bytes) where a part was asked for
 * @throws StorageError where another range came; what `found` throws
 */
export function bodyOf(
  key: string,
  body: Readable,
  { range, contentRange }: { range: ByteRange | undefined; contentRange: string | undefined },
  found: (total: string | undefined) => Found | undefined,
): Body | undefined {
  const [, start, total] = /^bytes (\d+)-\d+\/(\d+)$/.exec(contentRange ?? '') ?? [];
  try {
    if (Number(start ?? 0) !== (range?.start ?? 0))
      throw new StorageError('unavailable', `read ${key}: another range came than was asked for`);
    const object = found(total);
    return object && { ...object, body };
  } catch (error) {
    body.on('error', () => {}).destroy();
    throw error;
  }
}
