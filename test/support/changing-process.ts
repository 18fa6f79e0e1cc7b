import { closeSync, mkdirSync, openSync, renameSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { createInterface } from 'node:readline';

/**
 * Changes files in a process of its own, with no regard for anybody's caches:
 *
 *     node changing-process.js
 *
 * Each line on standard input is a HOW, a PATH and a TEXT; when that is done, a line `done` says so.
 */
const open = new Map<string, number>();

const WAYS = {
  /** As `registry:2` writes links: the same file, of the same size. */
  over(path: string, text: string): void {
    const file = open.get(path) ?? openSync(path, 'r+');
    open.set(path, file);
    writeSync(file, text, 0);
  },
  renamed(path: string, text: string): void {
    writeFileSync(`${path}.new`, text);
    renameSync(`${path}.new`, path);
    open.delete(path);
  },
  /** The number of the old file is free for the new one. */
  anew(path: string, text: string): void {
    const file = open.get(path);
    if (file !== undefined) closeSync(file);
    open.delete(path);
    rmSync(path);
    writeFileSync(path, text);
  },
  made(path: string, text: string): void {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, text);
  },
  gone(path: string): void {
    rmSync(path, { recursive: true });
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const [how, path, text] = line.split(' ') as [keyof typeof WAYS, string, string];
  WAYS[how](path, text);
  process.stdout.write('done\n');
}
