import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { type StorageDriver, unlessFull } from '../storage/driver.js';
import type { CollectorReport } from './collector.js';
import { layout } from './layout.js';

/** A lease that nobody has renewed for this long is one of a process that died. */
const ABANDONED_MS = 10 * 60_000;
const RENEWAL_MS = 60_000;

/**
 * Runs the task unless a collector is running on this store already, anywhere. That only saves work: two at once do no
 * harm. So on a full disk, which has no room for a lease, it runs without: nobody else makes room.
 * @param onUnleased told of that, before the task
 * @returns undefined when another is running
 */
export async function whileAlone<T>(
  driver: StorageDriver,
  task: () => Promise<T>,
  onUnleased = () => {},
): Promise<T | undefined> {
  const key = layout.collectorLease;
  const lease = Buffer.from(JSON.stringify({ id: randomUUID(), host: hostname(), started: new Date() }));
  await driver.removeStale(key, new Date(Date.now() - ABANDONED_MS), { durable: false });
  const created = await driver.create(key, lease, { durable: false }).catch(unlessFull);
  if (created === undefined && !(await driver.stat(key))) {
    onUnleased();
    return task();
  }
  if (!created) return undefined;
  const renewal = setInterval(() => {
    // When the storage fails, the task will say so.
    driver.touch(key).catch(() => {});
  }, RENEWAL_MS);
  renewal.unref();
  try {
    return await task();
  } finally {
    clearInterval(renewal);
    // Not somebody else's, which may be there after this process was stopped for long.
    if ((await driver.get(key))?.equals(lease)) await driver.remove(key);
  }
}

/** Who is running a collector, for a message: a host and a time, as that process wrote them. */
export async function runningCollector(driver: StorageDriver): Promise<string> {
  const text = (await driver.get(layout.collectorLease))?.toString() ?? '{}';
  try {
    const { host, started } = JSON.parse(text) as { host?: unknown; started?: unknown };
    return `on ${host}, since ${started}`;
  } catch {
    return 'somewhere';
  }
}

/** Remembers that a run is over, for `lastCollected`; where the run could not make room for that, it is forgotten. */
export async function recordCollected(driver: StorageDriver, report: CollectorReport): Promise<void> {
  const last = { version: 1, finished: new Date(), report };
  await driver.write(layout.collected, Buffer.from(JSON.stringify(last))).catch(unlessFull);
}

/** When the last run ended; undefined when none has, or nobody knows. */
export async function lastCollected(driver: StorageDriver): Promise<Date | undefined> {
  const text = (await driver.get(layout.collected))?.toString() ?? '{}';
  try {
    const finished = new Date((JSON.parse(text) as { finished: string }).finished);
    return Number.isNaN(finished.getTime()) ? undefined : finished;
  } catch {
    return undefined;
  }
}
