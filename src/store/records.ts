import type { Digest } from '../reference.js';
import type { StorageDriver } from '../storage/driver.js';
import type { Blobs } from './blobs.js';
import { layout } from './layout.js';
import { type Descriptor, describe, isIndex, type Manifest, readManifest } from './manifest.js';

/**
 * What is known of one manifest without reading it again: one small file each, beside the link. It is derived, so it
 * can be rebuilt from the content, except for when and by whom the manifest was pushed.
 */
export interface ManifestRecord {
  readonly version: 1;
  readonly mediaType: string;
  readonly size: number;
  readonly artifactType?: string;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly subject?: Digest;
  /** What the image's config says (image-spec, config.md). */
  readonly platform?: { readonly os?: string; readonly architecture?: string; readonly variant?: string };
  /** Labels in the `org.opencontainers.image.` namespace: of the image's config, or of the first image of an index. */
  readonly labels?: Readonly<Record<string, string>>;
  /** RFC 3339, of the last push, under whatever tag or none. */
  readonly pushedAt: string;
  /** When it was pushed under each tag, RFC 3339; of the last `MOST_TAGS`. None where `registry:2` wrote the tag. */
  readonly taggedAt?: Readonly<Record<string, string>>;
  readonly pushedBy?: string;
}

const LARGEST_CONFIG = 1024 * 1024;

/** The record of a manifest as it was last written; undefined where there is none, or a damaged one. */
export async function readRecord(
  driver: StorageDriver,
  repository: string,
  digest: Digest,
): Promise<ManifestRecord | undefined> {
  const data = await driver.get(layout.record(repository, digest));
  try {
    return data && (JSON.parse(data.toString('utf8')) as ManifestRecord);
  } catch {
    return undefined;
  }
}

/** A manifest that does not change may be pushed under a new tag every day. */
const MOST_TAGS = 250;

/** Of how many images of an index the labels are looked for. */
const MOST_CHILDREN = 8;

export class Records {
  /** @param stored the bytes of a manifest of a repository */
  constructor(
    private readonly driver: StorageDriver,
    private readonly blobs: Blobs,
    private readonly stored: (repository: string, digest: Digest) => Promise<Buffer | undefined>,
  ) {}

  /**
   * Writes the record of a manifest that is being pushed and, where it has a subject, its entry among the referrers. Not
   * twice at once for one manifest: what the record says of other tags is kept.
   * @param names every digest by which the repository is to have it: it can be asked for by each of them
   * @returns the keys of what is to be settled
   */
  async write(
    repository: string,
    names: readonly Digest[],
    manifest: Manifest,
    facts: { size: number; pushedBy?: string | undefined; tags: readonly string[] },
  ): Promise<string[]> {
    const pushedAt = new Date();
    const before = await Promise.all(names.map(name => readRecord(this.driver, repository, name)));
    const times = new Map(before.flatMap(record => Object.entries(record?.taggedAt ?? {})));
    for (const tag of facts.tags) times.delete(tag);
    const taggedAt = [...facts.tags.map(tag => [tag, pushedAt.toISOString()] as const), ...times].slice(0, MOST_TAGS);
    const record = await this.make(repository, manifest, { ...facts, pushedAt, taggedAt });
    const all = names.flatMap(name => files(repository, name, manifest, record));
    await Promise.all(all.map(([key, data]) => this.driver.write(key, data, { settled: false })));
    return all.map(([key]) => key);
  }

  /**
   * The record of a manifest of the repository; made now where `registry:2` wrote the manifest, with the time of its
   * link as the time of the push. Undefined where there is no such manifest, or none that can be read.
   */
  async get(repository: string, digest: Digest): Promise<ManifestRecord | undefined> {
    const link = await this.driver.stat(layout.revisionLink(repository, digest));
    if (!link) return undefined;
    const record = await readRecord(this.driver, repository, digest);
    if (record) return record;
    const data = await this.stored(repository, digest);
    const manifest = data && readManifest(data);
    if (!manifest) return undefined;
    const made = await this.make(repository, manifest, { size: data.length, pushedAt: link.modified });
    // Kept for the next time where that can be done. Never over what a push has written meanwhile.
    const kept = files(repository, digest, manifest, made).map(([key, data]) =>
      this.driver.create(key, data, { durable: false }),
    );
    await Promise.allSettled(kept);
    return made;
  }

