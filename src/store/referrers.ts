import { type Algorithm, algorithmOf, type Digest, hexOf } from '../reference.js';
import type { StorageDriver } from '../storage/driver.js';
import { inBatches } from './batches.js';
import { layout } from './layout.js';
import { digestsIn, readLink } from './links.js';
import { type Descriptor, describe, type Manifest, readManifest } from './manifest.js';
import type { Manifests } from './manifests.js';

/** One page of descriptors, in the order of their digests. */
export interface ReferrersPage {
  readonly descriptors: readonly Descriptor[];
  /** Whether there are more after the last of them. */
  readonly more: boolean;
}

/** What a tag is about that belongs to another image. */
export interface SubjectOfTag {
  readonly algorithm: Algorithm;
  /** The first 64 digits. */
  readonly hex: string;
}

/**
 * Tags of lists of referrers (distribution-spec, "Referrers Tag Schema") and of signatures and the like, which cosign
 * calls `sha256-….sig`.
 */
export function subjectOfTag(tag: string): SubjectOfTag | undefined {
  const [, algorithm, hex] = /^(sha256|sha512)-([0-9a-f]{64})(?![0-9a-f])/.exec(tag) ?? [];
  return algorithm && hex ? { algorithm: algorithm as Algorithm, hex } : undefined;
}

/** How many entries are read at once, and how large a page may grow before it ends: as large as a manifest may be. */
const BATCH = 16;
const PAGE_BYTES = 4 * 1024 * 1024;

/** Which manifests have another one as their subject. An entry counts only while its manifest is in the repository. */
export class Referrers {
  constructor(
    private readonly driver: StorageDriver,
    private readonly manifests: Manifests,
  ) {}

  /**
   * distribution-spec, "Listing Referrers". The subject need not be there, nor the repository.
   * @param options.after the last digest of the page before
   * @param options.artifactType only entries of this type; empty: of none
   */
  async list(
    repository: string,
    subject: Digest,
    options: { limit: number; after: string; artifactType?: string | undefined },
  ): Promise<ReferrersPage> {
    const { limit, after, artifactType } = options;
    const digests = (await this.names(repository, subject)).filter(digest => digest > after).sort();
    const descriptors: Descriptor[] = [];
    let bytes = 0;
    for (let start = 0; start < digests.length; start += BATCH) {
      const batch = digests.slice(start, start + BATCH);
      const found = await Promise.all(batch.map(digest => this.descriptor(repository, subject, digest)));
      for (const descriptor of found) {
        if (!descriptor || (artifactType ?? typeOf(descriptor)) !== typeOf(descriptor)) continue;
        bytes += JSON.stringify(descriptor).length;
        if (descriptors.length === limit || (bytes > PAGE_BYTES && descriptors.length > 0))
          return { descriptors, more: true };
        descriptors.push(descriptor);
      }
    }
    return { descriptors, more: false };
  }

  /** One digest of each manifest that may be a referrer: of several the one that a client chose, not the canonical one. */
  private async names(repository: string, subject: Digest): Promise<Digest[]> {
    const all = new Set([...(await this.entries(repository, subject)), ...(await this.fallback(repository, subject))]);
    const chosen = [...all].filter(digest => algorithmOf(digest) !== 'sha256');
    const links = await inBatches(chosen, digest => readLink(this.driver, layout.revisionLink(repository, digest)));
    for (const canonical of links) if (canonical) all.delete(canonical);
    return [...all];
  }

  /** What is noted to have the manifest as its subject, whether it is still there or not. */
  entries(repository: string, subject: Digest): Promise<Digest[]> {
    return digestsIn(this.driver, layout.referrers(repository, subject));
  }

  /**
   * What clients of a registry without this API keep by themselves: a tag on an index of the referrers (distribution-spec,
   * "Referrers Tag Schema"). Such a registry may have been here before, and wrote no entries.
   */
  private async fallback(repository: string, subject: Digest): Promise<Digest[]> {
    const tag = `${algorithmOf(subject)}-${hexOf(subject).slice(0, 64)}`;
    const index = await this.manifest(repository, { tag });
    return index?.kind === 'index' ? index.manifests.map(({ digest }) => digest) : [];
  }

  private async descriptor(repository: string, subject: Digest, digest: Digest): Promise<Descriptor | undefined> {
    if (!(await readLink(this.driver, layout.revisionLink(repository, digest)))) return undefined;
    const entry = await this.driver.get(layout.referrer(repository, subject, digest));
    try {
      if (entry) return JSON.parse(entry.toString('utf8')) as Descriptor;
    } catch {
      // It can be made again.
    }
    const content = await this.manifests.find(repository, { digest });
    const manifest = content && readManifest(content.data);
    if (manifest?.subject?.digest !== subject) return undefined;
    return describe(manifest, digest, content!.data.length);
  }

  private async manifest(repository: string, reference: { tag: string }): Promise<Manifest | undefined> {
    const content = await this.manifests.find(repository, reference);
    return content && readManifest(content.data);
  }
}

function typeOf({ artifactType = '' }: Descriptor): string {
  return artifactType;
}
