import { constants, writeSync } from 'node:fs';
import { type FileHandle, open, stat, unlink } from 'node:fs/promises';
import { dirname } from 'node:path';
import { makeFolders, syncFolder } from '../folder.js';

/** One file of a chain, written from its beginning by one process. */
export class Part {
  #size = 0;

  private constructor(
    readonly path: string,
    private readonly handle: FileHandle,
    private readonly inode: bigint,
  ) {}

  /**
   * Makes the file, which must not be there. For the owner alone, from the first byte.
   * @param withFolder whether its folder may be made too: where one was before, it is only out of sight, as on a volume
   *   that is not mounted
   */
  static async create(path: string, { withFolder }: { withFolder: boolean }): Promise<Part> {
    if (withFolder) await makeFolders(dirname(path), 0o700);
    // Never through a link that somebody else has put there.
    const handle = await open(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600);
    try {
      const { ino } = await handle.stat({ bigint: true });
      await syncFolder(dirname(path));
      return new Part(path, handle, ino);
    } catch (error) {
      await handle.close();
      await unlink(path).catch(() => undefined);
      throw error;
    }
  }

  /** In bytes. */
  get size(): number {
    return this.#size;
  }

  /**
   * Writes all of it or fails; then what was written of it is not part of the file, and the next call writes over it.
   * Survives SIGKILL.
   */
  async append(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length; ) {
      const { bytesWritten } = await this.handle.write(bytes, done, bytes.length - done, this.#size + done);
      if (bytesWritten === 0) throw Object.assign(new Error('nothing was written'), { code: 'ENOSPC' });
      done += bytesWritten;
    }
    this.#size += bytes.length;
  }

  /** For a process that is ending: as `append`, without waiting and as far as it goes. */
  appendNow(bytes: Uint8Array): void {
    this.#size += writeSync(this.handle.fd, bytes, 0, bytes.length, this.#size);
  }

  /** What was appended survives a power cut. */
  async sync(): Promise<void> {
    await this.handle.datasync();
  }

  /** Whether the file still has its name, and all that was written. */
  async isInPlace(): Promise<boolean> {
    const found = await stat(this.path, { bigint: true }).catch(() => undefined);
    return found?.ino === this.inode && found.size >= this.#size;
  }

  async remove(): Promise<void> {
    await this.handle.close();
    await unlink(this.path);
  }

  async close(): Promise<void> {
    await this.handle.close();
  }
}
