const MIB = 1024 * 1024;
const SMALLEST = 64 * 1024;

/**
 * Divides a fixed amount of memory among the open transfers, each of which holds up to three buffers: the disk works
 * on one, the network on another. Few transfers get the megabyte that is fastest, a hundred stay within the sum.
 */
export class BufferBudget {
  #open = 0;

  constructor(readonly total: number) {}

  enter(): void {
    this.#open += 1;
  }

  leave(): void {
    this.#open -= 1;
  }

  /** The size of one buffer, in bytes, now. */
  share(): number {
    return Math.min(MIB, Math.max(SMALLEST, Math.floor(this.total / (2 * Math.max(1, this.#open)))));
  }
}
