import { randomBytes } from 'node:crypto';
import { open, rename, stat, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { syncFolder } from '../folder.js';

/** A file by its name in the folder, with its mode. */
export interface NewFile {
  readonly name: string;
  readonly content: string | Uint8Array;
  readonly mode: 0o600 | 0o644;
}

/**
 * Puts files into a folder of anybody's, where nothing else may be touched: each whole or not at all, on the disk when it
 * resolves. What root writes belongs to the owner of the folder.
 */
export async function putFiles(dir: string, files: readonly NewFile[]): Promise<void> {
  const owner = process.getuid?.() === 0 ? await stat(dir) : undefined;
  const drafts: { draft: string; path: string }[] = [];
  try {
    for (const { name, content, mode } of files) {
      const path = join(dir, name);
      const draft = join(dir, `.${name}.${randomBytes(6).toString('hex')}.new`);
      drafts.push({ draft, path });
      const handle = await open(draft, 'wx', mode);
      try {
        // An owner that cannot be given, for want of a capability, is told of by whoever cannot read the file.
        if (owner) await handle.chown(owner.uid, owner.gid).catch(() => undefined);
        await handle.writeFile(content);
        await handle.sync();
      } finally {
        await handle.close();
      }
    }
    for (const { draft, path } of drafts) await rename(draft, path);
  } catch (error) {
    for (const { draft } of drafts) await unlink(draft).catch(() => undefined);
    throw error;
  }
  await syncFolder(dir);
}
