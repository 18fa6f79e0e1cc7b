import {
  type BigIntStats,
  close,
  closeSync,
  fdatasync,
  fstat,
  fstatSync,
  fsync,
  open,
  openSync,
  statSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { systemCode } from '../../errors.js';
import { growingCache } from '../../growing-cache.js';
import { StorageError } from '../driver.js';
import { isAbsent, isFull } from './failure.js';
import type { Mount } from './mount.js';

/** How a file or folder is flushed; tests put a failing disk here. */
export type Sync = (descriptor: number, path: string, kind: 'file' | 'folder') => Promise<void>;

const flush = promisify(fsync);
const flushData = promisify(fdatasync);
const openFolder = promisify(open);
const statFolder = promisify(fstat);
const closeFolder = promisify(close);

export const sync: Sync = async (descriptor, _path, kind) => {
  if (kind === 'file') return flushData(descriptor);
  try {
    await flush(descriptor);
  } catch (error) {
    // Some network and shared-folder file systems keep no entries of their own that could be flushed.
    if (systemCode(error) !== 'EINVAL') throw error;
  }
};

/** One that is forgotten costs a flush more, of the folder above. */
const REMEMBERED_FOLDERS = 4_000;

/** Of the threads that all work on files is done by (libuv's), two are not for flushes: on a slow disk who pulls has those. */
const FLUSHING_THREADS = Math.max(1, (Number(process.env.UV_THREADPOOL_SIZE) || 4) - 2);

/**
 * Brings files and folders to the disk. A new file survives a power cut only when its folder is flushed after the
 * entry was made, and every folder above that was made for it, or by another request a moment ago, as well.
 *
 * The first flush that fails ends all writing: the kernel reports a lost page once and then calls it clean
 * (fsync(2), "Errors"), so a second try proves nothing. From then on `check` throws, in this process.
 */
export class Flusher {
  /**
   * Folders whose whole chain of entries up to the root is on the disk, by path, with the identity of the folder
   * that was there: another process may have removed it and made it anew.
   */
  readonly #settled = growingCache<string, string>(REMEMBERED_FOLDERS);
  /** Of each folder the flush that has begun, and the one that waits for it and serves all who came later. */
  readonly #running = new Map<string, Promise<string | undefined>>();
  readonly #waiting = new Map<string, Promise<string | undefined>>();
  readonly #turns = new Turns(FLUSHING_THREADS);
  #early = false;
  #fault: string | undefined;

  constructor(
    readonly root: string,
    readonly sync: Sync,
    readonly onFault: (message: string) => void,
    private readonly mount?: Pick<Mount, 'isLocal'>,
  ) {}

  get hasFailed(): boolean {
    return this.#fault !== undefined;
  }

  /** @throws StorageError 'unavailable' once a flush has failed. */
  check(): void {
    if (this.#fault !== undefined) throw new StorageError('unavailable', this.#fault);
  }

  /** Does something that holds a thread for as long as the disk needs, as a flush does, when it is its turn. */
  inTurn<T>(action: () => Promise<T>): Promise<T> {
    return this.#turns.take(action);
  }

  /** Flushes the content of a file. */
  async file(descriptor: number, path: string): Promise<void> {
    await this.inTurn(() => this.#sync(descriptor, path, 'file'));
    this.check();
  }

  /**
   * Begins to flush what a long upload has written so far, so that its last flush is short. Undefined while another
   * does: those that have an answer to wait for come first.
   */
  early(descriptor: number, path: string): Promise<void> | undefined {
    if (this.#early) return undefined;
    this.#early = true;
    return this.file(descriptor, path).finally(() => {
      this.#early = false;
    });
  }

  /**
   * Flushes a folder whose entries the caller has just changed, and the folders above until one whose own chain is
   * known to be on the disk, or `top`. A folder that is gone meanwhile took the change with it: then the one above counts.
   */
  async folder(path: string, top = this.root): Promise<void> {
    const flushed: [string, string][] = [];
    const expected = this.#expected(path, top);
    for (let at = path; ; at = dirname(at)) {
      const identity = await (expected.get(at) ?? this.#shared(at));
      if (identity !== undefined) {
        if (this.#settled.get(at) === identity) break;
        flushed.push([at, identity]);
      }
      if (at === top) break;
    }
    await Promise.all(expected.values());
    // Another's flush of the same folder may have failed after ours was asked for, and have taken our entry along.
    this.check();
    for (const [at, identity] of flushed) if (identity !== '') this.#settled.set(at, identity);
  }

  /** Begins the flushes that will be needed, as far as a look tells: at once, one after the other they take as many times as long. */
  #expected(path: string, top: string): Map<string, Promise<string | undefined>> {
    const flushes = new Map<string, Promise<string | undefined>>();
    if (!this.mount?.isLocal) return flushes;
    for (let at = path; ; at = dirname(at)) {
      const identity = identityOf(statSync(at, { bigint: true, throwIfNoEntry: false }));
      const flush = this.#shared(at);
      // Who waits for them hears of it; until then nobody does.
      flush.catch(() => undefined);
      flushes.set(at, flush);
      if (at === top || (identity !== undefined && this.#settled.get(at) === identity)) return flushes;
    }
  }

  /** The caller has removed this folder. */
  forget(path: string): void {
    this.#settled.delete(path);
  }

  /** One flush serves all who asked before it began; who asks later waits for the next. */
  #shared(path: string): Promise<string | undefined> {
    const waiting = this.#waiting.get(path);
    if (waiting !== undefined) return waiting;
    const before = this.#running.get(path)?.catch(() => undefined);
    const next = Promise.resolve(before).then(() => this.#turns.take(() => this.#begin(path)));
    this.#waiting.set(path, next);
    return next;
  }

  #begin(path: string): Promise<string | undefined> {
    this.#waiting.delete(path);
    const done = this.#flushFolder(path).finally(() => {
      if (this.#running.get(path) === done) this.#running.delete(path);
    });
    this.#running.set(path, done);
    return done;
  }

  /** The identity of the flushed folder, '' where the file system tells none; undefined when there is no such folder. */
  async #flushFolder(path: string): Promise<string | undefined> {
    // The kernel has it in memory, since the caller has just changed it.
    const local = this.mount?.isLocal ?? false;
    let folder: number;
    try {
      folder = local ? openSync(path, 'r') : await openFolder(path, 'r');
    } catch (error) {
      if (isAbsent(error)) return undefined;
      throw error;
    }
    try {
      const stats = local ? fstatSync(folder, { bigint: true }) : await statFolder(folder, { bigint: true });
      await this.#sync(folder, path, 'folder');
      return identityOf(stats);
    } finally {
      if (local) closeSync(folder);
      else await closeFolder(folder);
    }
  }

  async #sync(descriptor: number, path: string, kind: 'file' | 'folder'): Promise<void> {
    try {
      await this.sync(descriptor, path, kind);
    } catch (error) {
      if (isFull(error)) throw error;
      const first = this.#fault === undefined;
      this.#fault ??= `the store is read-only because flushing ${path} to the disk failed (${systemCode(error) ?? error}): check the disk, then restart`;
      if (first) this.onFault(this.#fault);
      throw new StorageError('unavailable', this.#fault, error);
    }
  }
}

/** Numbers of removed folders are used again, so without a time of birth, '' here, no folder can be recognised. */
function identityOf(stats: BigIntStats): string;
function identityOf(stats: BigIntStats | undefined): string | undefined;
function identityOf(stats: BigIntStats | undefined): string | undefined {
  if (!stats) return undefined;
  const { ino, birthtimeNs } = stats;
  return birthtimeNs === 0n ? '' : `${ino}:${birthtimeNs}`;
}

/** Lets so many do something at a time, in the order in which they asked. */
class Turns {
  readonly #waiting: (() => void)[] = [];

  constructor(private free: number) {}

  async take<T>(action: () => Promise<T>): Promise<T> {
    if (this.free > 0) this.free -= 1;
    else await new Promise<void>(resolve => this.#waiting.push(resolve));
    try {
      return await action();
    } finally {
      // Who waits has this one's turn.
      const next = this.#waiting.shift();
      if (next) next();
      else this.free += 1;
    }
  }
}
