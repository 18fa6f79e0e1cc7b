const MIB = 1024 * 1024;

/** Of one buffer of an upload, in bytes: a page of WebAssembly, and the least that a transfer gets. */
export const SLAB = 64 * 1024;

const BUFFERS = 4;

/** The types of the language do not know it; Node has it. */
declare const WebAssembly: { readonly Memory: new (pages: { initial: number }) => { readonly buffer: ArrayBuffer } };

/**
 * Divides a fixed amount of memory among the open transfers, each of which holds up to four buffers: the disk works on
 * one, another waits, one is on its way, and TLS keeps it in encrypted form until a slow client has taken it. Few transfers
 * get the megabyte that is fastest, a hundred stay within the sum.
 */
export class BufferBudget {
  #open = 0;
  /** Nothing else that Node can make begins at a page of the machine for sure. What was never touched takes no memory. */
  #slabs: ArrayBuffer | 'none' | undefined;
  #made = 0;
  readonly #free: Buffer[] = [];

  constructor(readonly total: number) {}

  enter(): void {
    this.#open += 1;
  }

  leave(): void {
    this.#open -= 1;
  }

  /** The size of one buffer, in bytes, now. */
  share(): number {
    return Math.min(MIB, Math.max(SLAB, Math.floor(this.total / (BUFFERS * Math.max(1, this.#open)))));
  }

  /** A buffer of `SLAB` bytes, to be given back: at a page of the machine, unless all of those are in use. */
  take(): Buffer {
    const slab = this.#free.pop();
    if (slab !== undefined) return slab;
    this.#slabs ??= pages(Math.floor(this.total / SLAB));
    if (this.#slabs === 'none' || this.#made + SLAB > this.total) return Buffer.allocUnsafeSlow(SLAB);
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

/** It reserves gigabytes of addresses, which a limit on those refuses; and some run Node without it. */
function pages(initial: number): ArrayBuffer | 'none' {
  try {
    return new WebAssembly.Memory({ initial }).buffer;
  } catch {
    return 'none';
  }
}

/** A buffer that holds what passes in this time is large enough (ms): a slow transfer needs no megabyte. */
const MOMENT = 50;

/**
 * How much one transfer takes of its share: more and more while it is quick, half where it was slow. What it begins with
 * tells nothing: some megabytes pass at once into the buffers of the kernels, however slow the client is.
 */
export class Portion {
  #size = 0;
  #taken = performance.now();

  constructor(private readonly budget: BufferBudget) {}

  /** The size of the next buffer, in bytes; to be called when that is due. */
  next(): number {
    const now = performance.now();
    this.#size = Math.max(SLAB, now - this.#taken < MOMENT ? this.#size + SLAB : this.#size / 2);
    this.#size = Math.min(this.#size, this.budget.share());
    this.#taken = now;
    return this.#size;
  }
}
