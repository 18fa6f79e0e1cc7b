import { createHash } from 'node:crypto';
import type { Digest } from '../reference.js';
import { type StorageDriver, StorageError } from '../storage/driver.js';
import { inBatches } from './batches.js';
import { layout } from './layout.js';
import { readLink } from './links.js';
import { describe } from './manifest.js';
import { needsOf } from './needs.js';
import type { Store } from './store.js';
import type { Validation } from './validation.js';

/** Far above what any registry takes. */
const LARGEST_MANIFEST = 64 * 1024 * 1024;

/** How often a tag is looked at again that moves while its image is being copied. */
const TRIES = 5;

/** Where images are copied to. It gets everything that an image needs before what refers to it, and tags last. */
export interface CopyTarget {
  /** @throws BrokenImage where the bytes are gone, or not what the digest says */
  blob(source: StorageDriver, digest: Digest, size: number): Promise<void>;
  /** A link of a repository to a blob or a manifest. */
  link(key: string, canonical: Digest): Promise<void>;
  /** What is noted of a manifest. */
  note(key: string, data: Buffer): Promise<void>;
  tag(repository: string, tag: string, digest: Digest): Promise<void>;
  /** A repository is done. `whole`: nothing of it was left out. */
  done?(repository: string, reached: Reached, whole: boolean): Promise<void>;
}

/** What of a repository the tags lead to. */
export interface Reached {
  readonly tags: Set<string>;
  /** What each tag points at and has pointed at, where all of that is copied. */
  readonly past?: Map<string, ReadonlySet<Digest>>;
  readonly manifests: Set<Digest>;
  readonly layers: Set<Digest>;
  /** Keys of notes. */
  readonly notes: Set<string>;
}

/** An image that cannot be copied. The message ends a sentence: `lacks sha256:…`. */
export class BrokenImage extends Error {
  override readonly name = 'BrokenImage';
}

export interface CopyOptions {
  readonly validation: Validation;
  /** Told of each tag that is left out, with a line that says why. */
  readonly onProblem: (message: string) => void;
}

/** Copies all that tags and indexes lead to, and what has that as its subject, while others push, pull and delete. */
export async function copyImages(
  source: StorageDriver,
  store: Store,
  target: CopyTarget,
  options: CopyOptions,
): Promise<void> {
  for await (const name of store.catalog.names()) await new RepositoryCopy(source, store, target, options, name).run();
}

class RepositoryCopy {
  private readonly reached: Reached = { tags: new Set(), manifests: new Set(), layers: new Set(), notes: new Set() };
  private readonly images = new Map<Digest, Promise<void>>();
  private readonly blobs = new Map<Digest, Promise<void>>();
  /** Manifests whose referrers are still to be copied. */
  private readonly subjects: Digest[] = [];
  private whole = true;

  constructor(
    private readonly source: StorageDriver,
    private readonly store: Store,
    private readonly target: CopyTarget,
    private readonly options: CopyOptions,
    private readonly repository: string,
  ) {}

  async run(): Promise<void> {
    let after = '';
    for (;;) {
      const page = await this.store.catalog.tags(this.repository, 1000, after);
      await inBatches(page?.names ?? [], tag => this.copyTag(tag));
      if (!page?.more) break;
      after = page.names.at(-1)!;
    }
    for (let subject = this.subjects.pop(); subject; subject = this.subjects.pop()) await this.copyReferrers(subject);
    await this.target.done?.(this.repository, this.reached, this.whole);
  }

  private async copyTag(tag: string): Promise<void> {
    const { source, repository, target } = this;
    const key = layout.tagLink(repository, tag);
    for (let tries = 1; ; tries++) {
      const digest = await readLink(source, key);
      try {
        if (!digest) {
          // Deleted meanwhile.
          if (!(await source.stat(key))) return;
          throw new BrokenImage('holds no digest');
        }
        await this.image(digest);
        this.reached.tags.add(tag);
        return await target.tag(repository, tag, digest);
      } catch (error) {
        if (!(error instanceof BrokenImage)) throw error;
        if (tries < TRIES && (await readLink(source, key)) !== digest) continue;
        this.problem(`${repository}:${tag} ${error.message}`);
        return;
      }
    }
  }

