import { createHash } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import { allDone } from '../at-once.js';
import { RegistryError } from '../errors.js';
import { algorithmOf, type Digest, hexOf } from '../reference.js';
import { type StorageDriver, WHENEVER } from '../storage/driver.js';
import { inBatches } from './batches.js';
import type { Blobs } from './blobs.js';
import type { Catalog } from './catalog.js';
import { type ImmutableTags, immutable, type TagMove, type TagPush } from './immutable.js';
import type { Integrity } from './integrity.js';
import { layout } from './layout.js';
import { type Leases, orUnheld } from './leases.js';
import { digestIn, digestsIn, namesOf, readLink, recallLink, writeLink } from './links.js';
import type { Locks } from './locks.js';
import { type Descriptor, type Manifest, parseManifest, storedMediaType } from './manifest.js';
import type { Quotas } from './quotas.js';
import { Records } from './records.js';
import { checkUrls, mustBeThere, type Validation } from './validation.js';

export interface StoredManifest {
  /** The digest it was asked for by, or the canonical one. */
  readonly digest: Digest;
  readonly mediaType: string;
  /** Exactly the bytes that were pushed. */
  readonly data: Buffer;
}

export interface PutManifest {
  readonly digest: Digest;
  readonly subject?: Digest;
  /** Tags that pointed at another manifest, with what they pointed at. */
  readonly moved: ReadonlyMap<string, Digest>;
}

/** A digest, or a tag. */
export type ManifestReference = { readonly digest: Digest } | { readonly tag: string };

/**
 * For how long a tag that is there still leads to the same manifest without a look at the manifest's own link (ms). Whoever
 * deletes a manifest deletes its tags first, and what `registry:2` or a repair has left of a tag is found out after it.
 */
const GOOD = 500;

const CACHED_BYTES = 32 * 1024 * 1024;

export class Manifests {
  readonly records: Records;
  /** Bytes by canonical digest, which never change. Whether a repository has them is looked up each time. */
  private readonly cache = new LRUCache<Digest, { mediaType: string; data: Buffer }>({
    maxSize: CACHED_BYTES,
    maxEntrySize: CACHED_BYTES / 8,
    sizeCalculation: ({ data }) => data.length + 256,
  });
  /** By what was read of a tag's link, which is the very same as long as the link is. */
  private readonly tagged = new WeakMap<
    Buffer,
    { readonly digest: Digest; readonly canonical: Digest; readonly until: number }
  >();

  constructor(
    private readonly driver: StorageDriver,
    private readonly locks: Locks,
    private readonly leases: Leases,
    private readonly integrity: Integrity,
    private readonly quotas: Quotas,
    private readonly immutable: ImmutableTags,
    private readonly catalog: Catalog,
    private readonly blobs: Blobs,
    private readonly options: { largest: number; validation: Validation },
  ) {
    this.records = new Records(
      driver,
      blobs,
      async (repository, digest) => (await this.find(repository, { digest }))?.data,
    );
  }

  /** @throws RegistryError MANIFEST_UNKNOWN, NAME_UNKNOWN */
  async get(repository: string, reference: ManifestReference): Promise<StoredManifest> {
    const found = await this.find(repository, reference);
    if (!found) throw await this.unknown(repository, reference);
    return found;
  }

  /** As `get`, where that can be told at once; undefined where it cannot, and for what there is not. */
  recall(repository: string, reference: ManifestReference): StoredManifest | undefined {
    if ('digest' in reference) {
      const canonical = recallLink(this.driver, layout.revisionLink(repository, reference.digest));
      return canonical && this.recallContent(reference.digest, canonical);
    }
    const link = this.driver.recall?.(layout.tagLink(repository, reference.tag))?.content;
    if (!link) return undefined;
    const known = this.tagged.get(link);
    const now = performance.now();
    if (known && now < known.until) return this.recallContent(known.digest, known.canonical);
    const digest = digestIn(link);
    const canonical = digest && recallLink(this.driver, layout.revisionLink(repository, digest));
    if (!canonical) return undefined;
    this.tagged.set(link, { digest, canonical, until: now + GOOD });
    return this.recallContent(digest, canonical);
  }

