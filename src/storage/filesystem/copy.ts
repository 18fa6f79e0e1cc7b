import { constants } from 'node:fs';
import { copyFile, type FileHandle, open } from 'node:fs/promises';
import { systemCode } from '../../errors.js';

/** A copy that shares the blocks of `from`; false where the file system cannot. */
export async function clone(from: string, to: string): Promise<boolean> {
  try {
    await copyFile(from, to, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE_FORCE);
    return true;
  } catch (error) {
    if (['ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EXDEV', 'EINVAL', 'ENOTTY'].includes(systemCode(error) ?? ''))
      return false;
    throw error;
  }
}

const COPY_BUFFER = 1024 * 1024;

export async function append(to: FileHandle, path: string): Promise<void> {
  const from = await open(path, 'r');
  try {
    const buffer = Buffer.allocUnsafe(COPY_BUFFER);
    for (;;) {
      const { bytesRead } = await from.read(buffer, 0, buffer.length, null);
      if (bytesRead === 0) return;
      for (let at = 0; at < bytesRead; ) at += (await to.write(buffer, at, bytesRead - at, null)).bytesWritten;
    }
  } finally {
    await from.close();
  }
}
