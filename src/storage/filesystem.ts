import { randomUUID } from 'node:crypto';
import type { Stats } from 'node:fs';
import { link, open, unlink } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { systemCode } from '../errors.js';
import { makeFolders } from '../folder.js';
import type { ByteRange } from '../reference.js';
import {
  type ByteStream,
  type Entry,
  type ObjectInfo,
  type Recalled,
  type SegmentWriter,
  type Settling,
  type StorageDriver,
  StorageError,
} from './driver.js';
import { BufferBudget } from './filesystem/budget.js';
import { Calls } from './filesystem/calls.js';
import { append, clone } from './filesystem/copy.js';
import { currentSeconds, isBack, removeFile, removeStaleFile, renew } from './filesystem/doomed.js';
import { ABSENT, ignoreAbsence, isAbsent, isFull, storageFailure } from './filesystem/failure.js';
import { Flusher, type Sync, sync } from './filesystem/flusher.js';
import { isLosing, outOfStep, pruneFolders, removeFolder, TRIES } from './filesystem/folders.js';
import { firstAfter, readFolder } from './filesystem/listing.js';
import { Mount, volumeEpoch } from './filesystem/mount.js';
import { FileReader } from './filesystem/reader.js';
import { Recent, type Seen } from './filesystem/recent.js';
import { FileSegment } from './filesystem/segment.js';
import { readSmall } from './filesystem/small.js';
import { SpareFolders } from './filesystem/spares.js';
import { checkVolume, prepareVolume, refusal } from './filesystem/volume.js';
import { FORMAT_FILE, PRIVATE } from './format.js';
import { checkKey } from './key.js';

export interface FilesystemOptions {
  /** The folder that holds `docker/registry/v2`, as in `registry:2`. Made when missing. */
  readonly root: string;
  /** Writes nothing, not even at the start. */
  readonly readOnly?: boolean;
  /** Told once, with a line for the log, when a failed flush has turned the store read-only. */
  readonly onFault?: (message: string) => void;
  /** Stands for fdatasync and fsync where a test needs a disk that fails, or none to wait for. */
  readonly sync?: Sync;
  /** How long a file must have been left alone before its content is kept (ms): for tests that cannot wait. */
  readonly settled?: number;
}

/** Of all open uploads and downloads together, so that a hundred of each stay far below the promised 256 MiB. */
const TRANSFER_BUFFERS = 32 * 1024 * 1024;

const SMALL_OBJECT = 16 * 1024 * 1024;

/** The content of objects up to this size may be kept, in bytes: links, and most records. */
const KEPT_CONTENT = 1024;

/**
 * Objects as files: the key is the path below the root. A file is written under a temporary name, flushed, and then
 * renamed or linked to its place; last its folders are flushed (see `Flusher`). So a reader never sees a part, and what
 * was answered survives a power cut.
 */
export class FilesystemDriver implements StorageDriver {
  readonly name = 'filesystem';
  readonly #root: string;
  readonly #readOnly: boolean;
  readonly #temporaries: string;
  readonly #flusher: Flusher;
  readonly #budget = new BufferBudget(TRANSFER_BUFFERS);
  readonly #mount: Mount;
  readonly #calls: Calls;
  readonly #makeFolder = (path: string, mode: number) => this.#calls.makeFolder(path, mode);
  readonly #isThere = (path: string) => this.#calls.isThere(path);
  readonly #spares: SpareFolders;
  readonly #recent: Recent;
  #epoch = '';

  constructor(options: FilesystemOptions) {
    this.#root = resolve(options.root);
    this.#temporaries = join(this.#root, PRIVATE, 'tmp');
    this.#readOnly = options.readOnly ?? false;
    this.#mount = new Mount(this.#root);
    this.#calls = new Calls(this.#mount);
    this.#spares = new SpareFolders(join(this.#root, PRIVATE, 'spare'));
    this.#recent = new Recent(this.#root, this.#mount, options.settled);
    this.#flusher = new Flusher(this.#root, options.sync ?? sync, options.onFault ?? (() => {}), this.#mount);
  }

