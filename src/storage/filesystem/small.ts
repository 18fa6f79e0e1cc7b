import { close, closeSync, fstat, open, openSync, read, readSync } from 'node:fs';
import { promisify } from 'node:util';
import { StorageError } from '../driver.js';

/*
 * Every pull reads links and manifests, so this path goes without FileHandle: three calls on a bare descriptor cost a
 * third of the processor time of four on a handle.
 */
const openFile = promisify(open);
const readFile = promisify(read);
const statFile = promisify(fstat);
const closeFile = promisify(close);

/** Links are 71 bytes, upload steps and most records some hundred. */
const FIRST_READ = 1024;

/** A whole file. @throws StorageError when it holds more than `limit` bytes; system errors, EISDIR among them. */
export async function readSmall(path: string, limit: number): Promise<Buffer> {
  const file = await openFile(path, 'r');
  try {
    const first = Buffer.allocUnsafe(FIRST_READ);
    const { bytesRead } = await readFile(file, first, 0, FIRST_READ, 0);
    // A regular file gives less than asked for only at its end.
    const whole = bytesRead < FIRST_READ ? first.subarray(0, bytesRead) : await readRest(file, path, first, limit);
    if (whole.length > limit) throw tooLarge(path, whole.length, limit);
    return whole;
  } finally {
    await closeFile(file);
  }
}

/** As `readSmall`, on this thread; undefined where the file is larger than most. */
export function readSmallNow(path: string): Buffer | undefined {
  const file = openSync(path, 'r');
  try {
    const first = Buffer.allocUnsafe(FIRST_READ);
    const bytesRead = readSync(file, first, 0, FIRST_READ, 0);
    return bytesRead < FIRST_READ ? first.subarray(0, bytesRead) : undefined;
  } finally {
    closeSync(file);
  }
}

async function readRest(file: number, path: string, first: Buffer, limit: number): Promise<Buffer> {
  const { size } = await statFile(file);
  if (size > limit) throw tooLarge(path, size, limit);
  const whole = Buffer.allocUnsafeSlow(size);
  first.copy(whole);
  for (let at = first.length; at < size; ) {
    const { bytesRead } = await readFile(file, whole, at, size - at, at);
    if (bytesRead === 0) throw new StorageError('unavailable', `${path} ends at ${at} instead of ${size}`);
    at += bytesRead;
  }
  return whole;
}

function tooLarge(path: string, size: number, limit: number): StorageError {
  return new StorageError('unavailable', `${path} has ${size} bytes, more than the limit of ${limit}`);
}
