import { type Digest, isTag } from '../reference.js';
import type { StorageDriver } from '../storage/driver.js';
import { inBatches } from './batches.js';
import type { Catalog } from './catalog.js';
import { layout } from './layout.js';
import { contentOf, readLink } from './links.js';
import { type Descriptor, readManifest } from './manifest.js';
import type { Manifests } from './manifests.js';

/** What a repository comes to. */
export interface RepositoryOverview {
  /** Bytes of its distinct blobs and manifests. */
  readonly size: number;
  readonly blobs: number;
  readonly manifests: number;
  readonly tags: number;
}

/** What a tag points at. */
export interface TagOverview {
  readonly tag: string;
  readonly digest: Digest;
  readonly mediaType: string;
  /** Bytes of the distinct blobs and manifests that it leads to, as far as the repository has the manifests. */
  readonly size: number;
  /** RFC 3339, of the last push of this tag. */
  readonly pushedAt: string;
  readonly pushedBy?: string;
  /** `os/architecture[/variant]`, of each image behind it that says what it runs on. */
  readonly platforms: readonly string[];
}

/** An index may name as many images as it likes: no more of them than this are looked at for one tag. */
const MOST_IMAGES = 64;

/** What repositories hold, for people. Reads what is there, and keeps nothing. */
export class Overview {
  constructor(
    private readonly driver: StorageDriver,
    private readonly catalog: Catalog,
    private readonly manifests: Manifests,
  ) {}

  /** @returns undefined where there is no such repository */
  async of(repository: string): Promise<RepositoryOverview | undefined> {
    if (!(await this.catalog.exists(repository))) return undefined;
    const [blobs, manifests] = await contentOf(this.driver, repository);
    const sizes = await inBatches([...new Set([...blobs, ...manifests])], async canonical => {
      return (await this.driver.stat(layout.blob(canonical)))?.size ?? 0;
    });
    const tags = (await this.driver.list(layout.tags(repository))).filter(({ name }) => isTag(name));
    return {
      size: sizes.reduce((sum, size) => sum + size, 0),
      blobs: blobs.length,
      manifests: manifests.length,
      tags: tags.length,
    };
  }

  /** One page of tags, in the order of their names. @returns undefined where there is no such repository */
  async tags(
    repository: string,
    limit: number,
    after: string,
  ): Promise<{ tags: TagOverview[]; last: string | undefined } | undefined> {
    const page = await this.catalog.tags(repository, limit, after);
    if (!page) return undefined;
    const tags = await inBatches(page.names, async tag => (await this.tag(repository, tag)) ?? []);
    return { tags: tags.flat(), last: page.more ? page.names.at(-1) : undefined };
  }

  /** Undefined where the tag, or what it points at, is gone by now. */
  private async tag(repository: string, tag: string): Promise<TagOverview | undefined> {
    const digest = await readLink(this.driver, layout.tagLink(repository, tag));
    const record = digest && (await this.manifests.records.get(repository, digest));
    if (!record) return undefined;
    const { mediaType, pushedAt, taggedAt, pushedBy } = record;
    return {
      tag,
      digest,
      mediaType,
      pushedAt: taggedAt?.[tag] ?? pushedAt,
      ...(pushedBy && { pushedBy }),
      ...(await this.behind(repository, digest)),
    };
  }

  private async behind(repository: string, digest: Digest): Promise<Pick<TagOverview, 'size' | 'platforms'>> {
    const sizes = new Map<Digest, number>();
    const platforms = new Set<string>();
    const waiting: Array<Pick<Descriptor, 'digest' | 'platform'>> = [{ digest }];
    for (let looked = 0; looked < MOST_IMAGES && waiting.length > 0; looked++) {
      const next = waiting.shift()!;
      if (sizes.has(next.digest)) continue;
      const found = await this.manifests.find(repository, { digest: next.digest });
      const manifest = found && readManifest(found.data);
      if (!manifest) continue;
      sizes.set(next.digest, found.data.length);
      for (const { digest, size } of manifest.blobs) sizes.set(digest, size);
      waiting.push(...manifest.manifests);
      if (manifest.kind !== 'image') continue;
      const { os, architecture, variant } =
        next.platform ?? (await this.manifests.records.get(repository, next.digest))?.platform ?? {};
      // BuildKit's attestations run on `unknown`.
      if (os && architecture && os !== 'unknown')
        platforms.add([os, architecture, ...(variant ? [variant] : [])].join('/'));
    }
    return { size: [...sizes.values()].reduce((sum, size) => sum + size, 0), platforms: [...platforms] };
  }
}
