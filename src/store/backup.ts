import { OperatorError } from '../errors.js';
import type { StorageDriver } from '../storage/driver.js';
import { TarWriter } from '../tar.js';
import { inBatches } from './batches.js';
import { type CopyOptions, copyImages } from './copy.js';
import { ArchiveTarget, restoreArchive } from './copy-archive.js';
import { type FolderReport, FolderTarget } from './copy-folder.js';
import { PlanTarget } from './copy-plan.js';
import { LASTING, layout } from './layout.js';
import { Store } from './store.js';

export interface BackupOptions extends CopyOptions {
  /** Told of the bytes that were read, of those that are to be read. */
  readonly onProgress: (done: number, total: number) => void;
}

export interface ArchiveReport {
  readonly blobs: number;
  readonly bytes: number;
  readonly tags: number;
}

/**
 * Makes the images in a place the same as those of the source, while others push to that and pull from it.
 * @param options.share whether bytes may be shared where both places can do that
 * @throws OperatorError where the place has images that no backup has put there
 */
export async function backupTo(
  source: StorageDriver,
  target: StorageDriver,
  options: BackupOptions & { share: boolean },
): Promise<FolderReport> {
  const store = storeOf(source, options);
  await prepare(target, store);
  const onBytes = await plan(source, store, options, key => target.stat(key));
  const copy = new FolderTarget(target, { mode: 'mirror', share: options.share, onBytes });
  await copyImages(source, store, copy, options);
  await copy.prune();
  return copy.report;
}

/** Writes the images into a tar archive, which unpacked is a volume. @param write takes the next bytes of it */
export async function archiveTo(
  source: StorageDriver,
  write: (chunk: Uint8Array) => Promise<void>,
  options: BackupOptions,
): Promise<ArchiveReport> {
  const store = storeOf(source, options);
  const onBytes = await plan(source, store, options, async () => undefined);
  const tar = new TarWriter(write);
  const copy = new ArchiveTarget(tar, onBytes);
  await copyImages(source, store, copy, options);
  await tar.end();
  return copy.report;
}

export interface RestoreOptions extends BackupOptions {
  /** Whether a tag that points at another image is moved. */
  readonly force: boolean;
  readonly share: boolean;
  readonly dryRun: boolean;
}

/**
 * Adds the images of a backup, or of any volume, to a place. Nothing there is removed.
 * @param from a place, or an archive as a stream with its size where that is known
 */
export async function restoreFrom(
  from: StorageDriver | { readonly archive: AsyncIterable<Buffer>; readonly size?: number | undefined },
  target: StorageDriver,
  options: RestoreOptions,
): Promise<FolderReport> {
  const { force, share, dryRun, onProgress, onProblem } = options;
  const mode = force ? 'overwrite' : 'add';
  if (!dryRun) await releaseBackup(target);
  if ('archive' in from) {
    let done = 0;
    const copy = new FolderTarget(target, { mode, share, dryRun });
    async function* counted(archive: AsyncIterable<Buffer>, size: number): AsyncGenerator<Buffer> {
      for await (const chunk of archive) {
        yield chunk;
        done += chunk.length;
        onProgress(done, size);
      }
    }
    await restoreArchive(from.size === undefined ? from.archive : counted(from.archive, from.size), copy, onProblem);
    return copy.report;
  }
  const store = storeOf(from, options);
  const onBytes = await plan(from, store, options, key => target.stat(key));
  const copy = new FolderTarget(target, { mode, share, dryRun, onBytes });
  await copyImages(from, store, copy, options);
  return copy.report;
}

/** From now on what is here is more than a backup, and no backup may make it the same as its source again. */
export async function releaseBackup(target: StorageDriver): Promise<void> {
  await target.remove(layout.backup);
}

/** Looks before anything is made of it. @throws OperatorError for a place that is neither a volume nor a backup */
export async function checkSource(source: StorageDriver, name: string): Promise<void> {
  if ((await holdsImages(source)) || (await source.stat(layout.backup))) return;
  throw new OperatorError(`there are no images in ${name}`, {
    fix: 'name the folder that has docker/registry/v2 in it',
  });
}

/**
 * What becomes the same as its source loses what that has not. So this is only done to a place that is empty, also of
 * tokens and accounts, or that a backup was put into and nobody has served since; and not for a source that has nothing,
 * which rather is a volume that is not mounted than a registry that has lost all its images.
 */
async function prepare(target: StorageDriver, source: Store): Promise<void> {
  if (!(await checkMirror(target, source))) await beginMirror(target);
}

/** @returns whether it is one already @throws OperatorError for what must not become the same as the source */
export async function checkMirror(target: StorageDriver, source: Store): Promise<boolean> {
  const holds = await holdsImages(target);
  if (await target.stat(layout.backup)) {
    if (!holds || (await source.catalog.repositories(1)).names.length > 0) return true;
    throw new OperatorError('the data folder has no images, and the backup would lose all of its own', {
      fix: 'check that the data folder is mounted; for a backup without images name an empty folder',
    });
  }
  if (holds)
    throw new OperatorError('the folder holds images that no backup has put there, or that have been served since', {
      fix: 'name an empty folder',
    });
  // Who has just begun to serve has no images yet, and has given out what these keys have signed.
  const [kept] = await lastingKeys(target);
  if (kept === undefined) return false;
  throw new OperatorError(`the folder is that of a registry that has been served: it holds ${kept}`, {
    fix: 'name an empty folder',
  });
}

/** Of what belongs to no repository, all that goes along where the data move. */
export async function lastingKeys(place: StorageDriver): Promise<string[]> {
  return (await Promise.all(LASTING.map(folder => keysBelow(place, folder)))).flat();
}

export async function keysBelow(place: StorageDriver, folder: string): Promise<string[]> {
  const keys = await inBatches(await place.list(folder), async ({ name, folder: isFolder }) =>
    isFolder ? keysBelow(place, `${folder}/${name}`) : [`${folder}/${name}`],
  );
  return keys.flat();
}

export async function beginMirror(target: StorageDriver): Promise<void> {
  await target.write(layout.backup, Buffer.from(`${JSON.stringify({ since: new Date().toISOString() })}\n`));
}

async function holdsImages(place: StorageDriver): Promise<boolean> {
  const held = await Promise.all([layout.repositories, layout.blobs].map(at => place.list(at, { limit: 1 })));
  return held.flat().length > 0;
}

/** Pulls verify what they read; here the copy does. */
function storeOf(source: StorageDriver, { validation }: BackupOptions): Store {
  return new Store(source, { largestManifest: 0, validation, verify: 'off' });
}

/** Counts what there is to read. @param present what is there already */
async function plan(
  source: StorageDriver,
  store: Store,
  options: BackupOptions,
  present: (key: string) => Promise<unknown>,
): Promise<(bytes: number) => void> {
  const target = new PlanTarget(present);
  await copyImages(source, store, target, { ...options, onProblem: () => {} });
  let done = 0;
  return bytes => {
    done += bytes;
    options.onProgress(done, target.bytes);
  };
}
