import { constants } from 'node:fs';
import { copyFile, link, open, readdir, rename, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { systemCode } from '../errors.js';
import { syncFolder } from '../folder.js';
import { type PemFiles, readKeyPair } from './inspect.js';

/**
 * How certificates and keys come into their folder. A pair is two files, and no system replaces two files at once. So
 * both are first written whole beside their places, and then moved in, the key before the certificate. After a crash
 * between the two, the certificate that belongs to the new key is still there, and `finishPending` moves it in.
 */

const pending = (dir: string, name: string): string => join(dir, `.${name}.new`);

/** The paths of the pair NAME.crt and NAME.key. */
export function pairFiles(dir: string, name: string): PemFiles {
  return { certificate: join(dir, `${name}.crt`), key: join(dir, `${name}.key`) };
}

/** Whether an earlier run was interrupted. */
export async function hasPending(dir: string): Promise<boolean> {
  const files = await readdir(dir).catch(() => []);
  return files.some(file => /^\..+\.(crt|key)\.new$/.test(file));
}

/** Puts a pair into its place, or replaces it. Only under the folder's lock. Survives a crash at any point. */
export async function writePair(dir: string, name: string, pair: { certificate: string; key: string }): Promise<void> {
  await writeNew(pending(dir, `${name}.key`), pair.key, 0o600);
  await writeNew(pending(dir, `${name}.crt`), pair.certificate, 0o644);
  await syncFolder(dir);
  await rename(pending(dir, `${name}.key`), join(dir, `${name}.key`));
  await rename(pending(dir, `${name}.crt`), join(dir, `${name}.crt`));
  await syncFolder(dir);
}

/** Completes what a crash left half done, or removes it where nothing had been moved yet. Only under the lock. */
export async function finishPending(dir: string, name: string): Promise<void> {
  const half = { certificate: pending(dir, `${name}.crt`), key: join(dir, `${name}.key`) };
  const belongs = await readKeyPair(half).then(
    () => true,
    () => false,
  );
  if (belongs) await rename(half.certificate, join(dir, `${name}.crt`));
  for (const file of [pending(dir, `${name}.key`), pending(dir, `${name}.crt`)])
    await unlink(file).catch(error => {
      if (systemCode(error) !== 'ENOENT') throw error;
    });
}

/** Keeps the present files of a pair beside themselves, under the date; gives the paths of the copies. */
export async function keepCopies(files: PemFiles, now: Date): Promise<string[]> {
  const date = now.toISOString().replace(/[-:]|\.\d+/g, '');
  const copies: string[] = [];
  for (const path of [files.certificate, files.key])
    for (let number = 1; ; number++) {
      const copy = `${path}.${date}${number === 1 ? '' : `-${number}`}`;
      try {
        // A second name for the same bytes keeps their mode. Where there are no links, copyFile keeps it as well.
        await link(path, copy).catch(error => {
          if (systemCode(error) === 'EEXIST' || systemCode(error) === 'ENOENT') throw error;
          return copyFile(path, copy, constants.COPYFILE_EXCL);
        });
        copies.push(copy);
        break;
      } catch (error) {
        if (systemCode(error) === 'ENOENT') break;
        if (systemCode(error) !== 'EEXIST') throw error;
      }
    }
  return copies;
}

/** Creates a file that did not exist, with this mode from its first byte, and flushes it. */
async function writeNew(path: string, content: string, mode: number): Promise<void> {
  const file = await open(path, 'wx', mode);
  try {
    await file.writeFile(content);
    await file.sync();
  } finally {
    await file.close();
  }
}
