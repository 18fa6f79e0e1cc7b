import { randomUUID } from 'node:crypto';
import { link, lstat, mkdir, readdir, rename, rmdir, stat, unlink, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { systemCode } from '../../errors.js';
import { StorageError } from '../driver.js';
import { ignoreAbsence, isAbsent } from './failure.js';
import { TRIES } from './folders.js';

/*
 * Removing a file that nobody has renewed, while others may be renewing it at this moment. No system call removes a file
 * on a condition, so it is taken away first and judged then: it moves into a folder beside it, `link~doomed`, and when
 * its time turns out to be fresh it is put back. Whoever misses the file meanwhile sees that folder, and waits until it
 * is gone. The folder is made before the last look at the file: so where there is no folder, nobody takes a file that was
 * fresh by then.
 *
 * A process that dies on the way leaves the folder behind; then whoever misses the file puts it back. `registry:2` looks
 * at files called `link` and `data` only, and no tag, no repository and no digest can hold a tilde.
 */
const SUFFIX = '~doomed';

/** How long a folder may stand before its maker counts as dead. When it is only slow, the file stays: no harm. */
const ABANDONED_MS = 1000;

const folderOf = (path: string): string => `${path}${SUFFIX}`;

/** The name of the file that such a folder belongs to; undefined for the name of anything else. */
export function doomedName(name: string): string | undefined {
  return name.endsWith(SUFFIX) ? name.slice(0, -SUFFIX.length) : undefined;
}

/**
 * Removes a file unless it was changed or renewed at `before` or later; safe against `renew`, against writers that
 * replace it, and against itself in any number of processes.
 * @param makeFolder as mkdir; a folder of the name that has something in it is not to be touched
 * @returns whether it has removed something
 */
export async function removeStaleFile(
  path: string,
  before: Date,
  makeFolder: (path: string) => Promise<unknown> = mkdir,
): Promise<boolean> {
  const isStale = async () => {
    const info = await lstat(path).catch(ignoreAbsence);
    return info === undefined ? undefined : info.isFile() && info.mtime < before;
  };
  for (let tries = 1; tries <= TRIES; tries++) {
    const stale = await isStale();
    if (stale === false) return false;
    if (stale === undefined || (await take(path, isStale, makeFolder))) break;
  }
  return settle(path, before);
}

/** False when the folder was removed on the way by another who is at the same file. */
async function take(
  path: string,
  isStale: () => Promise<boolean | undefined>,
  makeFolder: (path: string) => Promise<unknown>,
): Promise<boolean> {
  try {
    await makeFolder(folderOf(path)).catch(error => {
      if (systemCode(error) !== 'EEXIST' && systemCode(error) !== 'ENOTEMPTY') throw error;
    });
    if (await isStale()) await rename(path, join(folderOf(path), randomUUID()));
    return true;
  } catch (error) {
    if (!isAbsent(error)) throw error;
    return false;
  }
}

/** Judges all that was taken, by this call, by others at work, and by some that died. */
async function settle(path: string, before: Date): Promise<boolean> {
  let removed = false;
  for (const taken of (await takenFrom(path)) ?? []) {
    const info = await lstat(taken).catch(ignoreAbsence);
    if (info === undefined) continue;
    if (info.mtime >= before) await putBack(taken, path);
    else if (await unlinked(taken)) removed = true;
  }
  await removeEmpty(folderOf(path));
  return removed;
}

/** A newer file may have the name by now: then that one counts. */
async function putBack(taken: string, path: string): Promise<void> {
  await link(taken, path).catch(error => {
    if (systemCode(error) !== 'EEXIST') ignoreAbsence(error);
  });
  await unlinked(taken);
}

type IsThere = (path: string) => boolean | Promise<boolean>;

/**
 * After a miss: whether the file is there all the same, when nobody is removing it any more.
 * @param isThere whether there is something by a name
 */
export async function isBack(path: string, isThere: IsThere = hasName): Promise<boolean> {
  const start = performance.now();
  for (let wait = 1; ; wait = Math.min(2 * wait, 50)) {
    // In this order: a file that was put back in between is found.
    const taken = (await isThere(folderOf(path))) ? await takenFrom(path) : undefined;
    if (await isThere(path)) return true;
    if (taken === undefined) return false;
    if (performance.now() - start < ABANDONED_MS) await pause(wait);
    else {
      for (const file of taken) await putBack(file, path);
      await removeEmpty(folderOf(path));
    }
  }
}

/** Sets the time of change to now; false when there is no such file. Once it is true, no removal takes the file. */
export async function renew(path: string): Promise<boolean> {
  for (let tries = 1; tries <= TRIES; tries++) {
    const now = currentSeconds();
    try {
      await utimes(path, now, now);
      // Only now it is certain: the file may have been taken and judged while its time was being set.
      const info = await stat(path);
      if (isSince(info.mtimeMs, now * 1000)) return true;
    } catch (error) {
      if (!isAbsent(error)) throw error;
      if (systemCode(error) !== 'ENOENT' || !(await isBack(path))) return false;
    }
  }
  throw new StorageError('unavailable', `${path}: the file system does not keep times of change`);
}

/** For utimes, which rounds down: half a millisecond more keeps it from ending up before now. */
export function currentSeconds(): number {
  return (Date.now() + 0.5) / 1000;
}

/** Some file systems count in seconds, or in pairs of them. */
function isSince(modified: number, time: number): boolean {
  return modified > time - (modified % 1000 === 0 ? 2000 : 1);
}

/**
 * Removes a file for good, also from where it may have been taken to. What another makes in its place meanwhile stays.
 * @returns whether there was one
 */
export async function removeFile(path: string): Promise<boolean> {
  for (let removed = false; ; ) {
    if (await unlinked(path)) removed = true;
    const taken = (await takenFrom(path)) ?? [];
    // Each of them may have been put back by now, so there is another round.
    for (const file of taken) if (await unlinked(file)) removed = true;
    if (taken.length > 0) continue;
    if (removed || !(await isBack(path)) || (await isFolder(path))) return removed;
  }
}

async function hasName(path: string): Promise<boolean> {
  return (await stat(path).catch(ignoreAbsence)) !== undefined;
}

/** What was taken; undefined when there is no folder. */
async function takenFrom(path: string): Promise<string[] | undefined> {
  const names = await readdir(folderOf(path)).catch(ignoreAbsence);
  return names?.map(name => join(folderOf(path), name));
}

async function unlinked(path: string): Promise<boolean> {
  try {
    await unlink(path);
    return true;
  } catch (error) {
    ignoreAbsence(error);
    return false;
  }
}

async function isFolder(path: string): Promise<boolean> {
  return (await lstat(path).catch(ignoreAbsence))?.isDirectory() ?? false;
}

async function removeEmpty(folder: string): Promise<void> {
  await rmdir(folder).catch(error => {
    if (systemCode(error) !== 'ENOTEMPTY' && systemCode(error) !== 'EEXIST') ignoreAbsence(error);
  });
}
