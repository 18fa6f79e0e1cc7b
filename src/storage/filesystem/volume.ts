import { randomUUID } from 'node:crypto';
import { link, lstat, readdir, readFile, rm, stat, unlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { OperatorError, systemCode } from '../../errors.js';
import { makeFolders } from '../../folder.js';
import { StorageError } from '../driver.js';
import { checkFormat, FORMAT_FILE, PRIVATE } from '../format.js';
import { isFull } from './failure.js';
import type { Flusher } from './flusher.js';

/*
 * What this program keeps for itself in a volume, beside the tree of `registry:2`:
 *
 *     registry-secure/          0700: what lies here is for this program only
 *     registry-secure/format    "1\n", the version of what is in this folder
 *     registry-secure/tmp/      small files and joined segments before they get their name; folders that go
 *     registry-secure/spare/    empty folders, for when the disk is full (spares.ts)
 */

/**
 * Temporaries of processes that were killed are told by age, not by the process number in a name: processes of several
 * containers and machines share a volume, and their numbers mean nothing to each other. A living one is renamed within
 * seconds, and a long join keeps changing its file.
 */
const LEFTOVER_MS = 24 * 60 * 60 * 1000;

/**
 * Makes the root and the private area where missing, and proves that files can be made, linked and removed there. A volume
 * that was used before is opened without that when it is full: it can be pulled from, and space can be freed.
 * @returns whether it was used before
 */
export async function prepareVolume(root: string, flusher: Flusher): Promise<boolean> {
  await makeRoot(root, flusher);
  const used = await checkFormatFile(root);
  const temporaries = join(root, PRIVATE, 'tmp');
  await makeFolders(temporaries, 0o700, root);
  await removeLeftovers(temporaries);
  await checkLinks(root, temporaries).catch(error => {
    if (!used || !isFull(error)) throw error;
  });
  return used;
}

/** Looks whether there is a volume that this version can read. Writes nothing. */
export async function checkVolume(root: string): Promise<void> {
  const info = await stat(root).catch(error => {
    if (systemCode(error) !== 'ENOENT') throw error;
    throw new OperatorError(`there is no data folder ${root}`, { fix: 'check the path, or the mount', cause: error });
  });
  if (!info.isDirectory()) throw Object.assign(new Error(), { code: 'ENOTDIR' });
  await checkFormatFile(root);
}

async function makeRoot(root: string, flusher: Flusher): Promise<void> {
  const first = await makeFolders(root, 0o777);
  if (!(await stat(root)).isDirectory()) throw Object.assign(new Error(), { code: 'ENOTDIR' });
  if (first !== undefined) await flusher.folder(dirname(root), dirname(first));
}

/** @returns whether there is one */
async function checkFormatFile(root: string): Promise<boolean> {
  const path = join(root, FORMAT_FILE.key);
  let content: string;
  try {
    content = await readFile(path, 'utf8');
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return false;
    throw error;
  }
  checkFormat(content, path);
  return true;
}

/** Create-if-absent is a hard link, which some network and FAT file systems lack. */
async function checkLinks(root: string, temporaries: string): Promise<void> {
  const [one, other] = [join(temporaries, randomUUID()), join(temporaries, randomUUID())];
  try {
    await writeFile(one, 'check', { flag: 'wx' });
    await link(one, other).catch(error => {
      if (!['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK'].includes(systemCode(error) ?? '')) throw error;
      throw new OperatorError(`the file system of the data folder ${root} has no hard links`, {
        fix: 'keep the data on a Linux file system such as ext4, xfs or btrfs, or on NFS',
        cause: error,
      });
    });
  } finally {
    for (const path of [one, other]) await unlink(path).catch(() => {});
  }
}

async function removeLeftovers(temporaries: string): Promise<void> {
  const limit = Date.now() - LEFTOVER_MS;
  for (const name of await readdir(temporaries)) {
    const path = join(temporaries, name);
    // Another process starting at the same time removes the same ones.
    const info = await lstat(path).catch(() => undefined);
    if (info && info.mtimeMs < limit) await rm(path, { recursive: true }).catch(() => {});
  }
}

/** What to throw when a volume cannot be opened: one line that says why, and how to mend it. */
export async function refusal(root: string, thrown: unknown): Promise<unknown> {
  const error = thrown instanceof StorageError ? thrown.cause : thrown;
  const code = systemCode(error);
  if (code === undefined) return thrown;
  const refuse = (what: string, fix: string) => new OperatorError(what, { fix, cause: error });
  const path = (error as NodeJS.ErrnoException).path ?? root;
  switch (code) {
    case 'EACCES':
    case 'EPERM': {
      const { place, uid } = await nearest(path);
      const own = process.getuid?.();
      return refuse(
        `no permission to write to the data folder ${root}: ${place} belongs to uid ${uid}, this process is uid ${own}`,
        `run as uid ${uid}, or give it away: chown -R ${own} ${place}`,
      );
    }
    case 'ENOTDIR':
    case 'EEXIST':
      return refuse(`the data folder ${root} is not a folder`, 'name another one, or move the file away');
    case 'EROFS':
      return refuse(
        `the file system of the data folder ${root} is read-only`,
        `mount it writable (findmnt -T ${root}), or serve it so: REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED=true`,
      );
    case 'ENOSPC':
    case 'EDQUOT':
      return refuse(`no space left for the data folder ${root}`, `free some: df -h ${root}; df -i ${root}`);
    default:
      return refuse(`the data folder ${root} cannot be used: ${(error as Error).message}`, 'check the disk');
  }
}

/** The path itself or the closest folder above it that exists, and who owns that. */
async function nearest(path: string): Promise<{ place: string; uid: number }> {
  for (let place = path; ; place = dirname(place)) {
    const info = await stat(place).catch(() => undefined);
    if (info !== undefined) return { place, uid: info.uid };
    if (place === dirname(place)) return { place, uid: 0 };
  }
}
