import { Worker } from 'node:worker_threads';
import { RegistryError } from '../errors.js';
import type { BcryptCheck, BcryptHash } from './bcrypt-worker.js';

/** Checks that may wait behind the one that runs: about two seconds' worth at cost 10. */
const LONGEST_QUEUE = 32;
/** A thread that has had nothing to do for so long ends (ms): it holds 7 MiB. */
const IDLE = 30_000;
/** Of these, how many may be of one network: the others find a place however many logins one sends. */
const LARGEST_SHARE = 8;

interface Origin {
  /** Where the request comes from. */
  readonly network: string;
}

interface Job extends Origin {
  readonly task: BcryptCheck | BcryptHash;
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Password checks in a worker thread of their own: bcrypt on the event loop would stop every request, and on libuv's
 * threads every file access. One check runs at a time, so that a flood of logins takes one core and no more. The thread
 * starts with the first check, is replaced when it dies, keeps no process alive once it is idle, and ends when it stays so.
 */
export class BcryptPool {
  #worker: Worker | undefined;
  #running: Job | undefined;
  #waiting: Job[] = [];
  #idle: NodeJS.Timeout | undefined;
  #started = 0;
  /** Of the last check, in milliseconds: what the next ones will take. */
  #duration = 100;

  /** @param idle after which the thread ends (ms) */
  constructor(private readonly idle = IDLE) {}

  /**
   * Whether any of the passwords has the hash.
   * @throws RegistryError TOOMANYREQUESTS with Retry-After when 32 checks wait already, or 8 of this network; UNAVAILABLE
   *   when the thread died.
   */
  check({ network, ...task }: BcryptCheck & Origin): Promise<boolean> {
    return this.#do<boolean>({ network, task });
  }

  /** The hash of a new password. @throws RegistryError as `check` */
  hash({ network, ...task }: BcryptHash & Origin): Promise<string> {
    return this.#do<string>({ network, task });
  }

  #do<T>(wanted: Omit<Job, 'resolve' | 'reject'>): Promise<T> {
    const share = this.#waiting.filter(({ network }) => network === wanted.network).length;
    if (this.#waiting.length >= LONGEST_QUEUE || share >= LARGEST_SHARE) return Promise.reject(this.#full());
    return new Promise<T>((resolve, reject) => {
      this.#waiting.push({ ...wanted, resolve: result => resolve(result as T), reject });
      if (!this.#running) this.#next();
    });
  }

  #next(): void {
    this.#running = this.#waiting.shift();
    clearTimeout(this.#idle);
    if (!this.#running) {
      this.#worker?.unref();
      this.#idle = setTimeout(() => this.#end(), this.idle).unref();
      return;
    }
    this.#worker ??= this.#start();
    this.#worker.ref();
    this.#started = performance.now();
    this.#worker.postMessage(this.#running.task);
  }

  #start(): Worker {
    const worker = new Worker(new URL('./bcrypt-worker.js', import.meta.url), {
      name: 'bcrypt',
      resourceLimits: { maxOldGenerationSizeMb: 32, maxYoungGenerationSizeMb: 4 },
    });
    const lost = (cause?: unknown): void => {
      if (this.#worker !== worker) return;
      this.#worker = undefined;
      this.#running?.reject(new RegistryError('UNAVAILABLE', { cause }));
      this.#next();
    };
    worker.on('message', result => {
      this.#duration = performance.now() - this.#started;
      this.#running?.resolve(result);
      this.#next();
    });
    worker.on('error', lost);
    worker.on('exit', () => lost());
    return worker;
  }

  #end(): void {
    void this.#worker?.terminate();
    this.#worker = undefined;
  }

  #full(): RegistryError {
    const seconds = Math.max(1, Math.ceil((this.#waiting.length * this.#duration) / 1000));
    return new RegistryError('TOOMANYREQUESTS', {
      message: 'too many logins at once',
      headers: { 'Retry-After': String(seconds) },
    });
  }
}
