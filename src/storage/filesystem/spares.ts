import { randomUUID } from 'node:crypto';
import { mkdir, readdir, rename, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { systemCode } from '../../errors.js';
import { ignoreAbsence, isFull } from './failure.js';

/**
 * xfs makes no folder where fewer than some fifty blocks are free, and a link that goes frees one. Beside that, other processes
 * may be at it, and pushes take the room that becomes free.
 */
const SPARES = 128;

/**
 * Empty folders, made while there is room. Removing a stale file takes a folder to judge it in (doomed.ts), and on a full
 * disk none can be made: the collector could free nothing just where it has to. But one that is there can be given another
 * name, which takes neither a block nor an inode.
 */
export class SpareFolders {
  #isShort = false;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(private readonly folder: string) {}

  /** Makes those that are missing, as far as there is room. */
  async stock(): Promise<void> {
    this.#isShort = true;
    try {
      await mkdir(this.folder).catch(ignoreExistence);
      for (let left = SPARES - (await readdir(this.folder)).length; left > 0; left--)
        await mkdir(join(this.folder, randomUUID()));
      this.#isShort = false;
    } catch (error) {
      if (!isFull(error)) throw error;
    }
  }

  /** As `stock`, where some were used and not made again. */
  async restock(): Promise<void> {
    if (this.#isShort) await this.stock();
  }

  /**
   * Does what needs a folder and frees more than that. One after the other: what each frees holds the spare that the next
   * one needs.
   */
  lend<T>(task: (makeFolder: (path: string) => Promise<unknown>) => Promise<T>): Promise<T> {
    const done = this.#turn.then(() => task(path => this.#make(path))).finally(() => this.restock());
    this.#turn = done.catch(() => undefined);
    return done;
  }

  async #make(path: string): Promise<unknown> {
    return mkdir(path).catch(async error => {
      if (!isFull(error)) throw error;
      if (!(await this.#give(path))) throw error;
    });
  }

  /** An empty folder that has the name already is replaced: whoever made it finds this one in its place. */
  async #give(path: string): Promise<boolean> {
    this.#isShort = true;
    for (const name of (await readdir(this.folder).catch(ignoreAbsence)) ?? []) {
      const spare = join(this.folder, name);
      try {
        await rename(spare, path);
        return true;
      } catch (error) {
        // Another process was faster, unless it is the folder above the path that is missing.
        if (systemCode(error) !== 'ENOENT' || (await stat(spare).catch(ignoreAbsence))) throw error;
      }
    }
    return false;
  }
}

function ignoreExistence(error: unknown): void {
  if (systemCode(error) !== 'EEXIST') throw error;
}
