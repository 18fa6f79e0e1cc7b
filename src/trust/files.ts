import { randomBytes } from 'node:crypto';
import { open, readFile, realpath, rename, rmdir, stat, unlink } from 'node:fs/promises';
import { dirname } from 'node:path';
import { systemCode } from '../errors.js';
import { makeFolder, syncFolder } from '../folder.js';

/** What happened to one file. `kept`: it is not ours, or not ours alone. */
export interface Change {
  readonly path: string;
  readonly action: 'created' | 'updated' | 'unchanged' | 'removed' | 'kept';
  readonly why?: string;
}

/** The bytes of a file, undefined where there is none. @throws system errors */
export async function readIfThere(path: string): Promise<Buffer | undefined> {
  try {
    return await readFile(path);
  } catch (error) {
    if (systemCode(error) === 'ENOENT' || systemCode(error) === 'ENOTDIR') return undefined;
    throw error;
  }
}

/**
 * Brings a file to this content: at once, so that a client reads the old or the new, and on the disk when it resolves.
 * @param mode of a new file. With `keep`, an existing one keeps its owner and mode, and a link to it stays a link.
 * @throws OperatorError, system errors
 */
export async function bring(
  path: string,
  content: Buffer,
  { mode, keep = false, dryRun }: { mode: number; keep?: boolean; dryRun: boolean },
): Promise<Change> {
  const before = await readIfThere(path);
  const wrongMode = before !== undefined && !keep && ((await stat(path)).mode & 0o777 & ~mode) !== 0;
  if (before?.equals(content) && !wrongMode) return { path, action: 'unchanged' };
  const change: Change = { path, action: before === undefined ? 'created' : 'updated' };
  if (dryRun) return change;
  const real = keep && before !== undefined ? await realpath(path) : path;
  const draft = `${real}.${randomBytes(6).toString('hex')}.new`;
  await makeFolder(dirname(real));
  const file = await open(draft, 'wx', 0o600);
  try {
    if (keep && before !== undefined) {
      const { mode: had, uid, gid } = await stat(real);
      await file.chown(uid, gid);
      await file.chmod(had & 0o777);
    } else await file.chmod(mode);
    await file.writeFile(content);
    await file.sync();
  } catch (error) {
    await unlink(draft);
    throw error;
  } finally {
    await file.close();
  }
  await rename(draft, real);
  await syncFolder(dirname(real));
  return change;
}

/** Removes a file; with `folder` also that, where it is empty then: some clients stop at a folder, even when it is empty. */
export async function takeAway(
  path: string,
  { folder, dryRun }: { folder: boolean; dryRun: boolean },
): Promise<Change> {
  if (!dryRun) {
    await unlink(path);
    if (folder) await removeEmpty(dirname(path));
  }
  return { path, action: 'removed' };
}

export async function removeEmpty(folder: string): Promise<void> {
  await rmdir(folder).catch(error => {
    if (!['ENOTEMPTY', 'EEXIST', 'ENOENT', 'EBUSY', 'ENOTDIR'].includes(systemCode(error) ?? '')) throw error;
  });
}
