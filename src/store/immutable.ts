import { RegistryError } from '../errors.js';
import type { Digest } from '../reference.js';
import type { StorageDriver } from '../storage/driver.js';
import { inBatches } from './batches.js';
import { layout } from './layout.js';
import { readLink } from './links.js';
import type { Manifest } from './manifest.js';
import type { ManifestRecord } from './records.js';
import { referencesOf } from './references.js';

/** What a push may do with a tag: set it, make it, or leave it where it is. */
export type TagMove = 'write' | 'create' | 'stay';

/** The push of a tag, before anything is stored. */
export interface TagPush {
  /** What the tag is to hold. */
  readonly digest: Digest;
  readonly canonical: Digest;
  readonly manifest: Pick<Manifest, 'kind' | 'manifests'>;
  readonly platform: Platform;
  /** The principal; empty where nobody logs in. */
  readonly by: string;
  /** Whether to this principal every tag is immutable. */
  readonly createOnly: boolean;
}

type Platform = ManifestRecord['platform'] | undefined;

/** A step in the life of an immutable tag: what it became, when and by whom. */
interface Step {
  readonly digest: Digest;
  readonly kind: Manifest['kind'];
  readonly platform?: Platform;
  readonly by: string;
  /** RFC 3339. */
  readonly at: string;
}

/** For how long an index may still take the place of the image that was pushed first. */
const OPEN_MS = 3_600_000;

/** After this time a step without its tag is what a dead push, or a deleted tag, has left. */
const ABANDONED_MS = 60_000;

const LARGEST_MANIFEST = 16 * 1024 * 1024;

/**
 * Tags that never change. One change only is allowed, since BuildKit pushes a multi-platform image in this way: its images
 * one after the other under the tag, then the index under the tag. So within an hour the same principal may put an index
 * that lists the first image in its place, and until then its images for other platforms are taken too, without the tag
 * following them.
 *
 * Each step of a tag is a file made by create-if-absent before the tag is set, so of any number of pushes in any process
 * one decides what the tag becomes.
 */
export class ImmutableTags {
  constructor(
    private readonly driver: StorageDriver,
    readonly isImmutable: (repository: string, tag: string) => boolean,
  ) {}

  /** To be asked before anything is stored. @throws RegistryError DENIED */
  async claim(repository: string, tag: string, push: TagPush): Promise<TagMove> {
    const isImmutable = this.isImmutable(repository, tag);
    if (!isImmutable && !push.createOnly) return 'write';
    const current = await readLink(this.driver, layout.tagLink(repository, tag));
    if (!current && (await this.isFirst(repository, tag, push))) return 'create';
    const canonical = current && ((await readLink(this.driver, layout.revisionLink(repository, current))) ?? current);
    if (canonical === push.canonical) return 'stay';
    const first = await this.step(repository, tag, 1);
    // Without a tag, the first push is still under way.
    const isTarget = first !== undefined && (current === undefined || current === first.digest);
    if (isTarget && first.by === push.by && first.kind !== 'index' && age(first) < OPEN_MS) {
      if (push.manifest.kind !== 'index' && isOther(first.platform, push.platform)) return 'stay';
      const lists = push.manifest.manifests.some(({ digest }) => digest === current || digest === canonical);
      if (lists && (await this.takes(repository, tag, 2, push))) return 'write';
    }
    throw isImmutable ? immutable(tag) : createOnly(tag);
  }

  private async isFirst(repository: string, tag: string, push: TagPush): Promise<boolean> {
    const before = new Date(Date.now() - ABANDONED_MS);
    for (const step of [2, 1] as const) await this.driver.removeStale(layout.immutable(repository, tag, step), before);
    return this.takes(repository, tag, 1, push);
  }

  /** Whether this push, or one of the same content, makes the step. */
  private async takes(repository: string, tag: string, number: 1 | 2, push: TagPush): Promise<boolean> {
    const { digest, manifest, platform, by } = push;
    const step: Step = { digest, kind: manifest.kind, ...(platform && { platform }), by, at: new Date().toISOString() };
    const key = layout.immutable(repository, tag, number);
    if (await this.driver.create(key, Buffer.from(JSON.stringify(step)))) return true;
    return (await this.step(repository, tag, number))?.digest === digest;
  }

  private async step(repository: string, tag: string, number: 1 | 2): Promise<Step | undefined> {
    const data = await this.driver.get(layout.immutable(repository, tag, number));
    try {
      return data && (JSON.parse(data.toString('utf8')) as Step);
    } catch {
      return undefined;
    }
  }

  /** To be called when the tag has been deleted: the next push of it is a first one again. */
  async forget(repository: string, tag: string): Promise<void> {
    for (const step of [2, 1] as const) await this.driver.remove(layout.immutable(repository, tag, step));
  }

  /** @throws RegistryError DENIED where the tag, which is there, may not be deleted */
  checkTag(repository: string, tag: string): void {
    if (this.isImmutable(repository, tag)) throw immutable(tag);
  }

  /**
   * To be asked before a manifest or a blob is deleted.
   * @param digests its names
   * @throws RegistryError DENIED where an immutable tag needs it
   */
  async checkContent(repository: string, digests: readonly Digest[]): Promise<void> {
    const seen = new Set<Digest>();
    for (const tag of await this.tags(repository)) {
      const target = await readLink(this.driver, layout.tagLink(repository, tag));
      const open = target ? [target] : [];
      for (let next = open.pop(); next; next = open.pop()) {
        if (digests.includes(next)) throw immutable(tag);
        if (seen.has(next)) continue;
        seen.add(next);
        const canonical = await readLink(this.driver, layout.revisionLink(repository, next));
        const data = canonical && (await this.driver.get(layout.blob(canonical), LARGEST_MANIFEST));
        const { manifests = [], blobs = [] } = (data && referencesOf(data)) || {};
        if (blobs.some(blob => digests.includes(blob))) throw immutable(tag);
        open.push(...manifests);
      }
    }
  }

  /** To be asked before a repository is deleted. @throws RegistryError DENIED where it has an immutable tag */
  async checkRepository(repository: string): Promise<void> {
    const [tag] = await this.tags(repository);
    if (tag !== undefined) throw immutable(tag);
  }

  private async tags(repository: string): Promise<string[]> {
    const entries = await this.driver.list(layout.tags(repository));
    const names = entries.map(({ name }) => name).filter(tag => this.isImmutable(repository, tag));
    const found = await inBatches(names, async tag =>
      (await this.driver.stat(layout.tagLink(repository, tag))) ? [tag] : [],
    );
    return found.flat();
  }
}

/** Whether two images can be of one index. What BuildKit says about an image has the platform `unknown`. */
function isOther(one: Platform, other: Platform): boolean {
  if (!one || !other) return false;
  return (
    one.os === 'unknown' ||
    one.os !== other.os ||
    one.architecture !== other.architecture ||
    one.variant !== other.variant
  );
}

function age({ at }: Step): number {
  return Date.now() - Date.parse(at);
}

function createOnly(tag: string): RegistryError {
  return new RegistryError('DENIED', {
    message: `the tag ${tag} is there, and you may make tags, not move them`,
    detail: { tag },
  });
}

/** What a client is told whose push or delete would change such a tag. */
export function immutable(tag: string): RegistryError {
  return new RegistryError('DENIED', { message: `the tag ${tag} is immutable`, detail: { tag } });
}
