import type { StorageDriver } from '../storage/driver.js';
import { layout } from './layout.js';

/**
 * Sessions that somebody has ended before their time: an empty file each, which every process looks for on each request of
 * a session. The id of a session begins with the time it ends at, so that what is over can be forgotten.
 */
export async function endSession(driver: StorageDriver, id: string): Promise<void> {
  await driver.create(layout.endedSession(id), new Uint8Array());
  for (const { name } of await driver.list(layout.endedSessions))
    if (endOf(name) < Date.now()) await driver.remove(layout.endedSession(name));
}

/** @throws StorageError: then nobody can say that it goes on */
export async function hasEnded(driver: StorageDriver, id: string): Promise<boolean> {
  return (await driver.stat(layout.endedSession(id))) !== undefined;
}

/** Milliseconds since 1970. */
function endOf(id: string): number {
  return Number.parseInt(id.slice(0, 9), 36);
}
