const MIB = 1024 * 1024;

/** Of one buffer of an upload, in bytes: a page of WebAssembly, and the least that a transfer gets. */
export const SLAB = 64 * 1024;

/** The types of the language do not know it; Node has it. */
declare const WebAssembly: { readonly Memory: new (pages: { initial: number }) => { readonly buffer: ArrayBuffer } };

/**
 * Divides a fixed amount of memory among the open transfers, each of which holds up to three buffers: the disk works
 * on one, the network on another. Few transfers get the megabyte that is fastest, a hundred stay within the sum.
 */
export class BufferBudget {
  #open = 0;
  /** Nothing else that Node can make begins at a page of the machine for sure. What was never touched takes no memory. */
  #slabs: ArrayBuffer | undefined;
  #made = 0;
  readonly #free: Buffer[] = [];

  constructor(readonly total: number) {}

  enter(): void {
    this.#open += 1;
  }

  leave(): void {
    this.#open -= 1;
  }

  /** What one transfer may hold twice, in bytes, now. */
  share(): number {
    return Math.min(MIB, Math.max(SLAB, Math.floor(this.total / (2 * Math.max(1, this.#open)))));
  }

  /** A buffer of `SLAB` bytes, to be given back: at a page of the machine, unless all of those are in use. */
  take(): Buffer {
    const slab = this.#free.pop();
    if (slab !== undefined) return slab;
    if (this.#made + SLAB > this.total) return Buffer.allocUnsafeSlow(SLAB);
    this.#slabs ??= new WebAssembly.Memory({ initial: Math.floor(this.total / SLAB) }).buffer;
    this.#made += SLAB;
    return Buffer.from(this.#slabs, this.#made - SLAB, SLAB);
  }

  give(slab: Buffer): void {
    if (this.isAligned(slab)) this.#free.push(slab);
  }

  /** Whether it begins at a page. */
  isAligned(slab: Buffer): boolean {
    return slab.buffer === this.#slabs;
  }
}
