import { constants } from 'node:fs';
import { copyFile, link, open, readdir, readFile, rename, stat, unlink } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { systemCode } from '../errors.js';
import { syncFolder } from '../folder.js';
import type { PemFiles } from './inspect.js';

/**
 * How certificates and keys come into their folder. No system replaces two files at once, so all that belong together are
 * first written whole beside their places; then one file, made by one rename, says that this set counts; then they are
 * moved in. After a crash before that moment `finishPending` removes what was written, after it it moves the rest in.
 */

const NOTE = '.changes';
const pending = (dir: string, file: string): string => join(dir, `.${file}.new`);

/** Files by their name in the folder: new content, or undefined for one that goes. */
export type Changes = ReadonlyMap<string, { readonly content: string; readonly mode: 0o600 | 0o644 } | undefined>;

/** The paths of the pair NAME.crt and NAME.key. */
export function pairFiles(dir: string, name: string): PemFiles {
  return { certificate: join(dir, `${name}.crt`), key: join(dir, `${name}.key`) };
}

/** Whether an earlier run was interrupted. */
export async function hasPending(dir: string): Promise<boolean> {
  const files = await readdir(dir).catch(() => []);
  return files.some(file => file === NOTE || isPending(file));
}

const isPending = (file: string): boolean => /^\..+\.new$/.test(file);

/** What puts a pair into its place, the key first: a reader in between looks again. */
export function pairChanges(name: string, pair: { certificate: string; key: string }): Changes {
  return new Map([
    [`${name}.key`, { content: pair.key, mode: 0o600 }],
    [`${name}.crt`, { content: pair.certificate, mode: 0o644 }],
  ] as const);
}

/** Makes all of these changes, in their order, or none, also in a crash. Only under the folder's lock. */
export async function applyChanges(dir: string, changes: Changes): Promise<void> {
  for (const [file, change] of changes)
    if (change) await writeNew(pending(dir, file), change.content, change.mode, await ownerFor(dir, file));
  const note = { move: [...changes].flatMap(([file, change]) => (change ? [file] : [])), remove: [] as string[] };
  for (const [file, change] of changes) if (!change) note.remove.push(file);
  await writeNew(pending(dir, NOTE), JSON.stringify(note), 0o600, undefined);
  await syncFolder(dir);
  await rename(pending(dir, NOTE), join(dir, NOTE));
  await finishPending(dir);
}

/** Completes what a crash left half done, or removes it where it does not count yet. Only under the lock. */
export async function finishPending(dir: string): Promise<void> {
  const note = await readNote(join(dir, NOTE));
  if (note) {
    await syncFolder(dir);
    for (const file of note.move) await ifThere(rename(pending(dir, file), join(dir, file)));
    for (const file of note.remove) await ifThere(unlink(join(dir, file)));
    await syncFolder(dir);
    await unlink(join(dir, NOTE));
    // Before anything else is written: this note must not come back beside the next set of files.
    await syncFolder(dir);
  }
  for (const file of await readdir(dir)) if (isPending(file)) await ifThere(unlink(join(dir, file)));
}

async function readNote(path: string): Promise<{ move: string[]; remove: string[] } | undefined> {
  const text = await readFile(path, 'utf8').catch(error => {
    if (systemCode(error) === 'ENOENT') return undefined;
    throw error;
  });
  if (text === undefined) return undefined;
  const { move, remove } = JSON.parse(text) as { move: string[]; remove: string[] };
  // Who may write to the folder may not reach out of it through a process that may do more.
  const inside = (file: string) => file === basename(file) && !file.startsWith('.');
  return { move: move.filter(inside), remove: remove.filter(inside) };
}

async function ifThere(change: Promise<void>): Promise<void> {
  await change.catch(error => {
    if (systemCode(error) !== 'ENOENT') throw error;
  });
}

interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/** Root works for whom a file, or for a new one the folder, belongs to: who serves must be able to read it. */
async function ownerFor(dir: string, file: string): Promise<Owner | undefined> {
  if (process.getuid?.() !== 0) return undefined;
  return stat(join(dir, file)).catch(() => stat(dir));
}

/** Keeps the present files beside themselves, under the date; gives the paths of the copies. */
export async function keepCopies(paths: readonly string[], now: Date): Promise<string[]> {
  const date = now.toISOString().replace(/[-:]|\.\d+/g, '');
  const copies: string[] = [];
  for (const path of paths)
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

/** Creates a file that did not exist, with this owner and mode from its first byte, and flushes it. */
async function writeNew(path: string, content: string, mode: number, owner: Owner | undefined): Promise<void> {
  const file = await open(path, 'wx', mode);
  try {
    // An owner that cannot be given, for want of a capability, is no reason to keep the old certificate until it expires.
    if (owner) await file.chown(owner.uid, owner.gid).catch(() => undefined);
    await file.writeFile(content);
    await file.sync();
  } finally {
    await file.close();
  }
}
