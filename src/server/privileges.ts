import type { Stats } from 'node:fs';
import { access, chown, constants, lstat, mkdir, open, readdir, stat } from 'node:fs/promises';
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
 * @param root undefined where there is no folder, and so nobody whose it is: `SERVICE`
 * @throws OperatorError when the volume cannot be given away
 */
export async function volumeOwner(root: string | undefined): Promise<{ account?: Account; warning?: string }> {
  if (process.getuid?.() !== 0) return {};
  if (root === undefined) return { account: SERVICE };
  await mkdir(root, { recursive: true }).catch(cause => {
    throw new OperatorError(`the data folder ${root} cannot be made (${systemCode(cause) ?? cause})`, {
      fix: 'mount a volume there that can be written to',
      cause,
    });
  });
  const [{ uid, gid }, empty] = await Promise.all([stat(root), isEmpty(root)]);
  if (uid === 0 && empty) {
    await giveAway(root, SERVICE);
    return { account: SERVICE };
  }
  const writers = await writersOf(root);
  const account = soleWriter(writers, { uid, gid });
  if (account) return { account };
  const to = uid === 0 ? SERVICE : { uid, gid };
  const whose = writers.length === 1 ? 'root' : `the users ${writers.join(' and ')}`;
  return {
    warning: `running as root, since the data in ${root} belongs to ${whose}; to change that, stop this, give all of the volume to one user (chown -R ${to.uid}:${to.gid}), and start again`,
  };
}

/**
 * Has root become the owner of a volume that is another user's alone: what it writes must be readable to that user.
 * @param fresh whether one that nobody has written to is given away first, as `serve` does it
 * @throws OperatorError as `volumeOwner` and `become`
 */
export async function becomeVolumeOwner(root: string | undefined, { fresh }: { fresh: boolean }): Promise<void> {
  if (process.getuid?.() !== 0) return;
  const account =
    fresh || root === undefined
      ? (await volumeOwner(root)).account
      : soleWriter(await writersOf(root), await stat(root));
  if (account) become(account);
}

/** Whom the root of the volume and what was written below it belong to, each once. */
async function writersOf(root: string): Promise<number[]> {
  const stats = await Promise.all([stat(root), ...WRITTEN.map(name => lstatOrNothing(join(root, name)))]);
  return [...new Set(stats.flatMap(found => (found ? [found.uid] : [])))].sort((a, b) => a - b);
}

function soleWriter(writers: readonly number[], { uid, gid }: Account): Account | undefined {
  return writers.length === 1 && uid !== 0 ? { uid, gid } : undefined;
}

/**
 * Runs a task that may make files in a folder such as `certs/` or `auth/`, and gives those to the account that will serve,
 * so that it can read them again: their mode stays. A folder in which nobody has put anything is given to it as well.
 * To be used before `become`.
 */
export async function handingOver<T>(account: Account | undefined, folder: string, task: () => Promise<T>): Promise<T> {
  if (!account) return task();
  // A folder that cannot be made or given away, such as a read-only mount: the task itself says what it needs of it.
  await giveFreshFolder(folder, account).catch(() => undefined);
  const before = new Set((await filesIn(folder)).map(({ identity }) => identity));
  const result = await task();
  for (const { path, identity } of await filesIn(folder)) if (!before.has(identity)) await giveFile(path, account);
  return result;
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

/** Runs a task as who this process was when it started. */
export type AsStarted = <T>(task: () => T) => T;

/**
 * Sets root aside, for a process that serves nobody: its effective rights are those of the owner of the volume, and no file
 * or signal goes further. It takes root back to start another process, and for nothing else.
 * @throws OperatorError when this is not allowed
 */
export async function setRootAside(root: string | undefined): Promise<AsStarted> {
  if (process.getuid?.() !== 0) return task => task();
  const account = root === undefined ? SERVICE : soleWriter(await writersOf(root), await stat(root));
  if (!account) return task => task();
  const assume = ({ uid, gid }: Account) => {
    // Root first where it is taken back: nobody else may change the group.
    if (uid === 0) process.seteuid!(uid);
    process.setgroups!(uid === 0 ? groups : []);
    process.setegid!(gid);
    if (uid !== 0) process.seteuid!(uid);
  };
  const groups = process.getgroups!();
  const started = { uid: 0, gid: process.getegid!() };
  assume(account);
  return task => {
    assume(started);
    try {
      return task();
    } finally {
      assume(account);
    }
  };
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

async function giveFreshFolder(folder: string, { uid, gid }: Account): Promise<void> {
  await mkdir(folder, { recursive: true });
  const top = await stat(folder);
  if ((top.uid === 0 || top.uid === SERVICE.uid) && (await isEmpty(folder))) await chown(folder, uid, gid);
}

async function filesIn(folder: string): Promise<{ path: string; identity: string }[]> {
  const names = await readdir(folder).catch(() => []);
  return Promise.all(
    names.map(async name => {
      const path = join(folder, name);
      const { dev, ino, ctimeNs } = await lstat(path, { bigint: true });
      return { path, identity: `${dev}:${ino}:${ctimeNs}` };
    }),
  );
}

/**
 * Only a file of root's with this one name: whoever else owns the folder may have put a link there meanwhile. What cannot
 * be given, for want of a capability say, is still served; `unreadable` tells of it.
 */
async function giveFile(path: string, { uid, gid }: Account): Promise<void> {
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK).catch(
    () => undefined,
  );
  if (!file) return;
  try {
    const stats = await file.stat();
    if (stats.isFile() && stats.nlink === 1 && stats.uid === 0) await file.chown(uid, gid).catch(() => undefined);
  } finally {
    await file.close();
  }
}

/** A fresh ext4 or xfs volume is not quite empty, nor are `certs/` and `auth/` of a checkout. */
async function isEmpty(folder: string): Promise<boolean> {
  return (await readdir(folder)).every(name => name === 'lost+found' || name === 'README.md');
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
