import { randomBytes } from 'node:crypto';
import type { Stats } from 'node:fs';
import { lstat, open, readdir, realpath, rename, unlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { OperatorError, systemCode } from '../errors.js';
import { syncFolder } from '../folder.js';

/**
 * Replaces a file atomically, on the disk when it resolves. Its owner and mode stay; a new file has mode 0600. Where it
 * cannot be renamed over (it is a mount point) or given to its owner, it is rewritten in place. Only under a lock.
 * @param before the file's state, undefined where there is none.
 * @param allowed is asked just before: the last moment to leave the file as it is.
 * @returns what the operator should know about how it was written, if anything.
 * @throws OperatorError when it is not allowed, or when rewriting in place failed; system errors.
 */
export async function replaceFile(
  file: string,
  text: string,
  before: Stats | undefined,
  allowed: () => Promise<boolean>,
): Promise<string | undefined> {
  const draft = `${file}.${randomBytes(6).toString('hex')}.new`;
  let obstacle: string | undefined;
  try {
    const sameOwner = await writeDraft(draft, text, before);
    if (!(await allowed()))
      throw new OperatorError(`${file} was locked by another process meanwhile`, {
        fix: 'nothing was changed; try again',
      });
    obstacle = sameOwner ? await renameOver(draft, file) : 'it belongs to another user';
  } catch (error) {
    await unlink(draft).catch(() => undefined);
    throw error;
  }
  if (obstacle !== undefined) await overwrite(file, text, draft);
  await removeDrafts(file);
  await syncFolder(dirname(file));
  return obstacle === undefined ? undefined : `${file} was rewritten in place, since ${obstacle}`;
}

/** @returns whether the draft has the owner of the file that it is to replace. */
async function writeDraft(draft: string, text: string, before: Stats | undefined): Promise<boolean> {
  const handle = await open(draft, 'wx', 0o600);
  try {
    let sameOwner = true;
    if (before) {
      const { uid, gid } = await handle.stat();
      if (uid !== before.uid || gid !== before.gid)
        sameOwner = await handle.chown(before.uid, before.gid).then(
          () => true,
          () => false,
        );
      if (sameOwner) await handle.chmod(before.mode & 0o777);
    }
    await handle.writeFile(text);
    await handle.sync();
    return sameOwner;
  } finally {
    await handle.close();
  }
}

/** @returns why the file cannot be replaced by another, if so. */
async function renameOver(draft: string, file: string): Promise<string | undefined> {
  try {
    await rename(draft, file);
    return undefined;
  } catch (error) {
    if (systemCode(error) !== 'EBUSY') throw error;
    return 'it is mounted on its own (mount its folder instead, and changes are atomic)';
  }
}

/**
 * A reader in between sees the new lines first, and perhaps the end of the old ones behind them. The draft stays until
 * all is on the disk, so that whatever goes wrong the new content is somewhere.
 */
async function overwrite(file: string, text: string, draft: string): Promise<void> {
  const bytes = Buffer.from(text);
  try {
    await syncFolder(dirname(draft));
    const handle = await open(file, 'r+');
    try {
      for (let written = 0; written < bytes.length; )
        written += (await handle.write(bytes, written, bytes.length - written, written)).bytesWritten;
      await handle.truncate(bytes.length);
      await handle.sync();
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw new OperatorError(`${file} cannot be rewritten in place: ${(error as Error).message}`, {
      fix: `its new content is in ${draft}: copy that over it, then remove it`,
      cause: error,
    });
  }
  await unlink(draft);
}

/** What processes that were killed have left beside the file. */
async function removeDrafts(file: string): Promise<void> {
  const folder = dirname(file);
  for (const name of await readdir(folder)) {
    const isDraft = name.startsWith(`${basename(file)}.`) && /\.[0-9a-f]{12}\.new$/.test(name);
    if (isDraft) await unlink(join(folder, name)).catch(() => undefined);
  }
}

/** The file itself where `file` is a symbolic link to it: renaming over the link would cut it. @throws OperatorError for one that leads nowhere */
export async function targetOf(file: string): Promise<string> {
  try {
    return await realpath(file);
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') return file;
    const link = await lstat(file).catch(() => undefined);
    // Another process may have made the file meanwhile.
    if (!link?.isSymbolicLink()) return file;
    throw new OperatorError(`${file} is a symbolic link to a file that does not exist`, {
      fix: `remove it: rm ${file}`,
    });
  }
}
