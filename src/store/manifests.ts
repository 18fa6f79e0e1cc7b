import { createHash } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import { RegistryError } from '../errors.js';
import { algorithmOf, type Digest, hexOf } from '../reference.js';
import type { StorageDriver } from '../storage/driver.js';
import type { Blobs } from './blobs.js';
import { layout } from './layout.js';
import { readLink, writeLink } from './links.js';
import { type Descriptor, type Manifest, parseManifest, storedMediaType } from './manifest.js';
import { Records } from './records.js';

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
}

/** A digest, or a tag. */
export type ManifestReference = { readonly digest: Digest } | { readonly tag: string };

const CACHED_BYTES = 32 * 1024 * 1024;

export class Manifests {
  private readonly records: Records;
  /** Bytes by canonical digest, which never change. Whether a repository has them is looked up each time. */
  private readonly cache = new LRUCache<Digest, { mediaType: string; data: Buffer }>({
    maxSize: CACHED_BYTES,
    maxEntrySize: CACHED_BYTES / 8,
    sizeCalculation: ({ data }) => data.length + 256,
  });

  constructor(
    private readonly driver: StorageDriver,
    private readonly blobs: Blobs,
    private readonly options: { largest: number },
  ) {
    this.records = new Records(driver);
  }

  /** @throws RegistryError MANIFEST_UNKNOWN */
  async get(repository: string, reference: ManifestReference): Promise<StoredManifest> {
    const digest =
      'digest' in reference ? reference.digest : await readLink(this.driver, layout.tagLink(repository, reference.tag));
    const canonical = digest && (await readLink(this.driver, layout.revisionLink(repository, digest)));
    const content = canonical && (await this.content(canonical));
    if (!content) throw new RegistryError('MANIFEST_UNKNOWN', { detail: reference });
    return { digest, ...content };
  }

  private async content(canonical: Digest): Promise<{ mediaType: string; data: Buffer } | undefined> {
    const cached = this.cache.get(canonical);
    if (cached) return cached;
    const data = await this.driver.get(layout.blob(canonical), Math.max(this.options.largest, 16 * 1024 * 1024));
    if (!data) return undefined;
    const content = { mediaType: storedMediaType(data) ?? 'application/octet-stream', data };
    this.cache.set(canonical, content);
    return content;
  }

  /**
   * Stores a manifest, durably, in an order in which a crash leaves garbage at worst: the bytes, what is known of them,
   * the repository's link to them, and the tag last.
   * @throws RegistryError MANIFEST_INVALID, DIGEST_INVALID, MANIFEST_BLOB_UNKNOWN
   */
  async put(
    repository: string,
    reference: ManifestReference,
    data: Buffer,
    facts: { contentType?: string | undefined; pushedBy?: string | undefined },
  ): Promise<PutManifest> {
    const manifest = parseManifest(data, facts.contentType);
    const canonical: Digest = `sha256:${createHash('sha256').update(data).digest('hex')}`;
    const digest = 'digest' in reference ? reference.digest : canonical;
    if (digest !== canonical && createHash(algorithmOf(digest)).update(data).digest('hex') !== hexOf(digest))
      throw new RegistryError('DIGEST_INVALID', { detail: { digest } });
    await this.checkReferences(repository, manifest);

    await this.driver.write(layout.blob(canonical), data);
    await this.records.write(repository, digest, manifest, { size: data.length, pushedBy: facts.pushedBy });
    const names = digest === canonical ? [canonical] : [canonical, digest];
    await Promise.all(names.map(name => writeLink(this.driver, layout.revisionLink(repository, name), canonical)));
    if ('tag' in reference) await this.tag(repository, reference.tag, canonical);
    return { digest, ...(manifest.subject && { subject: manifest.subject.digest }) };
  }

  private async tag(repository: string, tag: string, digest: Digest): Promise<void> {
    await writeLink(this.driver, layout.tagIndexLink(repository, tag, digest), digest);
    await writeLink(this.driver, layout.tagLink(repository, tag), digest);
  }

  private async checkReferences(repository: string, manifest: Manifest): Promise<void> {
    const missing = (
      await Promise.all([
        ...unique(manifest.blobs).map(async ({ digest }) =>
          (await this.blobs.find(repository, digest)) ? [] : [digest],
        ),
        ...unique(manifest.manifests).map(async ({ digest }) =>
          (await this.lists(repository, digest)) ? [] : [digest],
        ),
      ])
    ).flat();
    if (missing.length > 0)
      throw new RegistryError('MANIFEST_BLOB_UNKNOWN', { detail: missing.slice(0, 100).map(digest => ({ digest })) });
  }

  /** Whether an index may list the digest: a manifest of the repository or, as in BuildKit's caches, a blob of it. */
  private async lists(repository: string, digest: Digest): Promise<boolean> {
    const link = await readLink(this.driver, layout.revisionLink(repository, digest));
    return link !== undefined || (await this.blobs.find(repository, digest)) !== undefined;
  }
}

function unique(descriptors: readonly Descriptor[]): Descriptor[] {
  return [...new Map(descriptors.map(descriptor => [descriptor.digest, descriptor])).values()];
}
