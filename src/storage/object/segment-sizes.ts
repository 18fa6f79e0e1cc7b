import { StorageError } from '../driver.js';

/** How many are kept. */
const MOST = 10_000;

/** The sizes of segments that were closed lately (bytes): they need not be asked for. */
export class SegmentSizes {
  readonly #known = new Map<string, number>();

  /** @param look at an object; undefined where there is none */
  constructor(
    private readonly look: (key: string) => Promise<{ readonly info: { readonly size: number } } | undefined>,
  ) {}

  remember(segment: string, size: number): void {
    this.#known.set(segment, size);
    if (this.#known.size > MOST) this.#known.delete(this.#known.keys().next().value!);
  }

  /** @throws StorageError where there is no such segment */
  async of(segment: string): Promise<number> {
    const known = this.#known.get(segment);
    if (known !== undefined) return known;
    const found = await this.look(segment);
    if (!found) throw new StorageError('unavailable', `assemble: the segment ${segment} is gone`);
    return found.info.size;
  }
}
