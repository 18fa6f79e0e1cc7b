import { ALGORITHMS, type Digest, isDigest } from '../reference.js';
import type { Settling, StorageDriver } from '../storage/driver.js';
import { inBatches } from './batches.js';
import { layout } from './layout.js';

/**
 * A link file holds a digest and nothing else. `registry:2` writes links in place, so a crash of it may have left an
 * empty one: that is the same as none.
 */
export async function readLink(driver: StorageDriver, key: string): Promise<Digest | undefined> {
  const content = await driver.get(key, 1024);
  return content && digestIn(content);
}

/** As `readLink`, where that can be told at once; undefined where it cannot, and for no link. */
export function recallLink(driver: StorageDriver, key: string): Digest | undefined {
  const content = driver.recall?.(key)?.content;
  if (content === undefined) return undefined;
  const digest = known.get(content) ?? digestIn(content);
  if (digest !== undefined) known.set(content, digest);
  return digest;
}

/** What was read from links that the driver hands out again. */
const known = new WeakMap<Buffer, Digest>();

/** What the content of a link says. */
export function digestIn(content: Buffer): Digest | undefined {
  const text = content.toString('latin1').trim();
  return isDigest(text) ? text : undefined;
}

export async function writeLink(
  driver: StorageDriver,
  key: string,
  digest: Digest,
  settling?: Settling,
): Promise<void> {
  await driver.write(key, Buffer.from(digest, 'latin1'), settling);
}

/**
 * Every digest by which a folder of links knows one content: the canonical one, and those of other algorithms.
 * @param folder of links by digest, such as `layout.layers(name)`
 * @param linkOf the key of one of them
 */
export async function namesOf(
  driver: StorageDriver,
  folder: string,
  linkOf: (digest: Digest) => string,
  canonical: Digest,
): Promise<Digest[]> {
  const others = Object.keys(ALGORITHMS).filter(algorithm => algorithm !== 'sha256');
  const links = await Promise.all(
    others.map(async algorithm =>
      (await driver.list(`${folder}/${algorithm}`)).map(({ name }) => `${algorithm}:${name}`),
    ),
  );
  const names = await inBatches(links.flat().filter(isDigest), async digest =>
    (await readLink(driver, linkOf(digest))) === canonical ? [digest] : [],
  );
  return [canonical, ...names.flat()];
}

/** The digests by which a folder has children, such as `layout.layers(name)`. */
export async function digestsIn(driver: StorageDriver, folder: string): Promise<Digest[]> {
  const algorithms = await driver.list(folder);
  const names = await Promise.all(
    algorithms.map(async ({ name }) => (await driver.list(`${folder}/${name}`)).map(hex => `${name}:${hex.name}`)),
  );
  return names.flat().filter(isDigest);
}

/** The canonical digests of all that a repository has: of its blobs, and of its manifests. */
export function contentOf(driver: StorageDriver, repository: string): Promise<[blobs: Digest[], manifests: Digest[]]> {
  // What has a digest of another algorithm is there under its canonical one too.
  const canonical = async (folder: string): Promise<Digest[]> =>
    (await driver.list(`${folder}/sha256`)).map(({ name }) => `sha256:${name}`).filter(isDigest);
  return Promise.all([canonical(layout.layers(repository)), canonical(layout.revisions(repository))]);
}
