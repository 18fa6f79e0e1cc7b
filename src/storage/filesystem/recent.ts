import { type Stats, statSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { LRUCache } from 'lru-cache';
import type { Entry } from '../driver.js';
import type { Mount } from './mount.js';

/** How long the kernel is taken to have in memory what this process has looked at (ms). */
const RECENT = 5_000;

/** Looks before others get their turn of the event loop: together they take half a millisecond. */
const LOOKS_PER_TURN = 200;

/**
 * How long something must have been left alone before what is read of it is kept (ms). A time of change is that of the
 * clock's last tick, on some file systems of the last second: a further change until then may not show in it.
 */
const SETTLED = 2_000;

/** What no look would take any more is dropped so often (ms): a second of a busy server is a few thousand entries, so some ms. */
const SWEEP = 1_000;

/** Of all that is kept, in bytes. */
const KEPT = 16 * 1024 * 1024;

/** What is known of one file or folder, beside its name and what was read of it: in bytes, roughly. */
const OVERHEAD = 400;

/**
 * Looks again at what this process has looked at a moment ago: the kernel then has it in memory and tells within 3 µs what
 * takes ten times that by way of libuv's threads. Whatever changes a file, or the entries of a folder, in whatever
 * process, changes its version; so what was read of a version is right as long as a look finds the same one. Nothing is
 * known without a look, not even that something is there.
 *
 * Only on file systems of this machine: elsewhere a look may take as long as the network likes.
 */
export class Recent {
  readonly #seen = new LRUCache<string, Seen>({
    maxSize: KEPT,
    sizeCalculation: ({ content, entries }, key) =>
      OVERHEAD + 2 * key.length + (content?.length ?? 0) + sizeOf(entries),
  });
  readonly #newTurn = () => {
    this.#looks = 0;
  };
  #device: number | undefined;
  #looks = 0;
  #sweeper: NodeJS.Timeout | undefined;

  /** @param settled in place of `SETTLED` */
  constructor(
    private readonly root: string,
    private readonly mount: Pick<Mount, 'isLocal'>,
    private readonly settled = SETTLED,
  ) {}

  /** To be called once the mount is remembered: until then there are no looks. */
  open(): void {
    if (this.mount.isLocal) this.#device = statSync(this.root).dev;
  }

  /** What is at this key now, with what was read of it before where that is right; undefined where only the slow way tells. */
  look(key: string): Seen | undefined | Promise<Seen | undefined> {
    const before = this.#seen.get(key);
    if (!before || performance.now() - before.at > RECENT) return undefined;
    if (this.#looks++ === 0) setImmediate(this.#newTurn);
    return this.#looks > LOOKS_PER_TURN ? nextTurn().then(() => this.look(key)) : this.#see(key, before);
  }

  /** As `look`, where what is there was read before, and the look is not put off. */
  recall(key: string): Seen | undefined {
    const before = this.#seen.get(key);
    if (!before?.isRead || performance.now() - before.at > RECENT || this.#looks >= LOOKS_PER_TURN) return undefined;
    if (this.#looks++ === 0) setImmediate(this.#newTurn);
    return this.#see(key, before);
  }

  /** To be called when the slow way has just found this key, so that the next look is a quick one. */
  meet(key: string): void {
    if (this.#device !== undefined) this.#see(key);
  }

  /** What all that is kept takes, in bytes, roughly. */
  get size(): number {
    return this.#seen.calculatedSize;
  }

  /** Keeps what was read of something after it was seen, where it is certain to be of that version. */
  keep(key: string, seen: Seen | undefined, read: Pick<Seen, 'content' | 'entries'>): void {
    if (!seen?.settled) return;
    Object.assign(seen, read);
    // The cache would not measure again what it has already.
    this.#seen.delete(key);
    this.#seen.set(key, seen);
  }

  #see(key: string, before?: Seen): Seen | undefined {
    const asOf = Date.now();
    const path = before?.path ?? `${this.root}/${key}`;
    const stats = statOf(path);
    if (stats?.dev !== this.#device) {
      this.#seen.delete(key);
      return undefined;
    }
    const settled = stats!.ctimeMs < asOf - this.settled;
    if (before?.is(stats!) && before.settled === settled) {
      before.at = performance.now();
      return before;
    }
    const seen = new Seen(path, stats!, settled);
    this.#seen.set(key, seen);
    this.#sweeper ??= setInterval(() => this.#sweep(), SWEEP).unref();
    return seen;
  }

  /** What is left of a busy time would else stay on the heap, of which V8 lets three times as much come together. */
  #sweep(): void {
    const now = performance.now();
    // Those looked at longest ago come first.
    for (const key of this.#seen.rkeys()) {
      if (now - this.#seen.peek(key)!.at <= RECENT) return;
      this.#seen.delete(key);
    }
    clearInterval(this.#sweeper);
    this.#sweeper = undefined;
  }
}

/** One version of a file or folder, as it was seen. */
export class Seen {
  at = performance.now();
  /** All of the file. */
  content?: Buffer;
  /** All of the folder, in order. */
  entries?: readonly Entry[];
  readonly isFolder: boolean;
  readonly ino: number;
  readonly size: number;
  readonly mtimeMs: number;
  readonly ctimeMs: number;

  /** @param settled whether any change from then on gives it another version */
  constructor(
    readonly path: string,
    stats: Stats,
    readonly settled: boolean,
  ) {
    this.isFolder = stats.isDirectory();
    this.ino = stats.ino;
    this.size = stats.size;
    this.mtimeMs = stats.mtimeMs;
    this.ctimeMs = stats.ctimeMs;
  }

  get isRead(): boolean {
    return this.content !== undefined || this.entries !== undefined;
  }

  is(stats: Stats): boolean {
    return (
      stats.ctimeMs === this.ctimeMs &&
      stats.mtimeMs === this.mtimeMs &&
      stats.size === this.size &&
      stats.ino === this.ino
    );
  }
}

/** Undefined also where it cannot be told: the slow way finds out why. */
function statOf(path: string): Stats | undefined {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}

function sizeOf(entries: readonly Entry[] = []): number {
  return entries.reduce((sum, { name }) => sum + 80 + name.length, 0);
}
