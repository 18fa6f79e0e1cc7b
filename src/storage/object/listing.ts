import type { Entry } from '../driver.js';
import type { Bucket } from '../s3/bucket.js';

/**
 * The children of a folder, in the byte order of their names. A service lists in the order of keys, in which the folder `a`
 * counts as `a/` and so comes after `a-b`: a page may lack a name that belongs before those on it.
 * @param isHidden which objects are no children
 */
export async function listChildren(
  bucket: Pick<Bucket, 'list'>,
  folder: string,
  { after, limit = Number.POSITIVE_INFINITY }: { after?: string | undefined; limit?: number },
  isHidden: (name: string) => boolean,
): Promise<Entry[]> {
  const entries: Entry[] = [];
  let token: string | undefined;
  do {
    const page = await bucket.list(`${folder}/`, { delimiter: '/', ...(token === undefined ? { after } : { token }) });
    const found = [
      ...page.objects.map(({ key }) => ({ name: key.slice(folder.length + 1), folder: false })),
      ...page.folders.map(key => ({ name: key.slice(folder.length + 1), folder: true })),
    ];
    entries.push(
      ...found.filter(({ name }) => isChild(name) && !isHidden(name) && (after === undefined || name > after)),
    );
    token = page.next;
    entries.sort(inOrder);
    if (entries.length >= limit && !mayPrecede(entries[limit - 1]!.name, lastKey(found))) break;
  } while (token !== undefined);
  return entries.slice(0, limit);
}

/** Not what some programs make to stand for the folder itself, nor what is no path of ours. */
function isChild(name: string): boolean {
  return name !== '' && name !== '.' && name !== '..';
}

/** Names made by this program are ASCII, for which the order of code units is the order of bytes. */
function inOrder(one: Entry, other: Entry): number {
  if (one.name === other.name) return Number(one.folder) - Number(other.folder);
  return one.name < other.name ? -1 : 1;
}

function lastKey(found: readonly Entry[]): string {
  const keys = found.map(({ name, folder }) => (folder ? `${name}/` : name)).sort();
  return keys.at(-1) ?? '';
}

/** Whether a folder that stands after a key in the service's order can belong before a name in ours: it is a prefix of it. */
function mayPrecede(name: string, key: string): boolean {
  for (let length = 1; length < name.length; length++) if (`${name.slice(0, length)}/` > key) return true;
  return false;
}