  private recallContent(digest: Digest, canonical: Digest): StoredManifest | undefined {
    const content = this.cache.get(canonical);
    return content && { digest, mediaType: content.mediaType, data: content.data };
  }

  async find(repository: string, reference: ManifestReference): Promise<StoredManifest | undefined> {
    const digest =
      'digest' in reference ? reference.digest : await readLink(this.driver, layout.tagLink(repository, reference.tag));
    const canonical = digest && (await readLink(this.driver, layout.revisionLink(repository, digest)));
    const content = canonical && (await this.content(canonical));
    return content && { digest: digest!, ...content };
  }

  /** As `get`, for a client that will not push what it hears is there. @throws RegistryError as `get` */
  async getHeld(repository: string, reference: ManifestReference): Promise<StoredManifest> {
    const manifest = await this.get(repository, reference);
    // What a tag points at stays anyway.
    if ('tag' in reference || (await orUnheld(this.hold(repository, manifest.digest), async () => true)))
      return manifest;
    throw await this.unknown(repository, reference);
  }

  /** Whether the repository has the manifest; then it stays for the grace, with all that it refers to. */
  private async hold(repository: string, digest: Digest): Promise<boolean> {
    const canonical = await readLink(this.driver, layout.revisionLink(repository, digest));
    if (!canonical) return false;
    // The collector looks at the canonical one first.
    const links = [...new Set([canonical, digest])].map(name =>
      // The time of a link that `registry:2` wrote is when its manifest was pushed: it is recorded before it changes.
      this.leases.renew(layout.revisionLink(repository, name), () => this.records.get(repository, name)),
    );
    const found = await Promise.all([...links, this.leases.renew(layout.blob(canonical))]);
    return found.every(info => info !== undefined);
  }

  private async content(canonical: Digest): Promise<{ mediaType: string; data: Buffer } | undefined> {
    const cached = this.cache.get(canonical);
    if (cached) return cached;
    const key = layout.blob(canonical);
    const data = await this.driver.get(key, Math.max(this.options.largest, 16 * 1024 * 1024));
    if (!data || !this.integrity.isIntact(canonical, key, data)) return undefined;
    const content = { mediaType: storedMediaType(data) ?? 'application/octet-stream', data };
    this.cache.set(canonical, content);
    return content;
  }

  /**
   * Stores a manifest, durably, in an order in which a crash leaves garbage at worst: the bytes, what is known of them,
   * the repository's link to them, and the tags last.
   * @param target the digest that the client says, which it is held to, and the tags that are to point at the manifest
   * @param facts.createOnly whether the tags may be made, but not be moved, as if they were immutable
   * @throws RegistryError MANIFEST_INVALID, DIGEST_INVALID, MANIFEST_BLOB_UNKNOWN, DENIED
   */
  async put(
    repository: string,
    target: { digest?: Digest | undefined; tags: readonly string[] },
    data: Buffer,
    facts: { contentType?: string | undefined; pushedBy?: string | undefined; createOnly?: boolean },
  ): Promise<PutManifest> {
    const manifest = parseManifest(data, facts.contentType);
    checkUrls(manifest, this.options.validation);
    const canonical: Digest = `sha256:${createHash('sha256').update(data).digest('hex')}`;
    const digest = target.digest ?? canonical;
    if (digest !== canonical && createHash(algorithmOf(digest)).update(data).digest('hex') !== hexOf(digest))
      throw new RegistryError('DIGEST_INVALID', { detail: { digest } });
    const moved = new Map<string, Digest>();
    await this.locks.shared(repository, async () => {
      await this.checkReferences(repository, manifest);
      const moves = await this.claim(repository, target.tags, {
        digest,
        canonical,
        manifest,
        by: facts.pushedBy ?? '',
        createOnly: facts.createOnly ?? false,
      });
      for (const [tag, move] of moves) {
        const before = move === 'write' && (await readLink(this.driver, layout.tagLink(repository, tag)));
        if (before && before !== digest) moved.set(tag, before);
      }
      await this.quotas.within(repository, canonical, data.length, async () => {
        const names = digest === canonical ? [canonical] : [canonical, digest];
        const blob = layout.blob(canonical);
        await this.driver.write(blob, data, { settled: false });
        const { pushedBy } = facts;
        do {
          const records = await this.locks.exclusive(`${repository}@${canonical}`, () =>
            this.records.write(repository, names, manifest, { size: data.length, pushedBy, tags: target.tags }),
          );
          // Whoever sees a link relies on what it stands for: a tag, or another's index.
          await this.driver.settle?.([blob, ...records]);
          const links = names.map(name => layout.revisionLink(repository, name));
          await Promise.all(links.map(link => writeLink(this.driver, link, canonical, { settled: false })));
          await this.driver.settle?.(links);
          await Promise.all(moves.map(([tag, move]) => this.tag(repository, tag, digest, move)));
          // Another process may have deleted some of it in between.
        } while (!(await this.isWhole(repository, names)));
      });
    });
    return { digest, moved, ...(manifest.subject && { subject: manifest.subject.digest }) };
  }

