import type { Stats } from 'node:fs';
import { access, chown, constants, lstat, mkdir, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { OperatorError, systemCode } from '../errors.js';

/**
 * What a container's image asks for with REGISTRY_SECURE_USER=volume, and nothing else: start as root, open keys and
 * port, then become the owner of the volume for good. Volumes of `registry:2` belong to root, keys are root's too, and
 * nobody has to prepare anything; yet nothing that comes from the network is ever handled as root on a fresh volume.
 */

/** A user and its group, by number: a container knows no names. */
export interface Account {
  readonly uid: number;
  readonly gid: number;
}

/** Who gets a volume that nobody has written to. */
const SERVICE: Account = { uid: 65532, gid: 65532 };

/** Below the root of a volume: whoever owns one of these has written to it. */
const WRITTEN = ['blobs', 'repositories'].map(name => join('docker', 'registry', 'v2', name)).concat('registry-secure');

/** The value of REGISTRY_SECURE_USER. @throws OperatorError for any but `volume` and nothing. */
export function wantsVolumeOwner(value: string | undefined): boolean {
  if (value === undefined || value === '') return false;
  if (value === 'volume') return true;
  throw new OperatorError(`REGISTRY_SECURE_USER=${value} is not known`, {
    fix: 'volume: become the owner of the volume after the start as root; unset: stay who starts it',
  });
}

/**
 * Whom root should become to serve this volume: its owner. An empty one of root's, or none at all, becomes that of
 * `SERVICE`. Undefined where there is nothing to become: this process is not root's, or root has written to the volume,
 * as `registry:2` does; then the warning says what to do about it.
 * @throws OperatorError when the volume cannot be given away
 */
export async function volumeOwner(root: string): Promise<{ account?: Account; warning?: string }> {
  if (process.getuid?.() !== 0) return {};
  await mkdir(root, { recursive: true }).catch(cause => {
    throw new OperatorError(`the data folder ${root} cannot be made (${systemCode(cause) ?? cause})`, {
      fix: 'mount a volume there that can be written to',
      cause,
    });
  });
  const top = await stat(root);
  if (top.uid === 0 && (await isEmpty(root))) {
    await giveAway(root, SERVICE);
    return { account: SERVICE };
  }
  const written = await Promise.all(WRITTEN.map(name => lstatOrNothing(join(root, name))));
  const owners = new Set([top, ...written].flatMap(stats => (stats ? [stats.uid] : [])));
  if (owners.size === 1 && !owners.has(0)) return { account: { uid: top.uid, gid: top.gid } };
  const { uid, gid } = top.uid === 0 ? SERVICE : top;
  const whose = owners.size === 1 ? 'root' : `the users ${[...owners].sort((a, b) => a - b).join(' and ')}`;
  return {
    warning: `running as root, since the data in ${root} belongs to ${whose}; to change that, stop this, give all of the volume to one user (chown -R ${uid}:${gid}), and start again`,
  };
}

/**
 * Runs a task that may make files in a folder, such as `certs/` or `auth/`, so that they belong to who will serve: as
 * that user where everything in the folder is that user's or it is empty, else as root. To be used before `become`.
 */
export async function makingAs<T>(account: Account | undefined, folder: string, task: () => Promise<T>): Promise<T> {
  if (!account || !(await isOrBecomes(account, folder))) return task();
  process.setegid!(account.gid);
  process.seteuid!(account.uid);
  try {
    return await task();
  } finally {
    process.seteuid!(0);
    process.setegid!(0);
  }
}

/** Gives up root for good, in all threads. @throws OperatorError when this is not allowed. */
export function become({ uid, gid }: Account): void {
  try {
    process.setgroups!([]);
    process.setgid!(gid);
    process.setuid!(uid);
  } catch (cause) {
    throw new OperatorError(`cannot become the owner of the volume, user ${uid} (${systemCode(cause) ?? cause})`, {
      fix: `allow it (--cap-add SETUID --cap-add SETGID), or start as that user: --user ${uid}:${gid}`,
      cause,
    });
  }
}

/** Warnings on files that were read as root and cannot be read again when they change. To be called after `become`. */
export async function unreadable({ uid }: Account, files: readonly string[]): Promise<string[]> {
  const warnings = await Promise.all(
    files.map(file =>
      access(file, constants.R_OK).then(
        () => [],
        () => [
          `${file} may not be read by user ${uid}, whom this process has become: a change takes effect at the next start; to have it reloaded: chown ${uid} ${file}`,
        ],
      ),
    ),
  );
  return warnings.flat();
}

async function isOrBecomes({ uid, gid }: Account, folder: string): Promise<boolean> {
  try {
    await mkdir(folder, { recursive: true });
    const top = await stat(folder);
    if ((top.uid === 0 || top.uid === SERVICE.uid) && (await isEmpty(folder))) {
      await chown(folder, uid, gid);
      return true;
    }
    const inside = await Promise.all((await readdir(folder)).map(name => lstatOrNothing(join(folder, name))));
    return [top, ...inside].every(stats => stats === undefined || stats.uid === uid);
  } catch {
    // A folder that cannot be made or given away, such as a read-only mount: the task itself says what it needs of it.
    return false;
  }
}

/** A fresh ext4 or xfs volume is not quite empty. */
async function isEmpty(folder: string): Promise<boolean> {
  return (await readdir(folder)).every(name => name === 'lost+found');
}

async function giveAway(folder: string, { uid, gid }: Account): Promise<void> {
  await chown(folder, uid, gid).catch(cause => {
    throw new OperatorError(`${folder} cannot be given to user ${uid} (${systemCode(cause) ?? cause})`, {
      fix: `give it away before (chown ${uid}:${gid}), or start as its owner (--user), or stay root: REGISTRY_SECURE_USER=`,
      cause,
    });
  });
}

async function lstatOrNothing(path: string): Promise<Stats | undefined> {
  return lstat(path).catch(error => {
    if (systemCode(error) === 'ENOENT' || systemCode(error) === 'ENOTDIR') return undefined;
    throw error;
  });
}
