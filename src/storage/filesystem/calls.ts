import {
  closeSync,
  close as closing,
  type Dirent,
  futimesSync,
  futimes as futiming,
  linkSync,
  lstatSync,
  mkdirSync,
  open as opening,
  openSync,
  readdirSync,
  renameSync,
  rmdirSync,
  type Stats,
  statSync,
  unlinkSync,
  writeSync,
  write as writing,
} from 'node:fs';
import { link, mkdir, readdir, rename, rmdir, stat, unlink } from 'node:fs/promises';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { andThen } from '../../at-once.js';
import { systemCode } from '../../errors.js';
import { ignoreAbsence } from './failure.js';
import type { Mount } from './mount.js';
import { ProcessorWait } from './processor-wait.js';
import { readSmallNow } from './small.js';

type Soon<T> = T | Promise<T>;

/** How long calls may hold up everything else in one turn of the event loop (ms); then they go to libuv's threads. */
const TURN = 1;

/** A call that takes longer (ms), without what is known to be waiting for a processor, has waited for the disk. */
const SLOW = 5;

/** For how long they all go to the threads then (ms); twice as long each time, unless all were quick for `CALM` times as long. */
const PENALTY = 20;
const MOST_PENALTY = 10_000;
const CALM = 10;

/** What is larger (bytes) takes a while to write, and to remove. */
const SMALL = 64 * 1024;

/** The least that a folder has on ext4, in bytes. */
const SMALL_FOLDER = 4096;

const openLater = promisify(opening);
const writeLater = promisify(writing) as (
  file: number,
  data: Uint8Array,
  at: number,
  length: number,
) => Promise<{ bytesWritten: number }>;
const closeLater = promisify(closing);
const setTimesLater = promisify(futiming);

/**
 * The system calls of small changes. On a file system of this machine the kernel makes them in memory and is done within
 * 5 to 50 µs, where a trip to one of libuv's threads and back costs as much again in processor time: so they are called at
 * once. The disk they wait for is that of the flushes, which do go to threads. Where the kernel makes one of them wait all
 * the same, and on any other file system, they all do.
 */
