import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { must, requireTools } from '../support/process.js';
import type { Rig } from './rig.js';

const FILE_SYSTEMS = {
  // Without what ext4 does by itself for programs that forget to flush, and without its commit every five seconds.
  ext4: { mkfs: ['mkfs.ext4', '-q', '-F'], options: 'loop,noauto_da_alloc,commit=300' },
  xfs: { mkfs: ['mkfs.xfs', '-q', '-f'], options: 'loop' },
};

/**
 * A disk whose power can be cut. It is a file on a file system that shares blocks between copies, so a copy takes no
 * time: it holds what had reached the disk, and nothing that was still in memory.
 */
export class Disk {
  #cuts = 0;

  private constructor(
    private readonly rig: Rig,
    private readonly kind: keyof typeof FILE_SYSTEMS,
    private readonly store: string,
    /** Where it is mounted. */
    readonly folder: string,
  ) {}

  static async create(rig: Rig, kind: keyof typeof FILE_SYSTEMS): Promise<Disk> {
    requireTools('mkfs.xfs', 'mkfs.ext4', 'truncate', 'cp');
    const image = join(rig.dir, `${kind}-store.img`);
    await must(['truncate', '-s', '16G', image]);
    await must(['mkfs.xfs', '-q', '-m', 'reflink=1', image]);
    const store = await rig.mount(`${kind}-store`, '-o', 'loop', image);
    const disk = join(store, 'disk.img');
    const { mkfs, options } = FILE_SYSTEMS[kind];
    await must(['truncate', '-s', '4G', disk]);
    await must([...mkfs, disk]);
    return new Disk(rig, kind, store, await rig.mount(kind, '-o', options, disk));
  }

  /** Cuts the power, for a copy of the disk. @returns its image */
  async cut(): Promise<string> {
    const image = join(this.store, `cut-${++this.#cuts}.img`);
    await must(['cp', '--reflink=always', join(this.store, 'disk.img'), image]);
    return image;
  }

  /** Has a look at a copy as a machine that starts again would. */
  async inspect(image: string, look: (folder: string) => Promise<void>): Promise<void> {
    // xfs refuses a second file system of the same number.
    const options = this.kind === 'xfs' ? 'loop,nouuid' : 'loop';
    const folder = await this.rig.mount(`${this.kind}-cut`, '-o', options, image);
    try {
      await look(folder);
    } finally {
      await this.rig.unmount(folder);
      rmSync(image);
    }
  }
}
