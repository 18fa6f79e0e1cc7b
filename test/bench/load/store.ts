import { linkSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Digest } from '../../../src/reference.js';
import { layout } from '../../../src/store/layout.js';
import type { ManifestRecord } from '../../../src/store/records.js';
import { digestOf, manifestOf, OCI_MANIFEST } from '../../support/content.js';
import { timed, type Work } from './work.js';

/** Below what ext4 takes (65,000). */
const LINKS_OF_A_FILE = 60_000;

/** What is written. */
export interface StoreJob {
  readonly kind: 'store';
  readonly volume: string;
  readonly repositories: number;
  /** Of each repository, all of one image. */
  readonly tags: number;
  /** Blobs that each repository has of its own, with its config and manifest; one image of one layer for all, unless told. */
  readonly blobs?: number;
  /** Tags of one repository more, whose name is `tags`. */
  readonly more?: number;
}

export const repositoryName = (index: number): string =>
  `group-${String(Math.floor(index / 100)).padStart(4, '0')}/app-${String(index % 100).padStart(2, '0')}`;

/** In the order of listings. */
export const tagName = (index: number): string => `v${String(index).padStart(6, '0')}`;

interface Image {
  readonly layers: readonly Buffer[];
  readonly config: Buffer;
  readonly manifest: Buffer;
}

function imageOf(unique: string, layerCount: number): Image {
  const layers = Array.from({ length: layerCount }, (_, index) => Buffer.from(`${unique} layer ${index}`));
  const config = Buffer.from(JSON.stringify({ architecture: 'amd64', os: 'linux', unique }));
  return { layers, config, manifest: manifestOf(config, layers) };
}

/**
 * Writes a volume as pushes would have, but at the speed of the disk. The links are hard links to few files, for a
 * million files of 71 bytes would take 4 GB.
 */
class LargeStore {
  readonly #folders = new Set<string>();
  readonly #files = new Map<Digest, { readonly path: string; links: number }>();

  constructor(private readonly volume: string) {
    mkdirSync(volume, { recursive: true });
    this.#folders.add(volume);
  }

  write({ repositories, tags, blobs, more = 0 }: Omit<StoreJob, 'volume'>): void {
    const same = imageOf('', 1);
    for (let index = 0; index < repositories; index++)
      this.#repository(repositoryName(index), blobs ? imageOf(`${index}`, blobs - 2) : same, tags);
    if (more > 0) this.#repository('tags', same, more);
  }

  #repository(name: string, { layers, config, manifest }: Image, tags: number): void {
    const digest = digestOf(manifest);
    for (const data of [...layers, config]) {
      this.#blob(data);
      this.#link(layout.layerLink(name, digestOf(data)), digestOf(data));
    }
    this.#blob(manifest);
    this.#link(layout.revisionLink(name, digest), digest);
    const pushedAt = new Date().toISOString();
    const record: ManifestRecord = { version: 1, mediaType: OCI_MANIFEST, size: manifest.length, pushedAt };
    this.#file(layout.record(name, digest), JSON.stringify(record));
    for (let tag = 0; tag < tags; tag++) {
      this.#link(layout.tagLink(name, tagName(tag)), digest);
      this.#link(layout.tagIndexLink(name, tagName(tag), digest), digest);
    }
  }

  #blob(data: Buffer): void {
    const key = layout.blob(digestOf(data));
    if (!this.#folders.has(join(this.volume, dirname(key)))) this.#file(key, data);
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
    new LargeStore(job.volume).write(job);
    return job.repositories;
  });
}
