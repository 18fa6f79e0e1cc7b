import { type Digest, hexOf } from '../reference.js';

/**
 * A set of digests in about 16 bytes each, for a whole store at once. It keeps the first 52 bits of each: so `has` may
 * say yes, once in some billion times, to a digest that was never added. Who uses it must make that harmless.
 */
export class DigestSet {
  /** Open addressing; 0 is a free place. */
  private table = new Float64Array(1024);
  size = 0;

  static key(digest: Digest): number {
    const hex = hexOf(digest);
    return Number.parseInt(hex.slice(0, 13), 16) + 1;
  }

  add(digest: Digest): void {
    this.addKey(DigestSet.key(digest));
  }

  /** @param key made by `DigestSet.key` */
  addKey(key: number): void {
    if (this.size >= this.table.length * 0.75) this.grow();
    if (place(this.table, key)) this.size += 1;
  }

  has(digest: Digest): boolean {
    const key = DigestSet.key(digest);
    const mask = this.table.length - 1;
    for (let at = key & mask; ; at = (at + 1) & mask) {
      if (this.table[at] === key) return true;
      if (this.table[at] === 0) return false;
    }
  }

  private grow(): void {
    const larger = new Float64Array(this.table.length * 2);
    for (const key of this.table) if (key !== 0) place(larger, key);
    this.table = larger;
  }
}

/** False when it was there. */
function place(table: Float64Array, key: number): boolean {
  const mask = table.length - 1;
  let at = key & mask;
  for (; table[at] !== 0; at = (at + 1) & mask) if (table[at] === key) return false;
  table[at] = key;
  return true;
}
