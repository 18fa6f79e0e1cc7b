import { linkSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Digest } from '../../../src/reference.js';
import { layout } from '../../../src/store/layout.js';
import { digestOf, manifestOf } from '../../support/content.js';
import { Blob } from '../content.js';
import { timed, type Work } from './work.js';

/** Below what ext4 takes (65,000). */
const LINKS_OF_A_FILE = 60_000;

/** What is written: so many repositories of one image of one layer, under so many tags each. */
export interface StoreJob {
  readonly kind: 'store';
  readonly volume: string;
  readonly repositories: number;
  readonly tags: number;
}

export const repositoryName = (index: number): string =>
  `group-${String(Math.floor(index / 100)).padStart(4, '0')}/app-${String(index % 100).padStart(2, '0')}`;

/**
 * Writes a volume as `registry:2` would have, but at the speed of the disk. The links are hard links to few files, for a
 * million files of 71 bytes would take 4 GB.
 */
class LargeStore {
  readonly #folders = new Set<string>();
  readonly #files = new Map<Digest, { readonly path: string; links: number }>();

  constructor(private readonly volume: string) {
    mkdirSync(volume, { recursive: true });
    this.#folders.add(volume);
  }

  /** Repositories of one image of one layer, under so many tags each. */
  write(repositories: number, tags: number): void {
    const layer = Blob.known(1000, 200).whole();
    const config = Buffer.from('{"architecture":"amd64","os":"linux"}');
    const manifest = manifestOf(config, [layer]);
    for (const data of [config, layer, manifest]) this.#file(layout.blob(digestOf(data)), data);
    const digest = digestOf(manifest);
    for (let index = 0; index < repositories; index++) {
      const name = repositoryName(index);
      for (const data of [config, layer]) this.#link(layout.layerLink(name, digestOf(data)), digestOf(data));
      this.#link(layout.revisionLink(name, digest), digest);
      for (let tag = 0; tag < tags; tag++) {
        this.#link(layout.tagLink(name, `v${tag}`), digest);
        this.#link(layout.tagIndexLink(name, `v${tag}`, digest), digest);
      }
    }
  }

  #file(key: string, data: Buffer | string): string {
    const path = join(this.volume, key);
    this.#folder(dirname(path));
    writeFileSync(path, data);
    return path;
  }

  #link(key: string, digest: Digest): void {
    const file = this.#files.get(digest);
    if (!file || file.links === LINKS_OF_A_FILE) {
      this.#files.set(digest, { path: this.#file(key, digest), links: 1 });
      return;
    }
    const path = join(this.volume, key);
    this.#folder(dirname(path));
    linkSync(file.path, path);
    file.links++;
  }

  /** One call for each folder that is not there yet, where `recursive` makes one for each of its ancestors. */
  #folder(path: string): void {
    if (this.#folders.has(path)) return;
    this.#folder(dirname(path));
    mkdirSync(path);
    this.#folders.add(path);
  }
}

export function store(job: StoreJob): Promise<Work> {
  return timed(async () => {
    new LargeStore(job.volume).write(job.repositories, job.tags);
    return job.repositories;
  });
}
