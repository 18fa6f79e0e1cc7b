import type { ObjectInfo, StorageDriver } from '../storage/driver.js';
import type { CollectorRun } from './collector.js';
import { layout } from './layout.js';

export interface AbandonedUploads {
  /** How old an upload must be, in milliseconds. */
  readonly age: number;
  readonly dryRun?: boolean;
}

/** Removes uploads that were never finished, those of `registry:2` too, by the time at which they were started. */
export async function removeAbandonedUploads(
  run: Pick<CollectorRun, 'driver' | 'dryRun' | 'report' | 'start' | 'tell' | 'removeEmptyFolders'>,
  repository: string,
  { age, dryRun = run.dryRun }: AbandonedUploads,
): Promise<void> {
  const { driver, report } = run;
  const before = new Date(run.start.getTime() - age);
  for (const { name } of await driver.list(layout.uploads(repository))) {
    const folder = layout.upload(repository, name);
    const files = await filesBelow(driver, folder);
    const started = await startOf(driver, layout.uploadStartedAt(repository, name), files);
    if (started && started >= before) {
      report.uploads.kept += 1;
      continue;
    }
    if (started) {
      report.uploads.removed += 1;
      report.freedBytes += files.reduce((sum, { size }) => sum + size, 0);
      run.tell({ event: 'removed', kind: 'upload', repository, name });
    }
    if (dryRun) continue;
    // An empty folder may be one that an upload is about to use, and it makes it again.
    if (started) await driver.removeAll(folder, { durable: false });
    else await run.removeEmptyFolders(folder);
  }
  if (!dryRun) await run.removeEmptyFolders(layout.uploads(repository));
}

/**
 * What an upload says itself; a blob that is pushed in one request has no such file, and then its last change counts.
 * Undefined where there is nothing at all.
 */
async function startOf(driver: StorageDriver, key: string, files: readonly ObjectInfo[]): Promise<Date | undefined> {
  const text = (await driver.get(key, 1024))?.toString('latin1').trim();
  const started = new Date(text ?? Number.NaN);
  if (!Number.isNaN(started.getTime())) return started;
  return files.map(({ modified }) => modified).sort((one, other) => other.getTime() - one.getTime())[0];
}

async function filesBelow(driver: StorageDriver, folder: string): Promise<ObjectInfo[]> {
  const files: ObjectInfo[] = [];
  for (const entry of await driver.list(folder)) {
    const key = `${folder}/${entry.name}`;
    const info = entry.folder ? undefined : await driver.stat(key);
    if (entry.folder) files.push(...(await filesBelow(driver, key)));
    else if (info) files.push(info);
  }
  return files;
}