  private async copyReferrers(subject: Digest): Promise<void> {
    for (const digest of await this.store.referrers.entries(this.repository, subject))
      try {
        if (await readLink(this.source, layout.revisionLink(this.repository, digest))) await this.image(digest);
      } catch (error) {
        if (!(error instanceof BrokenImage)) throw error;
        this.problem(`${this.repository}@${digest}, which refers to ${subject}, ${error.message}`);
      }
  }

  private problem(message: string): void {
    this.whole = false;
    this.options.onProblem(message);
  }

  /** @throws BrokenImage */
  private image(digest: Digest): Promise<void> {
    const running = this.images.get(digest) ?? this.copyImage(digest);
    this.images.set(digest, running);
    return running;
  }

  private async copyImage(digest: Digest): Promise<void> {
    const { source, target, repository } = this;
    const canonical = await readLink(source, layout.revisionLink(repository, digest));
    const data = canonical && (await source.get(layout.blob(canonical), LARGEST_MANIFEST));
    if (!data) throw new BrokenImage(`lacks the manifest ${digest}`);
    if (`sha256:${createHash('sha256').update(data).digest('hex')}` !== canonical)
      throw new BrokenImage(`is broken: the manifest ${digest} is corrupt`);
    const needs = needsOf(data, this.options.validation);
    if (!needs) throw new BrokenImage(`is broken: ${digest} is no manifest`);
    const { manifest, required } = needs;
    const missing = (present: boolean, need: Digest) => {
      if (!present && required.has(need)) throw new BrokenImage(`lacks ${need}`);
    };
    await inBatches(needs.manifests, async child => {
      const isManifest = await source.stat(layout.revisionLink(repository, child));
      missing(isManifest ? await this.image(child).then(() => true) : await this.layer(child), child);
    });
    await inBatches(needs.blobs, async blob => missing(await this.layer(blob), blob));
    await this.blob(canonical, data.length);
    for (const name of new Set([canonical, digest])) {
      await this.notes(name, data.length, manifest);
      this.reached.manifests.add(name);
      await target.link(layout.revisionLink(repository, name), canonical);
      this.subjects.push(name);
    }
  }

  /** @returns false where the repository has no such blob */
  private async layer(digest: Digest): Promise<boolean> {
    const { source, target, repository } = this;
    const canonical = await readLink(source, layout.layerLink(repository, digest));
    const info = canonical && (await source.stat(layout.blob(canonical)));
    if (!info) return false;
    await this.blob(canonical, info.size);
    for (const name of new Set([canonical, digest])) {
      if (this.reached.layers.has(name)) continue;
      this.reached.layers.add(name);
      await target.link(layout.layerLink(repository, name), canonical);
    }
    return true;
  }

  private blob(canonical: Digest, size: number): Promise<void> {
    const running = this.blobs.get(canonical) ?? this.target.blob(this.source, canonical, size);
    this.blobs.set(canonical, running);
    return running;
  }

  private async notes(digest: Digest, size: number, manifest: NonNullable<ReturnType<typeof needsOf>>['manifest']) {
    const { repository, store } = this;
    const record = await store.manifests.records.get(repository, digest);
    if (record) await this.note(layout.record(repository, digest), record);
    const subject = manifest?.subject?.digest;
    if (subject) await this.note(layout.referrer(repository, subject, digest), describe(manifest, digest, size));
  }

  private async note(key: string, content: object): Promise<void> {
    this.reached.notes.add(key);
    await this.target.note(key, Buffer.from(JSON.stringify(content)));
  }
}

/** What a failing read of the storage means for the image that needs it. */
export function asBroken(digest: Digest, error: unknown): unknown {
  return error instanceof StorageError
    ? new BrokenImage(`is broken: ${digest} cannot be read: ${error.message}`)
    : error;
}