  /** Whether the repository has a manifest under each of its names, with what is known of it. */
  private async isWhole(repository: string, names: readonly Digest[]): Promise<boolean> {
    const keys = names.flatMap(name => [layout.revisionLink(repository, name), layout.record(repository, name)]);
    const infos = await Promise.all(keys.map(key => this.driver.stat(key, WHENEVER)));
    return infos.every(info => info !== undefined);
  }

  private async claim(
    repository: string,
    tags: readonly string[],
    push: Omit<TagPush, 'platform'> & { manifest: Manifest },
  ): Promise<Array<readonly [tag: string, move: TagMove]>> {
    if (!push.createOnly && !tags.some(tag => this.immutable.isImmutable(repository, tag)))
      return tags.map(tag => [tag, 'write'] as const);
    const platform = await this.records.platformOf(repository, push.manifest);
    return Promise.all(
      tags.map(async tag => [tag, await this.immutable.claim(repository, tag, { ...push, platform })] as const),
    );
  }

  private async tag(repository: string, tag: string, digest: Digest, move: TagMove): Promise<void> {
    if (move === 'stay') return;
    const index = layout.tagIndexLink(repository, tag, digest);
    await writeLink(this.driver, index, digest, { settled: false });
    const link = layout.tagLink(repository, tag);
    if (move === 'write') {
      await writeLink(this.driver, link, digest, { settled: false });
      await this.driver.settle?.([index, link]);
      return;
    }
    await this.driver.settle?.([index]);
    if (!(await this.driver.create(link, Buffer.from(digest))) && (await readLink(this.driver, link)) !== digest)
      throw immutable(tag);
  }

  /**
   * Removes a tag, or a manifest under each of its digests with every tag on it, durably. Its bytes are the collector's.
   * @throws RegistryError MANIFEST_UNKNOWN, NAME_UNKNOWN; DENIED where a tag is immutable, or needs the manifest
   */
  async remove(repository: string, reference: ManifestReference): Promise<void> {
    await this.locks.exclusive(repository, () =>
      'tag' in reference
        ? this.removeTag(repository, reference.tag)
        : this.removeRevision(repository, reference.digest),
    );
  }

  private async removeTag(repository: string, tag: string): Promise<void> {
    // Not by its link, which a crash of `registry:2` may have left empty: such a tag is listed, and must go too.
    if (!(await this.driver.stat(layout.tagLink(repository, tag)))) throw await this.unknown(repository, { tag });
    this.immutable.checkTag(repository, tag);
    await this.driver.removeAll(layout.tag(repository, tag));
    await this.immutable.forget(repository, tag);
  }

