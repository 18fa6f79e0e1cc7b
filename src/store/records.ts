import type { Digest } from '../reference.js';
import type { StorageDriver } from '../storage/driver.js';
import { layout } from './layout.js';
import { type Descriptor, describe, type Manifest } from './manifest.js';

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
  /** Labels of the image's config in the `org.opencontainers.image.` namespace. */
  readonly labels?: Readonly<Record<string, string>>;
  /** RFC 3339, of the last push. */
  readonly pushedAt: string;
  readonly pushedBy?: string;
}

const LARGEST_CONFIG = 1024 * 1024;

export class Records {
  constructor(private readonly driver: StorageDriver) {}

  /** Writes the record of a manifest that is being pushed and, where it has a subject, its entry among the referrers. */
  async write(
    repository: string,
    digest: Digest,
    manifest: Manifest,
    facts: { size: number; pushedBy?: string | undefined },
  ): Promise<void> {
    const { subject } = manifest;
    const entry = describe(manifest, digest, facts.size);
    const { digest: _, ...described } = entry;
    const record: ManifestRecord = {
      version: 1,
      ...described,
      ...(subject && { subject: subject.digest }),
      ...(await this.fromConfig(manifest.config)),
      pushedAt: new Date().toISOString(),
      ...(facts.pushedBy && { pushedBy: facts.pushedBy }),
    };
    const writes = [this.driver.write(layout.record(repository, digest), json(record))];
    if (subject) writes.push(this.driver.write(layout.referrer(repository, subject.digest, digest), json(entry)));
    await Promise.all(writes);
  }

  /** Forgets a manifest that is no more, and its entry among the referrers. */
  async remove(repository: string, digest: Digest): Promise<void> {
    const key = layout.record(repository, digest);
    const subject = (await this.read(key))?.subject;
    if (subject) await this.driver.remove(layout.referrer(repository, subject, digest));
    await this.driver.remove(key);
  }

  private async read(key: string): Promise<ManifestRecord | undefined> {
    const data = await this.driver.get(key);
    try {
      return data && (JSON.parse(data.toString('utf8')) as ManifestRecord);
    } catch {
      return undefined;
    }
  }

  private async fromConfig(config: Descriptor | undefined): Promise<Pick<ManifestRecord, 'platform' | 'labels'>> {
    if (
      !config ||
      config.size > LARGEST_CONFIG ||
      !/^application\/vnd\.(docker\.container|oci)\.image\.(config\.)?v1\+json$/.test(config.mediaType)
    )
      return {};
    // The blob of a SHA-512 descriptor is stored under another name, which only its link tells; that is rare enough.
    if (!config.digest.startsWith('sha256:')) return {};
    try {
      const data = await this.driver.get(layout.blob(config.digest), LARGEST_CONFIG);
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

/** Those of the named members that are strings; undefined when none is. */
function strings(members: Record<string, unknown>, names: readonly string[]): Record<string, string> | undefined {
  const found = names.flatMap(name => (typeof members[name] === 'string' ? [[name, members[name]] as const] : []));
  return found.length > 0 ? Object.fromEntries(found) : undefined;
}

function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}
