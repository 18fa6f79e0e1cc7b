import { closeSync, constants, fstatSync, openSync, write, writeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { systemCode } from '../errors.js';

/** Lines that arrive within this time are written together (ms). */
const GATHER = 20;
/** A pipe takes so much in one piece (POSIX, PIPE_BUF), so that the lines of several processes do not tear each other. */
const PIPE = 4 * 1024;
const FILE = 64 * 1024;
/** Lines that wait for a reader that has stopped are dropped beyond this (bytes), and counted. */
const BACKLOG = 16 * 1024 * 1024;

/** Time between two tries on a full pipe (ms). */
const FULL = 5;
const NEWLINE = 0x0a;
/** How long `close` waits for a reader that has stopped (ms). */
const PATIENCE = 1_000;

const writeAsync = promisify(write);

/**
 * Writes lines to a file descriptor in the background, many at a time. `process.stdout` would block the event loop for
 * each line, and for as long as the reader of a full pipe sleeps.
 */
export class LineWriter {
  #waiting: string[] = [];
  #taken = 0;
  #bytes = 0;
  #dropped = 0;
  #closed = false;
  #closing = false;
  #moved = 0;
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> | undefined;
  readonly #fd: number;
  readonly #piece: number;
  readonly #atExit = () => this.#writeRestNow();

  /** @param lost makes the line that stands where so many lines were dropped. */
  constructor(
    private readonly fd: number,
    private readonly lost: (lines: number) => string,
  ) {
    this.#piece = fstatSync(fd).isFile() ? FILE : PIPE;
    this.#fd = withoutBlocking(fd);
    process.on('exit', this.#atExit);
  }

  /** Takes one line of ASCII with its newline. Never waits, never throws. */
  write(line: string): void {
    if (this.#closed) return;
    if (this.#bytes > BACKLOG) {
      this.#dropped++;
      return;
    }
    this.#tellLoss();
    this.#push(line);
    this.#schedule();
  }

  /** Writes what waits, and takes nothing more. A reader that has stopped is waited for as long as `PATIENCE`. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#moved = performance.now();
    this.#tellLoss();
    while (this.#bytes > 0 || this.#writing !== undefined) await (this.#writing ?? this.#start());
    this.#closed = true;
    process.off('exit', this.#atExit);
    if (this.#fd !== this.fd) closeSync(this.#fd);
  }

  #tellLoss(): void {
    if (this.#dropped > 0) this.#push(this.lost(this.#dropped));
    this.#dropped = 0;
  }

  #push(line: string): void {
    this.#waiting.push(line);
    this.#bytes += line.length;
  }

  #schedule(): void {
    if (this.#timer === undefined && this.#writing === undefined) this.#timer = setTimeout(() => this.#start(), GATHER);
  }

  #start(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#writing = this.#writeAll().finally(() => {
      this.#writing = undefined;
      if (this.#bytes > 0) this.#schedule();
    });
    return this.#writing;
  }

  async #writeAll(): Promise<void> {
    for (let piece = this.#take(); piece !== ''; piece = this.#take())
      await this.#writePiece(Buffer.from(piece, 'latin1'));
  }

  /** As many whole lines as fit in one piece, at least one; empty where none waits. */
  #take(): string {
    const waiting = this.#waiting;
    let piece = '';
    while (this.#taken < waiting.length) {
      const line = waiting[this.#taken]!;
      if (piece !== '' && piece.length + line.length > this.#piece) break;
      piece += line;
      this.#taken++;
    }
    this.#bytes -= piece.length;
    if (this.#taken === waiting.length) {
      this.#waiting = [];
      this.#taken = 0;
    }
    return piece;
  }

  async #writePiece(piece: Buffer): Promise<void> {
    for (let done = 0; done < piece.length; ) {
      try {
        done += (await writeAsync(this.#fd, piece, done, piece.length - done, null)).bytesWritten;
        this.#moved = performance.now();
      } catch (error) {
        const full = systemCode(error) === 'EAGAIN';
        if (full && !(this.#closing && performance.now() > this.#moved + PATIENCE)) {
          await sleep(FULL);
          continue;
        }
        // Nobody reads, or the disk is full: serving goes on without a log.
        for (const byte of piece.subarray(done)) if (byte === NEWLINE) this.#dropped++;
        return;
      }
    }
  }

  /** For a process that ends without `close`: nothing can wait any longer. */
  #writeRestNow(): void {
    try {
      for (let piece = this.#take(); piece !== ''; piece = this.#take()) writeSync(this.#fd, piece, null, 'latin1');
    } catch {
      // There is nobody left to tell.
    }
  }
}

/**
 * A full pipe would hold one of the few threads that do all file work, and keep the process from ending. So it is opened
 * once more, in a way that fails at once when full. Only Linux can, and only for a pipe of our own user.
 */
function withoutBlocking(fd: number): number {
  if (process.platform !== 'linux' || !fstatSync(fd).isFIFO()) return fd;
  try {
    return openSync(`/proc/self/fd/${fd}`, constants.O_WRONLY | constants.O_NONBLOCK);
  } catch {
    return fd;
  }
}
