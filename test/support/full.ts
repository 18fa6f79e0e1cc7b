import { mkdir, open, statfs, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

const MIB = 1024 * 1024;

/**
 * Takes every block of a file system by a file. May be called again for what has become free.
 * @param leave so many bytes
 */
export async function fillBlocks(folder: string, leave = 0): Promise<void> {
  await mkdir(folder, { recursive: true });
  const file = await open(join(folder, 'blocks'), 'a');
  try {
    const { bavail, bsize } = await statfs(folder);
    for (let left = leave && bavail * bsize - leave; left > 0; left -= MIB)
      await file.write(Buffer.alloc(Math.min(left, MIB)));
    if (leave) return;
    // Ever smaller pieces, so that not one block is left.
    for (let size = MIB; size >= 512; size /= 2)
      for (;;)
        if (
          !(await file.write(Buffer.alloc(size)).then(
            ({ bytesWritten }) => bytesWritten > 0,
            () => false,
          ))
        )
          break;
    await file.sync().catch(() => {});
  } finally {
    await file.close();
  }
}

/**
 * Takes every inode by empty files. May be called again.
 * @param leave so many
 */
export async function fillInodes(folder: string, leave = 0): Promise<void> {
  await mkdir(folder, { recursive: true });
  const { ffree } = await statfs(folder);
  for (let n = 0; !leave || n < ffree - leave; n++)
    try {
      await writeFile(join(folder, `${process.hrtime.bigint()}-${n}`), '', { flag: 'wx' });
    } catch {
      return;
    }
}
