import { mkdir, readdir, rmdir, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { systemCode } from '../../errors.js';
import { isAbsent } from './failure.js';

/** How often work is begun again that another process undoes meanwhile: a folder that it removes, a file that it adds. */
export const TRIES = 20;

/**
 * `mkdir -p`, because Node's own (20.20) answers ENOENT where the disk is full or read-only.
 * @param below where to stop: a root that is gone, an unmounted volume perhaps, is not made again.
 * @returns the uppermost folder that it made, if any.
 * @throws ENOENT when `below` is missing, or another process removes what this one makes.
 */
export async function makeFolders(path: string, mode: number, below?: string): Promise<string | undefined> {
  try {
    await mkdir(path, mode);
    return path;
  } catch (error) {
    if (systemCode(error) === 'EEXIST') return undefined;
    const above = dirname(path);
    if (systemCode(error) !== 'ENOENT' || above === below || above === path) throw error;
    const first = await makeFolders(above, mode, below);
    await mkdir(path, mode).catch(failed => {
      if (systemCode(failed) !== 'EEXIST') throw failed;
    });
    return first ?? path;
  }
}

/**
 * Removes a folder with all below it. Symbolic links go, what they point at stays.
 * @param removing told of each folder before it goes
 */
export async function removeFolder(path: string, removing: (folder: string) => void): Promise<void> {
  for (let tries = 1; ; tries++) {
    const children = await readdir(path, { withFileTypes: true }).catch(ignoreAbsence);
    if (children === undefined) return;
    for (const child of children) {
      const inside = join(path, child.name);
      if (child.isDirectory()) await removeFolder(inside, removing);
      else await unlink(inside).catch(ignoreAbsence);
    }
    removing(path);
    try {
      return await rmdir(path).catch(ignoreAbsence);
    } catch (error) {
      // Somebody has made a new object below.
      if (systemCode(error) !== 'ENOTEMPTY' || tries === TRIES) throw error;
    }
  }
}

export function ignoreAbsence(error: unknown): undefined {
  if (!isAbsent(error)) throw error;
}
