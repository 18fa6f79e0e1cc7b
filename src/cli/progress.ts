import { roughSize } from '../size.js';

/** How often a bar is drawn, and how often a line is written where there is no terminal (ms). */
const REDRAW = 200;
const LINE = 10_000;

const WIDTH = 24;

/** Before this (ms) no estimate is worth anything. */
const FIRST_ESTIMATE = 1_000;

/**
 * Tells on standard error how far a long task has come: as a bar with an estimate on a terminal, else as a line every ten
 * seconds.
 */
export class Progress {
  readonly #start = performance.now();
  #shown = this.#start;
  #drawn = false;

  /** @param what the task, in a word */
  constructor(
    private readonly what: string,
    private readonly stream: Pick<NodeJS.WriteStream, 'write' | 'isTTY'> = process.stderr,
  ) {}

  /** @param done of `total`, in bytes */
  update(done: number, total: number): void {
    const now = performance.now();
    if (now - this.#shown < (this.stream.isTTY ? REDRAW : LINE)) return;
    this.#shown = now;
    const share = total > 0 ? Math.min(1, done / total) : 0;
    const text = [
      `${Math.floor(share * 100)} %`,
      `${roughSize(done)} of ${roughSize(total)}`,
      ...this.#estimate(share),
    ];
    if (!this.stream.isTTY) {
      this.stream.write(`registry-secure: ${this.what}: ${text.join(', ')}\n`);
      return;
    }
    const full = Math.round(share * WIDTH);
    this.stream.write(`\r\x1b[K${this.what} [${'#'.repeat(full)}${'-'.repeat(WIDTH - full)}] ${text.join('  ')}`);
    this.#drawn = true;
  }

  /** To be called before anything else is written, and at the end. */
  clear(): void {
    if (this.#drawn) this.stream.write('\r\x1b[K');
    this.#drawn = false;
  }

  /** Since the start, in seconds. */
  get seconds(): number {
    return (performance.now() - this.#start) / 1000;
  }

  #estimate(share: number): string[] {
    const elapsed = performance.now() - this.#start;
    if (share === 0 || elapsed < FIRST_ESTIMATE) return [];
    return [`${roughTime((elapsed / share - elapsed) / 1000)} left`];
  }
}

/** `8 s`, `12 min`, `3 h 20 min`. */
function roughTime(seconds: number): string {
  if (seconds < 90) return `${Math.ceil(seconds)} s`;
  const minutes = Math.ceil(seconds / 60);
  return minutes < 90 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
