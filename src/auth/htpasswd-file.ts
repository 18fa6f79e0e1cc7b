import type { BigIntStats } from 'node:fs';
import { type FileHandle, open, stat } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { OperatorError, systemCode } from '../errors.js';
import { type Htpasswd, parseHtpasswd, userCommand } from './htpasswd.js';
import type { LegacyHash } from './legacy-hash.js';

/** About a hundred thousand users. */
const LARGEST = 8 * 1024 * 1024;
/** A file that changed less than this ago may still be in the middle of being written in place, as Apache's htpasswd does. */
const SETTLED_MS = 50;

/** @throws OperatorError as `readHtpasswdFile` and `parseHtpasswd`. */
export async function loadHtpasswd(file: string, legacy: readonly LegacyHash[] = []): Promise<Htpasswd> {
  return parseHtpasswd(await readHtpasswdFile(file), file, legacy);
}

/**
 * The whole file as text, without a byte order mark, read when nobody is in the middle of writing it: waits up to 0.3 s for a file that has just
 * changed to be left alone.
 * @throws OperatorError when it is missing, a folder, unreadable, too large, or not UTF-8, with the fix.
 */
export async function readHtpasswdFile(file: string): Promise<string> {
  await mustBeFile(file);
  const handle = await open(file).catch(error => {
    throw unreadable(file, error);
  });
  try {
    for (let tries = 5; ; tries--) {
      const before = await handle.stat({ bigint: true });
      if (before.size > LARGEST) throw tooLarge(file);
      const bytes = await readAll(handle, file);
      const after = await handle.stat({ bigint: true });
      const same = before.mtimeNs === after.mtimeNs && before.ctimeNs === after.ctimeNs && before.size === after.size;
      if ((same && !fresh(after)) || tries === 0) return decode(bytes, file);
      await sleep(SETTLED_MS);
    }
  } finally {
    await handle.close();
  }
}

/** @throws OperatorError unless it is a regular file: opening anything else could wait for ever. */
async function mustBeFile(file: string): Promise<void> {
  const stats = await stat(file).catch(error => {
    throw unreadable(file, error);
  });
  if (stats.isDirectory())
    throw new OperatorError(`${file} is a folder, not a file (docker makes one where a mounted file is missing)`, {
      fix: `remove it, then: ${userCommand('add', 'NAME', file)}`,
    });
  if (!stats.isFile()) throw new OperatorError(`${file} is not a regular file`, { fix: 'give the path of a file' });
}

function fresh(stats: BigIntStats): boolean {
  // A clock that is behind the file server's makes the age negative: that file is as fresh.
  return Date.now() - Number(stats.ctimeMs) < SETTLED_MS;
}

async function readAll(handle: FileHandle, file: string): Promise<Buffer> {
  const buffer = Buffer.alloc(64 * 1024);
  const chunks: Buffer[] = [];
  for (let position = 0; ; ) {
    const { bytesRead } = await handle.read(buffer, 0, buffer.length, position);
    if (bytesRead === 0) return Buffer.concat(chunks);
    chunks.push(Buffer.from(buffer.subarray(0, bytesRead)));
    position += bytesRead;
    if (position > LARGEST) throw tooLarge(file);
  }
}

function decode(bytes: Buffer, file: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw new OperatorError(`${file} is not UTF-8`, { fix: 'save it as UTF-8' });
  }
}

function tooLarge(file: string): OperatorError {
  return new OperatorError(`${file} is larger than 8 MiB`, { fix: 'is it the right file? It holds one user a line' });
}

function unreadable(file: string, error: unknown): OperatorError {
  switch (systemCode(error)) {
    case 'ENOENT':
    case 'ENOTDIR':
      return new OperatorError(`${file} does not exist`, { fix: `make it: ${userCommand('add', 'NAME', file)}` });
    case 'EACCES':
    case 'EPERM':
      return new OperatorError(`${file} may not be read by this user`, {
        fix: 'give it to the user that runs this, with mode 0600',
        cause: error,
      });
    default:
      return new OperatorError(`${file} cannot be read: ${(error as Error).message}`, { cause: error });
  }
}
