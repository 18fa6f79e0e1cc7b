import { openSync, readSync } from 'node:fs';

/** How long a thread has waited for a processor. Linux counts it; elsewhere nothing is known. */
export class ProcessorWait {
  static #main: ProcessorWait | undefined;
  readonly #line = Buffer.alloc(64);
  readonly #file = open();

  /** Of the thread that asks first. */
  static get ofMain(): ProcessorWait {
    ProcessorWait.#main ??= new ProcessorWait();
    return ProcessorWait.#main;
  }

  /** In milliseconds; undefined where nothing is known. It takes some microseconds. */
  now(): number | undefined {
    if (this.#file === undefined) return undefined;
    const length = readSync(this.#file, this.#line, 0, this.#line.length, 0);
    // Time on a processor (ns), time waited for one (ns), how often it was given one (Linux, scheduler/sched-stats).
    return Number(this.#line.toString('latin1', 0, length).split(' ')[1]) / 1e6;
  }
}

function open(): number | undefined {
  try {
    return openSync('/proc/thread-self/schedstat', 'r');
  } catch {
    return undefined;
  }
}
