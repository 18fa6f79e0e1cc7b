import { readdir, rmdir, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { systemCode } from '../../errors.js';
import { isAbsent } from './failure.js';

/** How often work is begun again that another process undoes meanwhile: a folder that it removes, a file that it adds. */
export const TRIES = 20;

/**
 * Removes a folder with all below it, in the order of the names. Symbolic links go, what they point at stays.
 * @param removing told of each folder before it goes
 */
export async function removeFolder(path: string, removing: (folder: string) => void): Promise<void> {
  for (let tries = 1; ; tries++) {
    const children = await readdir(path, { withFileTypes: true }).catch(ignoreAbsence);
    if (children === undefined) return;
    children.sort((one, other) => (one.name < other.name ? -1 : 1));
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

/**
 * Removes a folder and those below it as far as they hold no files, and then those above it, up to `root`. Whoever makes
 * a file in one of them meanwhile makes the folder again.
 * @param removed told of each folder that went
 */
export async function pruneFolders(path: string, root: string, removed: (folder: string) => void): Promise<void> {
  await pruneBelow(path, removed);
  for (let at = path; at !== root && at !== dirname(at) && (await removedIfEmpty(at)); at = dirname(at)) removed(at);
}

async function pruneBelow(path: string, removed: (folder: string) => void): Promise<void> {
  const children = await readdir(path, { withFileTypes: true }).catch(ignoreAbsence);
  for (const child of children ?? []) {
    if (!child.isDirectory()) continue;
    const inside = join(path, child.name);
    await pruneBelow(inside, removed);
    if (await removedIfEmpty(inside)) removed(inside);
  }
}

/** Also true when there was none: its place above may be empty all the same. */
async function removedIfEmpty(path: string): Promise<boolean> {
  try {
    await rmdir(path);
    return true;
  } catch (error) {
    const code = systemCode(error);
    if (code === 'ENOTEMPTY' || code === 'EEXIST' || code === 'ENOTDIR') return false;
    ignoreAbsence(error);
    return true;
  }
}

export function ignoreAbsence(error: unknown): undefined {
  if (!isAbsent(error)) throw error;
}