  get epoch(): string {
    return this.#epoch;
  }

  async open(): Promise<void> {
    try {
      if (this.#readOnly) await checkVolume(this.#root);
      else {
        const used = await prepareVolume(this.#root, this.#flusher);
        if (!used) await this.create(FORMAT_FILE.key, FORMAT_FILE.content);
        await this.#spares.stock();
      }
      await this.#mount.remember();
      this.#recent.open();
      this.#epoch = await volumeEpoch(this.#root);
    } catch (error) {
      throw await refusal(this.#root, error);
    }
  }

  async close(): Promise<void> {}

  async impediment(): Promise<'full' | 'failed' | undefined> {
    if (this.#readOnly) return undefined;
    if (this.#flusher.hasFailed) return 'failed';
    return (await this.#mount.isFull(this.#temporary())) ? 'full' : undefined;
  }

  async stat(key: string): Promise<ObjectInfo | undefined> {
    const seen = await this.#recent.look(key);
    if (seen && !seen.isFolder) return objectInfo(seen);
    const path = this.#path(key);
    return this.#ifPresent(`stat ${key}`, path, async () => {
      const info = await this.#calls.stat(path);
      if (!info) throw ABSENT;
      if (info.isDirectory()) return undefined;
      this.#recent.meet(key);
      return objectInfo(info);
    });
  }

  async get(key: string, limit = SMALL_OBJECT): Promise<Buffer | undefined> {
    const seen = await this.#recent.look(key);
    if (seen?.content && seen.content.length <= limit) return seen.content;
    const path = this.#path(key);
    return this.#ifPresent(`get ${key}`, path, async () => {
      if (!seen && this.#calls.isMissing(path)) throw ABSENT;
      // Of what was seen a moment ago the kernel is likely to have the bytes too.
      const isLittle = seen && !seen.isFolder && seen.size < KEPT_CONTENT;
      const now = isLittle ? this.#calls.readNow(path) : undefined;
      const content = now && now.length <= limit ? now : await readSmall(path, limit);
      if (!seen) this.#recent.meet(key);
      else if (content.length <= KEPT_CONTENT) this.#recent.keep(key, seen, { content: alone(content) });
      return content;
    });
  }

  recall(key: string): Recalled | undefined {
    return this.#recent.recall(key);
  }

  async read(key: string, range?: ByteRange): Promise<ByteStream | undefined> {
    const path = this.#path(key);
    return this.#ifPresent(`read ${key}`, path, async () => {
      const handle = await open(path, 'r');
      try {
        const info = await handle.stat();
        const end = range === undefined ? info.size : Math.min(range.end + 1, info.size);
        if (!info.isDirectory()) return new FileReader(handle, objectInfo(info), range?.start ?? 0, end, this.#budget);
      } catch (error) {
        await handle.close();
        throw error;
      }
      await handle.close();
      return undefined;
    });
  }

  async write(key: string, data: Uint8Array, { settled = true }: Settling = {}): Promise<void> {
    const path = this.#path(key);
    await this.#change(`write ${key}`, async () => {
      const temporary = this.#temporary();
      await this.#fill(temporary, data, path, true);
      await this.#rename(temporary, path);
      // Who writes a link is about to read it.
      if (data.length <= KEPT_CONTENT) this.#recent.meet(key);
      if (settled) await this.#flusher.folder(dirname(path));
    });
  }