export class Calls {
  #spent = 0;
  #slowUntil = 0;
  #penalty = 0;
  #isAtOnce = false;
  readonly #newTurn = () => {
    this.#spent = 0;
  };

  constructor(
    private readonly mount: Pick<Mount, 'isLocal'>,
    private readonly wait: Pick<ProcessorWait, 'now'> = ProcessorWait.ofMain,
  ) {}

  open(path: string, flags: string, mode?: number): Soon<number> {
    return this.#call(
      () => openSync(path, flags, mode),
      () => openLater(path, flags, mode),
    );
  }

  /** All of the data, at the end of what was written before. */
  async write(file: number, data: Uint8Array): Promise<void> {
    for (let at = 0; at < data.length; ) {
      const from = at;
      const length = data.length - from;
      at += await this.#call(
        () => writeSync(file, data, from, length),
        async () => (await writeLater(file, data, from, length)).bytesWritten,
        length <= SMALL,
      );
    }
  }

  /** @param time in seconds */
  setTimes(file: number, time: number): Soon<void> {
    return this.#call(
      () => futimesSync(file, time, time),
      () => setTimesLater(file, time, time),
    );
  }

  close(file: number): Soon<void> {
    return this.#call(
      () => closeSync(file),
      () => closeLater(file),
    );
  }

  link(from: string, to: string): Soon<void> {
    return this.#call(
      () => linkSync(from, to),
      () => link(from, to),
    );
  }

  rename(from: string, to: string): Soon<void> {
    return this.#call(
      () => renameSync(from, to),
      () => rename(from, to),
    );
  }

  /** @param little `leavesLittle`, where that is known */
  unlink(path: string, little?: true): Soon<void> {
    return this.#call(
      () => unlinkSync(path),
      () => unlink(path),
      little ?? (this.#isQuick && this.#timed(() => leavesLittle(path))),
    );
  }

  makeFolder(path: string, mode: number): Soon<unknown> {
    return this.#call(
      () => mkdirSync(path, mode),
      () => mkdir(path, mode),
    );
  }

  removeFolder(path: string): Soon<void> {
    return this.#call(
      () => rmdirSync(path),
      () => rmdir(path),
    );
  }

  /**
   * Does something in a folder, which is made with those above it up to `root`, and nothing else of this process in between:
   * none of these calls goes to a thread, so that whoever keeps removing the folder with quicker calls does not win each time.
   */
  inFolderAtOnce<T>(folder: string, mode: number, root: string, action: () => T): T {
    this.#isAtOnce = true;
    try {
      makeFoldersNow(folder, mode, root);
      return action();
    } finally {
      this.#isAtOnce = false;
    }
  }

  /** What is in a folder, in any order. */
  list(path: string): Soon<Dirent[]> {
    return this.#call(
      () => readdirSync(path, { withFileTypes: true }),
      () => readdir(path, { withFileTypes: true }),
      this.#isQuick && this.#timed(() => hasLittle(path)),
    );
  }

  stat(path: string): Soon<Stats | undefined> {
    return this.#call(
      () => statSync(path, { throwIfNoEntry: false }),
      () => stat(path).catch(ignoreAbsence),
    );
  }

  /** A small file that the kernel has in memory; undefined where it is not small, or a thread is to read it. */
  readNow(path: string): Buffer | undefined {
    return this.#isQuick ? this.#timed(() => readSmallNow(path)) : undefined;
  }

  /** Whether there is something by that name. */
  isThere(path: string): Soon<boolean> {
    return andThen(this.stat(path), info => info !== undefined);
  }

  /**
   * Whether a look finds no such name, which costs next to nothing where the kernel has its folder in memory; an error would
   * cost ten times as much.
   */
  isMissing(path: string): boolean {
    return this.#isQuick && this.#timed(() => statSync(path, { throwIfNoEntry: false })) === undefined;
  }

  get #isQuick(): boolean {
    if (this.#isAtOnce) return true;
    return this.mount.isLocal && this.#spent < TURN && performance.now() >= this.#slowUntil;
  }

  #call<T>(now: () => T, later: () => Promise<T>, small = true): Soon<T> {
    return small && this.#isQuick ? this.#timed(now) : later();
  }

  #timed<T>(call: () => T): T {
    const start = performance.now();
    // Where no call was slow of late it is not asked: a quiet machine does not pay for it, and on a busy one some calls go to a thread.
    const waited = start < this.#watchedUntil ? this.wait.now() : undefined;
    try {
      return call();
    } finally {
      this.#took(performance.now() - start, waited);
    }
  }

  /** @param waited `ProcessorWait.now` as the call began, if that is known */
  #took(time: number, waited: number | undefined): void {
    if (this.#spent === 0) setImmediate(this.#newTurn);
    this.#spent += time;
    if (time < SLOW || time - this.#waitedSince(waited) < SLOW) return;
    const now = performance.now();
    const isAgain = now < this.#watchedUntil;
    this.#penalty = isAgain ? Math.min(2 * this.#penalty, MOST_PENALTY) : PENALTY;
    this.#slowUntil = now + this.#penalty;
  }

  /** Until when another slow call counts for more. */
  get #watchedUntil(): number {
    return this.#slowUntil + CALM * this.#penalty;
  }

  /** How long this thread has waited for a processor since then (ms), as far as that is known. */
  #waitedSince(then: number | undefined): number {
    return then === undefined ? 0 : (this.wait.now() ?? then) - then;
  }
}

/** @throws ENOENT when `root` is missing, or another process removes what this one makes. */
function makeFoldersNow(path: string, mode: number, root: string): void {
  if (path === root || statSync(path, { throwIfNoEntry: false })) return;
  makeFoldersNow(dirname(path), mode, root);
  try {
    mkdirSync(path, mode);
  } catch (error) {
    if (systemCode(error) !== 'EEXIST') throw error;
  }
}

/** Whether a folder is small: its size says so, in blocks, names or bytes, on each of the file systems in question. */
function hasLittle(path: string): boolean {
  return (statSync(path, { throwIfNoEntry: false })?.size ?? 0) <= SMALL_FOLDER;
}

/** Whether a file is small, or has another name: to remove the last name of a large one takes a while. */
function leavesLittle(path: string): boolean {
  const info = lstatSync(path, { throwIfNoEntry: false });
  return info === undefined || info.nlink > 1 || info.size <= SMALL;
}
