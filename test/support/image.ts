import { createHash, randomFillSync } from 'node:crypto';
import { closeSync, mkdirSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';

/** Writes a file that nothing can compress. */
function writeRandom(path: string, bytes: number): void {
  const chunk = Buffer.alloc(Math.min(bytes, 1 << 20));
  const file = openSync(path, 'w');
  for (let left = bytes; left > 0; left -= chunk.length)
    writeSync(file, randomFillSync(chunk), 0, Math.min(left, chunk.length));
  closeSync(file);
}

/** A build folder: a Dockerfile FROM scratch with one layer for each size, all of them new on each call. */
export function writeBuildFolder(folder: string, sizes: readonly number[]): void {
  mkdirSync(folder, { recursive: true });
  for (const [index, bytes] of sizes.entries()) writeRandom(join(folder, `layer${index}`), bytes);
  const copies = sizes.map((_, index) => `COPY layer${index} /layer${index}\n`);
  writeFileSync(join(folder, 'Dockerfile'), `FROM scratch\n${copies.join('')}CMD ["/layer0"]\n`);
}

/** SHA-256 of bytes as the registry names it. */
export function digest(bytes: Buffer | string): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}
