import { RegistryError } from '../errors.js';

/** Work that may wait behind what runs, and how much of it may be of one network: as for passwords in a file. */
const LONGEST_QUEUE = 32;
const LARGEST_SHARE = 8;

/** Lets so many pieces of work run at once; the others wait for their turn. */
export class Turns {
  #running = 0;
  readonly #waiting: Array<{ readonly network: string; readonly begin: () => void }> = [];

  constructor(private readonly most: number) {}

  /** @throws RegistryError TOOMANYREQUESTS when too many wait already, or too many of this network */
  async run<T>(network: string, work: () => Promise<T>): Promise<T> {
    if (this.#running >= this.most) await this.#wait(network);
    else this.#running++;
    try {
      return await work();
    } finally {
      // The turn goes from hand to hand, so that nobody can step in between.
      const next = this.#waiting.shift();
      if (next) next.begin();
      else this.#running--;
    }
  }

  #wait(network: string): Promise<void> {
    const share = this.#waiting.filter(waiting => waiting.network === network).length;
    if (this.#waiting.length >= LONGEST_QUEUE || share >= LARGEST_SHARE)
      throw new RegistryError('TOOMANYREQUESTS', {
        message: 'too many logins at once',
        headers: { 'Retry-After': '1' },
      });
    return new Promise(begin => this.#waiting.push({ network, begin }));
  }
}