  private async removeRevision(repository: string, digest: Digest): Promise<void> {
    const linkOf = (name: Digest) => layout.revisionLink(repository, name);
    const canonical = await readLink(this.driver, linkOf(digest));
    if (!canonical) throw await this.unknown(repository, { digest });
    const allNames = () => namesOf(this.driver, layout.revisions(repository), linkOf, canonical);
    const removed = new Set<Digest>();
    // Another process may have pushed it by another digest meanwhile.
    for (let names = await allNames(); names.some(name => !removed.has(name)); names = await allNames()) {
      await this.immutable.checkContent(repository, names);
      // The tags first: a crash must leave none that points at nothing.
      await this.removeTagsOn(repository, names);
      await allDone(names.map(name => this.driver.removeAll(layout.revision(repository, name))));
      for (const name of names) removed.add(name);
    }
    // Or by the same one, and then all is well; or only a tag on it.
    const links = await inBatches([...removed], async name =>
      (await readLink(this.driver, linkOf(name))) ? [] : [name],
    );
    const gone = links.flat();
    await this.removeTagsOn(repository, gone);
    // Without its link, what is known of a manifest counts for nothing: whatever a crash leaves of this does no harm.
    await Promise.all(gone.map(name => this.records.remove(repository, name)));
    // A push that has made the link just before has its record no more.
    await Promise.all(gone.map(name => this.records.rebuild(repository, name)));
  }

  private async removeTagsOn(repository: string, digests: readonly Digest[]): Promise<void> {
    const tags = await this.driver.list(layout.tags(repository));
    await inBatches(tags, ({ name }) => this.removeTagOn(repository, name, digests));
  }

  /** Removes a tag that is on one of the digests. If another process points it elsewhere meanwhile, it stays. */
  private async removeTagOn(repository: string, tag: string, digests: readonly Digest[]): Promise<void> {
    const key = layout.tagLink(repository, tag);
    const info = await this.driver.stat(key);
    const digest = info && (await readLink(this.driver, key));
    if (!digest || !digests.includes(digest)) return;
    if (!(await this.driver.removeStale(key, info))) return;
    const before = new Date(info.modified.getTime() + 1);
    const former = await digestsIn(this.driver, layout.tagIndex(repository, tag));
    await inBatches(former, name =>
      this.driver.removeStale(layout.tagIndexLink(repository, tag, name), before, { durable: false }),
    );
    await this.driver.removeEmptyFolders(layout.tag(repository, tag));
    await this.immutable.forget(repository, tag);
  }

  private async unknown(repository: string, reference: ManifestReference): Promise<RegistryError> {
    if (await this.catalog.exists(repository)) return new RegistryError('MANIFEST_UNKNOWN', { detail: reference });
    return new RegistryError('NAME_UNKNOWN', { detail: { name: repository } });
  }

  /** What a manifest names must be there and stay, before the manifest itself is: until then only leases keep it. */
  private async checkReferences(repository: string, manifest: Manifest): Promise<void> {
    const { validation } = this.options;
    const blobs = await inBatches(unique(manifest.blobs), async ({ digest }) =>
      (await this.blobs.hold(repository, digest)) || validation.images === 'none' ? [] : [digest],
    );
    const manifests = await inBatches(unique(manifest.manifests), async descriptor =>
      (await this.lists(repository, descriptor.digest)) || !mustBeThere(descriptor, validation)
        ? []
        : [descriptor.digest],
    );
    const missing = [...blobs, ...manifests].flat();
    if (missing.length > 0)
      throw new RegistryError('MANIFEST_BLOB_UNKNOWN', { detail: missing.slice(0, 100).map(digest => ({ digest })) });
  }

  /** Whether an index may list the digest: a manifest of the repository or, as in BuildKit's caches, a blob of it. */
  private async lists(repository: string, digest: Digest): Promise<boolean> {
    return (await this.hold(repository, digest)) || (await this.blobs.hold(repository, digest)) !== undefined;
  }
}

function unique(descriptors: readonly Descriptor[]): Descriptor[] {
  return [...new Map(descriptors.map(descriptor => [descriptor.digest, descriptor])).values()];
}
