import { open, readdir, stat, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { systemCode } from '../errors.js';
import { LONGEST_LINE, type Position, parseFileName, parseLine, startOf } from './chain.js';
import type { Seals } from './seals.js';

interface LogFile {
  readonly name: string;
  readonly chain: string;
  readonly part: number;
  readonly size: number;
  /** Of its last line, in milliseconds. */
  readonly changed: number;
}

/**
 * Removes the oldest files, as long as all together are larger than `keep` bytes, and notes of each that it was let go:
 * whoever verifies the log then misses none. Several processes may do so at once.
 * @param idle a file of a chain that nobody has closed is left alone until it is so old (ms): it may be written to
 * @returns the names of those that are gone
 */
export async function letGo({
  folder,
  seals,
  keep,
  idle,
  own,
}: {
  folder: string;
  seals: Seals;
  keep: number;
  idle: number;
  own: string;
}): Promise<string[]> {
  const files = await logFiles(folder);
  const last = new Map<string, number>();
  for (const { chain, part } of files) last.set(chain, Math.max(part, last.get(chain) ?? 0));
  let size = files.reduce((sum, file) => sum + file.size, 0);
  const gone: string[] = [];
  for (const file of files.sort((a, b) => a.changed - b.changed)) {
    if (size <= keep) break;
    const { name, chain, part, changed } = file;
    if (part === last.get(chain)) {
      if (chain === own) continue;
      const head = await seals.head(chain);
      const ended = head !== undefined && head !== 'forged' && head.closed;
      if (!ended && Date.now() - changed < idle) continue;
    }
    const end = await endOf(join(folder, name)).catch(() => undefined);
    await seals.retire(name, { chain, part, at: new Date().toISOString(), end });
    await unlink(join(folder, name)).catch(error => {
      if (systemCode(error) !== 'ENOENT') throw error;
    });
    if (part === last.get(chain)) await seals.forgetHead(chain);
    size -= file.size;
    gone.push(name);
  }
  await forgetRetired(seals);
  return gone;
}

/** A note of a file that was let go is of use while there is a chain that may name its chain, or go on from it. */
async function forgetRetired(seals: Seals): Promise<void> {
  const chains = await seals.chains();
  const oldest = chains[0] === undefined ? Number.POSITIVE_INFINITY : startOf(chains[0]).getTime();
  for (const file of await seals.retiredFiles()) {
    const retired = await seals.retired(file);
    if (!retired || retired === 'forged' || chains.includes(retired.chain)) continue;
    if (new Date(retired.at).getTime() < oldest) await seals.forgetRetired(file);
  }
}

async function logFiles(folder: string): Promise<LogFile[]> {
  const files: LogFile[] = [];
  for (const name of await readdir(folder)) {
    const parsed = parseFileName(name);
    const found = parsed && (await stat(join(folder, name)).catch(() => undefined));
    if (parsed && found) files.push({ name, ...parsed, size: found.size, changed: found.mtimeMs });
  }
  return files;
}

/** The last whole line of a file. */
async function endOf(path: string): Promise<Position | undefined> {
  const file = await open(path);
  try {
    const { size } = await file.stat();
    const tail = Buffer.alloc(Math.min(size, LONGEST_LINE));
    const { bytesRead } = await file.read(tail, 0, tail.length, size - tail.length);
    const text = tail.subarray(0, bytesRead);
    const end = text.lastIndexOf(0x0a);
    const line = end < 0 ? undefined : parseLine(text.subarray(text.lastIndexOf(0x0a, end - 1) + 1, end));
    return line && { seq: line.seq, hash: line.hash };
  } finally {
    await file.close();
  }
}
