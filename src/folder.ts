import { mkdir, open } from 'node:fs/promises';
import { dirname } from 'node:path';
import { OperatorError, systemCode } from './errors.js';

/** A folder and what is missing above it, on the disk when it resolves; nobody else may write to it. @throws OperatorError */
export async function makeFolder(folder: string): Promise<void> {
  const first = await mkdir(folder, { recursive: true, mode: 0o755 }).catch(error => {
    throw new OperatorError(`the folder ${folder} cannot be made (${systemCode(error) ?? error})`, {
      fix: 'give a folder that this user may write to',
      cause: error,
    });
  });
  if (first === undefined) return;
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
