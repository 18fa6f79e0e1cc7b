import type { StorageDriver } from '../storage/driver.js';
import { layout } from './layout.js';

/** While this is in the storage, every process that serves it refuses to change anything. */
export interface Maintenance {
  /** RFC 3339. */
  readonly since: string;
  /** For the clients that are refused. */
  readonly reason?: string;
}

/** Undefined where there is none. A damaged file counts: whoever made it wanted quiet. @throws StorageError */
export async function readMaintenance(driver: StorageDriver): Promise<Maintenance | undefined> {
  const data = await driver.get(layout.maintenance, 64 * 1024);
  if (!data) return undefined;
  try {
    const { since, reason } = JSON.parse(data.toString('utf8')) as Record<string, unknown>;
    return { since: String(since), ...(typeof reason === 'string' && { reason }) };
  } catch {
    return { since: 'an unknown time' };
  }
}

/** Begins maintenance, or gives the present one another reason. */
export async function beginMaintenance(driver: StorageDriver, reason: string | undefined): Promise<Maintenance> {
  const now: Maintenance = { since: new Date().toISOString(), ...(reason !== undefined && { reason }) };
  const maintenance = { ...now, since: (await readMaintenance(driver))?.since ?? now.since };
  await driver.write(layout.maintenance, Buffer.from(`${JSON.stringify(maintenance)}\n`));
  return maintenance;
}

/** @returns false where there was none */
export async function endMaintenance(driver: StorageDriver): Promise<boolean> {
  return driver.remove(layout.maintenance);
}
