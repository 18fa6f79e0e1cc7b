import cluster, { type Worker } from 'node:cluster';
import type { Log } from './log.js';
import type { AsStarted } from './privileges.js';
import { collectStart } from './settle.js';
import { type Charge, HERE, isFirstToServe, isReady, isWord } from './worker.js';

export interface SuperviseOptions {
  /** The file that each worker runs, which asks for its charge. */
  readonly program: string;
  readonly args: readonly string[];
  readonly count: number;
  /** What the first worker is to do: make what is missing, and serve. With secrets, which no argument or variable ever holds. */
  readonly order: unknown;
  /** What all others are to do, who find it made. */
  readonly orderOfOthers: unknown;
  readonly log: Log;
  /**
   * To be done once all of them serve: from then on this process needs no privilege, unless to start one that `readAsRoot`.
   * @returns what runs the task that starts a process
   */
  readonly release: (readAsRoot: boolean) => Promise<AsStarted>;
  /** Resolves when they are to stop. */
  readonly stop: Promise<void>;
}

/** What Node and glibc read before any of our code runs. */
const ENVIRONMENT = {
  // Of libuv's threads all but two may flush (storage/filesystem/flusher.ts).
  UV_THREADPOOL_SIZE: process.env.UV_THREADPOOL_SIZE ?? '8',
  // Else each thread keeps memory of its own that it has freed (docs/decisions/0025).
  MALLOC_ARENA_MAX: process.env.MALLOC_ARENA_MAX ?? '2',
};

/** In MiB: V8 collects what is young, and with it the buffers that have passed, eight times as often (docs/decisions/0025). */
const YOUNG = '--max-semi-space-size=2';

/** A worker that has lived so long did not fail at its start (ms). */
const SETTLED = 10_000;
/** How long the next one waits when workers fail one after the other, at first and at most (ms). */
const FIRST_PAUSE = 1_000;
const LONGEST_PAUSE = 30_000;

/**
 * Serves in several processes that share one port, until `stop`; one that ends meanwhile is replaced. This process holds
 * the port and answers nobody. The workers need nothing of each other but what they `tellOthers`: all else is in the
 * storage, where the processes of other machines may look as well.
 * @returns the exit code: that of the first worker where it does not come to serve
 */
export async function supervise(options: SuperviseOptions): Promise<number> {
  // Each worker accepts by itself: handing sockets on by messages would cost a fifth of the connections.
  cluster.schedulingPolicy = cluster.SCHED_NONE;
  cluster.setupPrimary({ exec: options.program, args: [...options.args], execArgv: engineFlags() });
  return new Supervisor(options).run();
}

/** Whoever has set another size has it. */
function engineFlags(): string[] {
  const { execArgv, env } = process;
  const isSet = [...execArgv, env.NODE_OPTIONS ?? ''].some(flags => /--max[-_]semi[-_]space[-_]size/.test(flags));
  return isSet ? execArgv : [...execArgv, YOUNG];
}

class Supervisor {
  readonly #running = new Map<number, Worker>();
  readonly #ready = new Set<number>();
  readonly #pauses = new Set<NodeJS.Timeout>();
  #asStarted: AsStarted = task => task();
  #readAsRoot = false;
  #stopping = false;
  #pause = FIRST_PAUSE;
  #failed: ((code: number) => void) | undefined;
  #emptied: (() => void) | undefined;

  constructor(private readonly options: SuperviseOptions) {}

  async run(): Promise<number> {
    const { count, log, release, stop } = this.options;
    const failed = new Promise<number>(resolve => {
      this.#failed = resolve;
    });
    const asked = stop.then(() => {
      this.#stopping = true;
      return 0;
    });
    try {
      // The first one makes what is missing, and says what is wrong; the others find it done.
      const code = await Promise.race([this.#start({ number: 1, replaces: false }), asked]);
      if (code !== 0 || this.#stopping) return code;
      const others = Array.from({ length: count - 1 }, (_, index) =>
        this.#start({ number: index + 2, replaces: false }),
      );
      const all = Promise.all(others).then(async () => {
        this.#asStarted = await release(this.#readAsRoot);
        collectStart();
        if (this.#ready.size === count) log.info('all workers serve', { workers: count });
        return asked;
      });
      return await Promise.race([all, asked, failed]);
    } finally {
      await this.#stopAll();
    }
  }

  /** @returns 0 once it serves, or the code with which it has ended before */
  #start(charge: Charge): Promise<number> {
    const { number } = charge;
    const { order, orderOfOthers } = this.options;
    const worker = this.#asStarted(() => cluster.fork(ENVIRONMENT));
    const started = performance.now();
    this.#running.set(number, worker);
    return new Promise(resolve => {
      worker.on('message', message => {
        if (message === HERE) worker.send({ ...charge, order: isFirstToServe(charge) ? order : orderOfOthers });
        else if (isReady(message)) {
          this.#readAsRoot ||= message.readAsRoot;
          this.#ready.add(number);
          resolve(0);
        } else if (isWord(message)) {
          // Not to one that has not yet heard what it is for: it would take this for it.
          for (const [place, other] of this.#running)
            if (other !== worker && this.#ready.has(place) && other.isConnected()) other.send(message);
        }
      });
      const ended = (code: number | null, signal: string | null) => {
        if (this.#running.get(number) !== worker) return;
        this.#running.delete(number);
        const wasReady = this.#ready.delete(number);
        resolve(code || 1);
        if (this.#running.size === 0) this.#emptied?.();
        if (this.#stopping || (!wasReady && !charge.replaces && number === 1)) return;
        this.#replace(number, { code, signal }, performance.now() - started);
      };
      worker.once('exit', ended);
      worker.on('error', error => {
        // It may also be gone before it hears anything, which the end of it tells.
        if (worker.process.pid !== undefined) return;
        this.options.log.error('a worker cannot be started', { worker: number, error });
        ended(1, null);
      });
    });
  }

  #replace(number: number, how: { code: number | null; signal: string | null }, lived: number): void {
    const { log } = this.options;
    if (this.#ready.size === 0 && lived < SETTLED && this.#pause === LONGEST_PAUSE) {
      log.error('no worker comes to serve any more', { worker: number, ...how });
      this.#failed!(1);
      return;
    }
    const pause = lived < SETTLED ? this.#pause : 0;
    this.#pause = lived < SETTLED ? Math.min(this.#pause * 2, LONGEST_PAUSE) : FIRST_PAUSE;
    log.error('a worker has ended; another one takes its place', { worker: number, ...how, after_ms: pause });
    const timer = setTimeout(async () => {
      this.#pauses.delete(timer);
      try {
        if ((await this.#start({ number, replaces: true })) === 0)
          log.info('a worker serves in its place', { worker: number });
      } catch (error) {
        log.error('a worker cannot be started', { worker: number, error });
        this.#replace(number, { code: null, signal: null }, 0);
      }
    }, pause);
    this.#pauses.add(timer);
  }

  async #stopAll(): Promise<void> {
    this.#stopping = true;
    for (const timer of this.#pauses) clearTimeout(timer);
    if (this.#running.size === 0) return;
    const emptied = new Promise<void>(resolve => {
      this.#emptied = resolve;
    });
    for (const worker of this.#running.values()) worker.process.kill('SIGTERM');
    await emptied;
  }
}
