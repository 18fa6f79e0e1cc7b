import { systemCode } from '../../errors.js';
import { StorageError } from '../driver.js';

/** No space, no inodes or no quota left: it passes when the operator frees some. */
export function isFull(error: unknown): boolean {
  const code = systemCode(error);
  return code === 'ENOSPC' || code === 'EDQUOT';
}

/** There is no such file: the path ends early, a file stands where it names a folder, or a folder is there instead. */
export function isAbsent(error: unknown): boolean {
  const code = systemCode(error);
  return code === 'ENOENT' || code === 'ENOTDIR' || code === 'EISDIR';
}

/** As the system says it, where a look has found no file; made once, for an error costs ten times what the look does. */
export const ABSENT: unknown = Object.assign(new Error('no such file'), { code: 'ENOENT' });

/** For what may be gone. */
export function ignoreAbsence(error: unknown): undefined {
  if (!isAbsent(error)) throw error;
}

/** What the caller throws for a failed system call while doing `action`. Mistakes of the program pass unchanged. */
export function storageFailure(action: string, error: unknown): unknown {
  const code = systemCode(error);
  if (code === undefined || code.startsWith('ERR_') || error instanceof StorageError) return error;
  const reason =
    code === 'EXDEV'
      ? 'the folder is on another file system than the root; keep the whole volume on one'
      : (error as Error).message;
  return new StorageError(isFull(error) ? 'full' : 'unavailable', `${action}: ${reason}`, error);
}
