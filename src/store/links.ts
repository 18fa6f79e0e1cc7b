import { type Digest, isDigest } from '../reference.js';
import type { StorageDriver } from '../storage/driver.js';

/**
 * A link file holds a digest and nothing else. `registry:2` writes links in place, so a crash of it may have left an
 * empty one: that is the same as none.
 */
export async function readLink(driver: StorageDriver, key: string): Promise<Digest | undefined> {
  const text = (await driver.get(key, 1024))?.toString('latin1').trim();
  return text !== undefined && isDigest(text) ? text : undefined;
}

export async function writeLink(driver: StorageDriver, key: string, digest: Digest): Promise<void> {
  await driver.write(key, Buffer.from(digest, 'latin1'));
}
