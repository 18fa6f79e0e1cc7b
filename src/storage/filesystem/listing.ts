import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Entry } from '../driver.js';
import type { Calls } from './calls.js';
import { doomedName } from './doomed.js';
import { ignoreAbsence } from './failure.js';

export interface Listing {
  /** In the byte order of their names. */
  readonly entries: readonly Entry[];
  /** Whether the folder alone says all this: what a symbolic link is may change without it. */
  readonly own: boolean;
}

/** All that is in a folder. @throws system errors, ENOENT among them */
export async function readFolder(path: string, calls: Calls): Promise<Listing> {
  const children = await calls.list(path);
  const named = children.map(child => {
    const doomed = doomedName(child.name);
    return { name: doomed ?? child.name, child: doomed === undefined ? child : undefined };
  });
  // Names made by this program are ASCII, for which the order of code units is the order of bytes.
  named.sort((one, other) => (one.name < other.name ? -1 : 1));
  const entries: Entry[] = [];
  let own = true;
  for (const { name, child } of named) {
    if (name === entries.at(-1)?.name) continue;
    const isLink = child?.isSymbolicLink() ?? false;
    if (isLink) own = false;
    const folder = isLink ? await isFolder(join(path, name)) : (child?.isDirectory() ?? false);
    // A symbolic link to nowhere is neither.
    if (folder !== undefined) entries.push({ name, folder });
  }
  return { entries, own };
}

/** Where the entries begin that come after a name. */
export function firstAfter(entries: readonly Entry[], name: string): number {
  let [from, to] = [0, entries.length];
  while (from < to) {
    const middle = (from + to) >> 1;
    if (entries[middle]!.name > name) to = middle;
    else from = middle + 1;
  }
  return from;
}

/** Undefined when there is nothing at all. */
async function isFolder(path: string): Promise<boolean | undefined> {
  return (await stat(path).catch(ignoreAbsence))?.isDirectory();
}