  /**
   * Makes the record anew from the content. When and by whom the manifest was pushed stays as the old one says, as far as
   * that can be read. @returns false where there is no such manifest, or none that can be read
   */
  async rebuild(repository: string, digest: Digest): Promise<boolean> {
    const [link, old, data] = await Promise.all([
      this.driver.stat(layout.revisionLink(repository, digest)),
      readRecord(this.driver, repository, digest),
      this.stored(repository, digest),
    ]);
    const manifest = data && readManifest(data);
    if (!link || !manifest) return false;
    const pushed = new Date(old?.pushedAt ?? Number.NaN);
    const record = await this.make(repository, manifest, {
      size: data.length,
      pushedAt: Number.isNaN(pushed.getTime()) ? link.modified : pushed,
      pushedBy: typeof old?.pushedBy === 'string' ? old.pushedBy : undefined,
      taggedAt: Object.entries(old?.taggedAt ?? {}),
    });
    await Promise.all(files(repository, digest, manifest, record).map(([key, data]) => this.driver.write(key, data)));
    return true;
  }

  /** What the config of an image that is not stored yet says it runs on. */
  async platformOf(repository: string, { config }: Manifest): Promise<ManifestRecord['platform']> {
    return (await this.fromConfig(repository, config)).platform;
  }

  /** Forgets a manifest that is no more, and its entry among the referrers. */
  async remove(repository: string, digest: Digest): Promise<void> {
    const subject = (await readRecord(this.driver, repository, digest))?.subject;
    if (subject) await this.driver.remove(layout.referrer(repository, subject, digest));
    await this.driver.remove(layout.record(repository, digest));
  }

  private async make(
    repository: string,
    manifest: Manifest,
    facts: {
      size: number;
      pushedAt: Date;
      pushedBy?: string | undefined;
      taggedAt?: ReadonlyArray<readonly [tag: string, time: string]>;
    },
  ): Promise<ManifestRecord> {
    const { mediaType, artifactType, annotations, subject, kind } = manifest;
    const derived =
      kind === 'index'
        ? await this.fromImages(repository, manifest.manifests)
        : await this.fromConfig(repository, manifest.config);
    return {
      version: 1,
      mediaType,
      size: facts.size,
      ...(artifactType && { artifactType }),
      ...(annotations && { annotations }),
      ...(subject && { subject: subject.digest }),
      ...derived,
      pushedAt: facts.pushedAt.toISOString(),
      ...(facts.taggedAt?.length && { taggedAt: Object.fromEntries(facts.taggedAt) }),
      ...(facts.pushedBy && { pushedBy: facts.pushedBy }),
    };
  }

  private async fromImages(repository: string, images: readonly Descriptor[]): Promise<Pick<ManifestRecord, 'labels'>> {
    for (const { digest, mediaType } of images.slice(0, MOST_CHILDREN)) {
      // Not of a nested index, so that no chain of them can lead far.
      const labels = isIndex(mediaType) ? undefined : (await this.get(repository, digest))?.labels;
      if (labels) return { labels };
    }
    return {};
  }

  private async fromConfig(
    repository: string,
    config: Descriptor | undefined,
  ): Promise<Pick<ManifestRecord, 'platform' | 'labels'>> {
    if (
      !config ||
      config.size > LARGEST_CONFIG ||
      !/^application\/vnd\.(docker\.container|oci)\.image\.(config\.)?v1\+json$/.test(config.mediaType)
    )
      return {};
    // Through the link of the repository: a sparse image may name a config that is another's.
    const blob = await this.blobs.find(repository, config.digest);
    if (!blob || blob.size > LARGEST_CONFIG) return {};
    const data = await this.driver.get(layout.blob(blob.canonical));
    try {
      const content = JSON.parse(data?.toString('utf8') ?? '{}') as Record<string, unknown>;
      const platform = strings(content, ['os', 'architecture', 'variant']);
      const all = ((content.config as Record<string, unknown> | undefined)?.Labels ?? {}) as Record<string, unknown>;
      const labels = strings(
        all,
        Object.keys(all).filter(name => name.startsWith('org.opencontainers.image.')),
      );
      return { ...(platform && { platform }), ...(labels && { labels }) };
    } catch {
      return {};
    }
  }
}

/** What is written for one manifest, by key. */
function files(
  repository: string,
  digest: Digest,
  manifest: Manifest,
  record: ManifestRecord,
): ReadonlyArray<readonly [string, Buffer]> {
  const { subject } = manifest;
  const entry = describe(manifest, digest, record.size);
  return [
    [layout.record(repository, digest), json(record)],
    ...(subject ? [[layout.referrer(repository, subject.digest, digest), json(entry)] as const] : []),
  ];
}

/** Those of the named members that are strings; undefined when none is. */
function strings(members: Record<string, unknown>, names: readonly string[]): Record<string, string> | undefined {
  const found = names.flatMap(name => (typeof members[name] === 'string' ? [[name, members[name]] as const] : []));
  return found.length > 0 ? Object.fromEntries(found) : undefined;
}

function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}
