import { mkdir, open, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { OperatorError, systemCode } from './errors.js';

/**
 * `mkdir -p`, because Node's own (20.20) answers ENOENT where the disk is full or read-only, and below /proc never
 * answers.
 * @param below where to stop: a root that is gone, an unmounted volume perhaps, is not made again.
 * @param make makes one folder, as mkdir does, now or later
 * @returns the uppermost folder that it made, if any.
 * @throws ENOENT when `below` is missing, or another process removes what this one makes.
 */
export async function makeFolders(
  path: string,
  mode: number,
  below?: string,
  make: (path: string, mode: number) => unknown = mkdir,
): Promise<string | undefined> {
  try {
    await make(path, mode);
    return path;
  } catch (error) {
    if (systemCode(error) === 'EEXIST') return undefined;
    const above = dirname(path);
    if (systemCode(error) !== 'ENOENT' || above === below || above === path) throw error;
    const first = await makeFolders(above, mode, below, make);
    try {
      await make(path, mode);
    } catch (failed) {
      if (systemCode(failed) !== 'EEXIST') throw failed;
    }
    return first ?? path;
  }
}

/** A folder and what is missing above it, on the disk when it resolves; nobody else may write to it. @throws OperatorError */
export async function makeFolder(folder: string): Promise<void> {
  const refuse = (error: unknown): never => {
    throw new OperatorError(`the folder ${folder} cannot be made (${systemCode(error) ?? error})`, {
      fix: 'give a folder that this user may write to',
      cause: error,
    });
  };
  const first = await makeFolders(folder, 0o755).catch(refuse);
  if (first === undefined)
    return (await stat(folder).catch(refuse)).isDirectory() ? undefined : refuse({ code: 'ENOTDIR' });
  for (let made = folder; ; made = dirname(made)) {
    await syncFolder(dirname(made));
    if (made === first || made === dirname(made)) return;
  }
}

/** Makes what was created, renamed or removed in a folder survive a power cut. */
export async function syncFolder(folder: string): Promise<void> {
  // Windows cannot open a folder, and keeps its entries by itself.
  if (process.platform === 'win32') return;
  const handle = await open(folder);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
