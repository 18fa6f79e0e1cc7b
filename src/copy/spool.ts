import { randomUUID } from 'node:crypto';
import { type FileHandle, open, unlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { OperatorError, systemCode } from '../errors.js';
import type { TarSource } from '../tar.js';

/** Read at a time, in bytes. */
const CHUNK = 256 * 1024;

/** A file without a name: it is gone with the process, however that ends. */
export class Spool {
  #size = 0;

  private constructor(readonly file: FileHandle) {}

  static async create(): Promise<Spool> {
    const path = join(tmpdir(), `registry-secure-${randomUUID()}`);
    const file = await open(path, 'wx+', 0o600).catch(refuse);
    await unlink(path);
    return new Spool(file);
  }

  get size(): number {
    return this.#size;
  }

  async append(chunk: Uint8Array): Promise<void> {
    await writeAll(this.file, chunk, this.#size).catch(refuse);
    this.#size += chunk.length;
  }

  async close(): Promise<void> {
    await this.file.close();
  }
}

function refuse(error: unknown): never {
  throw new OperatorError(`${tmpdir()} takes no temporary files (${systemCode(error) ?? error})`, {
    fix: 'set TMPDIR to a folder with room for the image',
    cause: error,
  });
}

/** A file may take less than it is given. */
export async function writeAll(file: FileHandle, chunk: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < chunk.length; )
    done += (await file.write(chunk, done, chunk.length - done, position + done)).bytesWritten;
}

/** The bytes of a file from `start` to before `end`; each chunk is the reader's own. Ends early where the file does. */
export function readFrom(file: FileHandle, start: number, end = Number.MAX_SAFE_INTEGER): TarSource {
  let at = start;
  async function* chunks(): AsyncGenerator<Buffer> {
    while (at < end) {
      const buffer = Buffer.allocUnsafe(Math.min(CHUNK, end - at));
      const { bytesRead } = await file.read(buffer, 0, buffer.length, at);
      if (bytesRead === 0) return;
      at += bytesRead;
      yield buffer.subarray(0, bytesRead);
    }
  }
  return Object.assign(chunks(), {
    skip: (bytes: number) => {
      at += bytes;
    },
  });
}
