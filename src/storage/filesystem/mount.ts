import { randomUUID } from 'node:crypto';
import { statSync } from 'node:fs';
import { readFile, stat, statfs, unlink, writeFile } from 'node:fs/promises';
import { systemCode } from '../../errors.js';
import { StorageError } from '../driver.js';
import { isFull, storageFailure } from './failure.js';

const LOW_BYTES = 16 * 1024 * 1024;
const LOW_FILES = 1000;
const SMALL_PUSH = 64 * 1024;

/**
 * The file systems that no network lies before, as Linux numbers them (statfs(2)): ext2 to ext4, xfs, btrfs, zfs, f2fs,
 * overlayfs, tmpfs.
 */
const LOCAL: ReadonlySet<number> = new Set([
  0xef53, 0x58465342, 0x9123683e, 0x2fc12fc1, 0xf2f52010, 0x794c7630, 0x01021994,
]);

/**
 * Watches that the folder is still of the device on which it was opened. When a volume is unmounted, its mount point is an
 * empty folder on another one: what is written there is lost to sight when the volume is back, and what is read is not there.
 * The device alone counts: it stays the same for as long as a volume is mounted, where some network and layered file systems
 * give a folder other numbers from time to time.
 */
export class Mount {
  #device: bigint | undefined;
  #local = false;

  constructor(private readonly root: string) {}

  /** From now on this device counts. */
  async remember(): Promise<void> {
    this.#device = (await stat(this.root, { bigint: true })).dev;
    this.#local = process.platform === 'linux' && LOCAL.has((await statfs(this.root)).type);
  }

  /**
   * Whether what the kernel has in memory may be looked at without a thread of libuv's: that takes some microseconds in
   * place of a hundred. Where a network lies before the file system a look may take as long as that likes.
   */
  get isLocal(): boolean {
    return this.#local;
  }

  /** @throws StorageError 'unavailable' where another device is there now, or nothing, until it is back */
  async check(): Promise<void> {
    if (this.#device === undefined) return;
    const found = await this.#look().catch(error => {
      if (systemCode(error) !== 'ENOENT') throw storageFailure('look at the data folder', error);
      return undefined;
    });
    if (found?.dev === this.#device) return;
    throw new StorageError(
      'unavailable',
      `the volume of the data folder ${this.root} is not mounted any more: mount it again; if another has taken its place, restart`,
    );
  }

  async #look(): Promise<{ dev: bigint }> {
    return this.#local ? statSync(this.root, { bigint: true }) : stat(this.root, { bigint: true });
  }

  /**
   * Whether there is no room for a small push. The numbers alone do not tell: some blocks are for root only, others for nobody.
   * @param probe a file that can be made to find out
   */
  async isFull(probe: string): Promise<boolean> {
    const { blocks, bavail, bsize, files, ffree } = await statfs(this.root);
    if ((blocks === 0 || bavail * bsize > LOW_BYTES) && (files === 0 || ffree > LOW_FILES)) return false;
    try {
      await writeFile(probe, Buffer.alloc(SMALL_PUSH), { flag: 'wx' });
      return false;
    } catch (error) {
      if (!isFull(error)) throw error;
      return true;
    } finally {
      await unlink(probe).catch(() => {});
    }
  }
}

/**
 * The boot of this machine and the disk below the root: a power cut ends the one, a copy has another, and one that was pulled
 * out and plugged in again counts as another where the kernel numbers them (since Linux 5.15). Where the system does not
 * tell its boot, each process is on its own.
 */
export async function volumeEpoch(root: string): Promise<string> {
  const boot = await readFile('/proc/sys/kernel/random/boot_id', 'utf8').catch(() => randomUUID());
  const { dev } = await stat(root, { bigint: true });
  const sequence = await diskSequence(dev);
  return [boot.trim(), dev, ...(sequence === undefined ? [] : [sequence])].join(':');
}

/** Which of all disks that were attached since the boot; of a partition, that of its disk. */
async function diskSequence(device: bigint): Promise<string | undefined> {
  // As glibc's makedev has it.
  const major = ((device >> 8n) & 0xfffn) | ((device >> 32n) & ~0xfffn);
  const minor = (device & 0xffn) | ((device >> 12n) & ~0xffn);
  for (const folder of ['', '../'])
    try {
      return (await readFile(`/sys/dev/block/${major}:${minor}/${folder}diskseq`, 'utf8')).trim();
    } catch {}
  return undefined;
}