  async create(key: string, data: Uint8Array, { durable = true, secret = false } = {}): Promise<boolean> {
    const path = this.#path(key);
    return this.#change(`create ${key}`, async () => {
      const created = secret || (await this.#makeUnlessThere(path, data, durable));
      if (secret) await this.#fill(path, data, path, durable);
      // Also when another was first: who hears that the object is there relies on it as much as its maker.
      if (durable) await this.#flusher.folder(dirname(path));
      return created;
    });
  }

  async remove(key: string): Promise<boolean> {
    const path = this.#path(key);
    return this.#change(`remove ${key}`, async () => {
      const removed = await removeFile(path);
      if (removed) await this.#flusher.folder(dirname(path));
      return removed;
    });
  }

  async removeAll(prefix: string, { durable = true } = {}): Promise<void> {
    const path = this.#path(prefix);
    await this.#change(`remove all of ${prefix}`, async () => {
      const forget = (folder: string) => this.#flusher.forget(folder);
      await removeFolder(path, this.#calls, forget, () => this.#temporary());
      if (durable) await this.#flusher.folder(dirname(path));
    });
  }

  async list(
    prefix: string,
    { after = '', limit = Number.POSITIVE_INFINITY }: { after?: string; limit?: number } = {},
  ): Promise<readonly Entry[]> {
    const folder = await this.#recent.look(prefix);
    const all = folder?.entries ?? (await this.#readFolder(prefix, folder));
    const start = after === '' ? 0 : firstAfter(all, after);
    return start === 0 && limit >= all.length ? all : all.slice(start, start + limit);
  }

  async createSegment(key: string): Promise<SegmentWriter> {
    const path = this.#path(key);
    // What lies among the temporaries, where nobody else can look, may end up anywhere.
    const mode = this.#private(path) && !this.#isTemporary(path) ? 0o600 : 0o644;
    return this.#change(`create segment ${key}`, async () => {
      const handle = await this.#inFolder(path, () => open(path, 'wx', mode));
      return new FileSegment(handle, path, this.#budget, this.#flusher);
    });
  }

  async assemble(segments: readonly string[], key: string, { settled = true }: Settling = {}): Promise<void> {
    if (segments.length === 0) return this.write(key, new Uint8Array(), { settled });
    const paths = segments.map(segment => this.#path(segment));
    const path = this.#path(key);
    await this.#change(`assemble ${key}`, async () => {
      if (paths.length === 1) await this.#promote(paths[0]!, path);
      else await this.#join(paths, path);
      if (settled) await this.#flusher.folder(dirname(path));
    });
  }

  async settle(keys: readonly string[]): Promise<void> {
    const folders = new Set(keys.map(key => dirname(this.#path(key))));
    await this.#change(`settle ${keys.join(', ')}`, async () => {
      await Promise.all([...folders].map(folder => this.#flusher.folder(folder)));
    });
  }

  /** A hard link: for that both must be on one file system. */
  async share(source: StorageDriver, key: string, check: (bytes: ByteStream) => Promise<void>): Promise<boolean> {
    if (!(source instanceof FilesystemDriver)) return false;
    const [from, path] = [source.#path(key), this.#path(key)];
    return this.#change(`share ${key}`, async () => {
      const temporary = this.#temporary();
      try {
        await link(from, temporary);
        const bytes = await this.read(temporary.slice(this.#root.length + 1));
        // Swept away for its age, which is that of what it was linked from.
        if (!bytes) return false;
        await check(bytes);
        // Whoever wrote it may not have flushed it.
        const file = await open(temporary, 'r');
        await this.#flusher.file(file.fd, temporary).finally(() => file.close());
        await this.#rename(temporary, path);
      } catch (error) {
        if (['EXDEV', 'EPERM', 'EMLINK', 'ENOTSUP', 'EOPNOTSUPP', 'ENOENT'].includes(systemCode(error) ?? ''))
          return false;
        throw error;
      } finally {
        // A rename leaves both names where the other was one of the same file.
        await unlink(temporary).catch(ignoreAbsence);
      }
      await this.#flusher.folder(dirname(path));
      return true;
    });
  }

  async touch(key: string): Promise<boolean> {
    const path = this.#path(key);
    return this.#change(`touch ${key}`, () => renew(path));
  }

  async removeStale(key: string, known: Date | ObjectInfo, { durable = true } = {}): Promise<boolean> {
    const path = this.#path(key);
    const before = known instanceof Date ? known : new Date(known.modified.getTime() + 1);
    return this.#change(`remove stale ${key}`, async () => {
      const removed = await removeStaleFile(path, before).catch(error => {
        if (!isFull(error)) throw error;
        return this.#spares.lend(makeFolder => removeStaleFile(path, before, makeFolder));
      });
      if (removed) await this.#prune(dirname(path));
      if (removed && durable) await this.#flusher.folder(dirname(path));
      await this.#spares.restock();
      return removed;
    });
  }

  async removeEmptyFolders(prefix: string): Promise<void> {
    const path = this.#path(prefix);
    await this.#change(`remove empty folders of ${prefix}`, () => this.#prune(path));
  }

  async #prune(path: string): Promise<void> {
    await pruneFolders(path, this.#root, folder => this.#flusher.forget(folder));
  }

  /** Flushes one segment and gives it its final name beside its own. */
  async #promote(segment: string, path: string): Promise<void> {
    const file = await this.#calls.open(segment, 'r');
    try {
      await this.#flushed(file, segment);
    } finally {
      await this.#calls.close(file);
    }
    if (await this.#named(segment, path)) return;
    // A link does not replace what is there, but a rename does.
    const temporary = this.#temporary();
    await this.#inFolder(temporary, () => this.#calls.link(segment, temporary));
    await this.#rename(temporary, path);
    // It leaves both names where the other was one of the same file.
    await unlink(temporary).catch(ignoreAbsence);
  }

  /** Several segments become one new file. The first is shared, not copied, where the file system can (xfs, btrfs). */
  async #join(segments: readonly string[], path: string): Promise<void> {
    const temporary = this.#temporary();
    const shared = await clone(segments[0]!, temporary);
    try {
      const file = await this.#inFolder(temporary, () => open(temporary, shared ? 'a' : 'wx', this.#modeOf(path)));
      try {
        for (const segment of shared ? segments.slice(1) : segments) await append(file, segment);
        await this.#flushed(file.fd, temporary);
      } finally {
        await file.close();
      }
    } catch (error) {
      await unlink(temporary).catch(() => {});
      throw error;
    }
    await this.#rename(temporary, path);
  }

  /** False when another was first. */
  async #makeUnlessThere(path: string, data: Uint8Array, durable: boolean): Promise<boolean> {
    if (await isBack(path, this.#isThere)) return false;
    const temporary = this.#temporary();
    await this.#fill(temporary, data, path, durable);
    let isNamed = false;
    try {
      isNamed = await this.#named(temporary, path);
      return isNamed;
    } finally {
      await this.#forget(temporary, isNamed || undefined);
    }
  }

  /** Gives a file one more name; false when another has it. */
  async #named(file: string, path: string): Promise<boolean> {
    try {
      await this.#inFolder(path, () => this.#calls.link(file, path));
      return true;
    } catch (error) {
      if (systemCode(error) === 'EEXIST') return false;
      throw error;
    }
  }

  /** Gives a temporary file its name, in place of what has it. */
  async #rename(temporary: string, path: string): Promise<void> {
    try {
      await this.#inFolder(path, () => this.#calls.rename(temporary, path));
    } catch (error) {
      await this.#forget(temporary);
      throw error;
    }
  }

  /** Writes a file that is to become `path`, or is it already. When that fails, it is gone. */
  async #fill(temporary: string, data: Uint8Array, path: string, durable: boolean): Promise<void> {
    const file = await this.#inFolder(temporary, () => this.#calls.open(temporary, 'wx', this.#modeOf(path)));
    try {
      try {
        await this.#calls.write(file, data);
        if (durable) await this.#flushed(file, temporary);
      } finally {
        await this.#calls.close(file);
      }
    } catch (error) {
      await this.#forget(temporary);
      throw error;
    }
  }

  /** Brings a file to the disk. Its age counts from then on, when it is whole, however long it took to arrive. */
  async #flushed(file: number, path: string): Promise<void> {
    await this.#flusher.file(file, path);
    await this.#calls.setTimes(file, currentSeconds());
  }

  /** A temporary file that cannot be removed goes after a day. @param little as `Calls.unlink` has it */
  async #forget(temporary: string, little?: true): Promise<void> {
    try {
      await this.#calls.unlink(temporary, little);
    } catch {}
  }

  /** Does something in the folder of `path`, which is made when missing, again if a deletion takes it away meanwhile. */
  async #inFolder<T>(path: string, action: () => T | Promise<T>): Promise<T> {
    const folder = dirname(path);
    for (let tries = 1; ; tries++) {
      try {
        if (isLosing(tries))
          return await this.#calls.inFolderAtOnce(folder, this.#folderMode(path), this.#root, action);
        // The folder of temporaries is there, unless somebody has emptied the volume: then the error below makes it.
        if (!this.#isTemporary(path) && this.#calls.isMissing(folder)) await this.#makeFolders(folder);
        return await action();
      } catch (error) {
        if (systemCode(error) !== 'ENOENT' || tries === TRIES) throw error;
        await outOfStep(tries);
        await this.#makeFolders(folder);
      }
    }
  }

  async #makeFolders(path: string): Promise<void> {
    await makeFolders(path, this.#folderMode(path), this.#root, this.#makeFolder).catch(ignoreAbsence);
  }

  #folderMode(path: string): number {
    return this.#private(path) ? 0o700 : 0o777;
  }

  /** What is for this program only is for its user only; images stay readable to all, as `registry:2` leaves them. */
  #private(path: string): boolean {
    return path.startsWith(`${this.#root}/${PRIVATE}/`);
  }

  #modeOf(path: string): number {
    return this.#private(path) ? 0o600 : 0o644;
  }

  #temporary(): string {
    return `${this.#temporaries}/${randomUUID()}`;
  }

  #isTemporary(path: string): boolean {
    return path.startsWith(`${this.#temporaries}/`);
  }

  /** Runs what changes the volume, unless a failed flush forbids it, or whoever opened it. */
  async #change<T>(action: string, body: () => Promise<T>): Promise<T> {
    if (this.#readOnly) throw new StorageError('unavailable', `${action}: the volume is open for reading only`);
    this.#flusher.check();
    try {
      await this.#mount.check();
      return await body();
    } catch (error) {
      throw storageFailure(action, error);
    }
  }

  /** @param seen the folder as it was seen just now */
  async #readFolder(prefix: string, seen: Seen | undefined): Promise<readonly Entry[]> {
    const path = this.#path(prefix);
    const listing = await this.#ifPresent(`list ${prefix}`, undefined, () => readFolder(path, this.#calls));
    if (!listing) return [];
    const { entries, own } = listing;
    if (!seen) this.#recent.meet(prefix);
    else if (own) this.#recent.keep(prefix, seen, { entries });
    return entries;
  }

  /** @param path the file that is looked for, which may be missed only because it is being removed and comes back */
  async #ifPresent<T>(action: string, path: string | undefined, body: () => Promise<T>): Promise<T | undefined> {
    const found = await ifPresent(action, path, body, this.#isThere);
    // An image must not count as deleted because its disk is away.
    if (found === undefined) await this.#mount.check();
    return found;
  }

  /** @throws TypeError */
  #path(key: string): string {
    checkKey(key);
    return `${this.#root}/${key}`;
  }
}

/** Whatever changes a file changes its time of change, which nobody can set. */
function objectInfo({ ino, size, mtimeMs, ctimeMs }: Pick<Stats, 'ino' | 'size' | 'mtimeMs' | 'ctimeMs'>): ObjectInfo {
  return { size, modified: new Date(Math.round(mtimeMs)), version: `${ino}:${size}:${mtimeMs}:${ctimeMs}` };
}

async function ifPresent<T>(
  action: string,
  path: string | undefined,
  body: () => Promise<T>,
  isThere?: (path: string) => boolean | Promise<boolean>,
): Promise<T | undefined> {
  for (;;) {
    try {
      return await body();
    } catch (error) {
      if (!isAbsent(error)) throw storageFailure(action, error);
      if (path === undefined || systemCode(error) !== 'ENOENT' || !(await isBack(path, isThere))) return undefined;
    }
  }
}

/** A copy that holds on to no larger piece of memory, as those do that Node makes of small ones. */
function alone(content: Buffer): Buffer {
  const copy = Buffer.allocUnsafeSlow(content.length);
  content.copy(copy);
  return copy;
}
