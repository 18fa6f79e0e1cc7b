import { readdir, rmdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { systemCode } from '../../errors.js';
import type { Calls } from './calls.js';
import { ignoreAbsence } from './failure.js';

/** How often work is begun again that another process undoes meanwhile: a folder that it removes, a file that it adds. */
export const TRIES = 20;

/** Whether that many tries are more than chance explains. */
export const isLosing = (tries: number) => tries > 3;

/** Two that undo each other's work in step would do so at every try: after a few they wait, each for another time. */
export async function outOfStep(tries: number): Promise<void> {
  if (tries > 2) await sleep(Math.random() * tries);
}

/**
 * Removes a folder with all below it, in the order of the names. Symbolic links go, what they point at stays. Where others
 * make objects in it meanwhile, it is taken out of their sight: they could go on faster than this removes.
 * @param removing told of each folder before it goes, by its own name wherever it has been moved
 * @param temporary a name on the same file system where nobody makes anything, another each time
 * @param at where the folder is by now: below one that was moved it is no longer found by its name
 */
export async function removeFolder(
  folder: string,
  calls: Calls,
  removing: (folder: string) => void,
  temporary: () => string,
  at = folder,
): Promise<void> {
  let path = at;
  for (let tries = 1; ; tries++) {
    const children = await unlessAbsent(() => calls.list(path));
    if (children === undefined) return;
    children.sort((one, other) => (one.name < other.name ? -1 : 1));
    for (const child of children) {
      const inside = join(path, child.name);
      if (child.isDirectory()) await removeFolder(join(folder, child.name), calls, removing, temporary, inside);
      else await unlessAbsent(() => calls.unlink(inside));
    }
    removing(folder);
    try {
      return await unlessAbsent(() => calls.removeFolder(path));
    } catch (error) {
      // Somebody has made a new object below.
      if (systemCode(error) !== 'ENOTEMPTY' || tries === TRIES) throw error;
      if (path === folder) path = await moved(path, temporary(), calls);
      await outOfStep(tries);
    }
  }
}

/** Where the folder is then: it cannot be moved where another file system is mounted on it or below its root. */
async function moved(path: string, to: string, calls: Calls): Promise<string> {
  try {
    await calls.rename(path, to);
    return to;
  } catch {
    return path;
  }
}

async function unlessAbsent<T>(call: () => T | Promise<T>): Promise<T | undefined> {
  try {
    return await call();
  } catch (error) {
    return ignoreAbsence(error);
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
