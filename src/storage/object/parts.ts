/** No service takes smaller parts, but for the last. */
export const SMALLEST_PART = 5 * 1024 * 1024;

const MIB = 1024 * 1024;

/** What the parts of all uploads may take together, two of each; beyond that, two of `SMALLEST_PART` for each. */
const HELD = 160 * MIB;

/** Of that, what may be under way at once. */
const SENT = 64 * MIB;

/** What an upload that begins may take of what is left. */
const SHARE = 1 / 4;

/**
 * A service takes 10,000 parts. Some want all but the last to have one size (Cloudflare R2): so the most of them do, which makes 40
 * GiB of the smallest and 80 of 10 MiB. Of what is larger than that, every 302 further parts are twice as large: 224 GiB and 448 in all.
 */
const PARTS_OF_ONE_SIZE = 8_192;
const PARTS_TO_DOUBLE = 302;

/** Divides memory among the uploads of a process. What is being collected fills up no faster than the client sends. */
export class PartBudget {
  #held = 0;
  #sent = 0;
  readonly #waiting: Array<() => void> = [];

  constructor(private readonly chunkSize: number) {}

  /** @returns the size of the parts of an upload that begins now, in bytes */
  enter(): number {
    const share = Math.floor(((HELD - this.#held) * SHARE) / 2);
    const size = Math.max(SMALLEST_PART, Math.min(this.chunkSize, share));
    this.#held += 2 * size;
    return size;
  }

  /** @param size as `enter` has given it */
  leave(size: number): void {
    this.#held -= 2 * size;
  }

  /** Sends a part when there is room for it; a single one always has. */
  async sending<T>(bytes: number, send: () => Promise<T>): Promise<T> {
    while (this.#sent > 0 && this.#sent + bytes > SENT) await new Promise<void>(resolve => this.#waiting.push(resolve));
    this.#sent += bytes;
    try {
      return await send();
    } finally {
      this.#sent -= bytes;
      for (const resume of this.#waiting.splice(0)) resume();
    }
  }
}

/** The size of the part of that number, where the first one has `first` bytes. */
export function sizeOfPart(number: number, first: number): number {
  return first * 2 ** Math.max(0, Math.ceil((number - PARTS_OF_ONE_SIZE) / PARTS_TO_DOUBLE));
}
