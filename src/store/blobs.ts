import { allDone } from '../at-once.js';
import { RegistryError } from '../errors.js';
import { growingCache } from '../growing-cache.js';
import type { ByteRange, Digest } from '../reference.js';
import { type ByteStream, type StorageDriver, StorageError, WHENEVER } from '../storage/driver.js';
import type { Catalog } from './catalog.js';
import type { ImmutableTags } from './immutable.js';
import type { Integrity } from './integrity.js';
import { layout } from './layout.js';
import { type Leases, orUnheld } from './leases.js';
import { namesOf, readLink, writeLink } from './links.js';
import type { Locks } from './locks.js';
import type { Quotas } from './quotas.js';

/** How many repositories one request may search for a blob. */
const MOST_LOOKS = 100;

/** What answers a pull of a whole blob: its bytes, or where they are to be had (`urlOf`). */
export type Opened = Blob & ({ readonly stream: ByteStream } | { readonly url: string });

/** A blob as one repository sees it. */
export interface Blob {
  /** The SHA-256 under which the bytes are stored. */
  readonly canonical: Digest;
  /** In bytes. */
  readonly size: number;
}

/**
 * Blobs belong to repositories by links. The link decides, never the bytes alone: who may read one repository must not
 * learn of another's blobs by their digests. It is looked at on each request, since any process may have removed it.
 */
export class Blobs {
  /** Where a blob was last met: a hint for `sourceOf`, which looks there first. */
  private readonly seen = growingCache<Digest, string>(4_000);

  constructor(
    private readonly driver: StorageDriver,
    private readonly locks: Locks,
    private readonly leases: Leases,
    private readonly integrity: Integrity,
    private readonly quotas: Quotas,
    private readonly catalog: Catalog,
    private readonly immutable: ImmutableTags,
  ) {}

  /** @returns undefined where the repository has no such blob, or its bytes are gone, or known to be corrupt. */
  async find(repository: string, digest: Digest): Promise<Blob | undefined> {
    const canonical = await readLink(this.driver, layout.layerLink(repository, digest));
    return canonical && this.linked(repository, digest, canonical);
  }

  private async linked(repository: string, digest: Digest, canonical: Digest): Promise<Blob | undefined> {
    const info = await this.driver.stat(layout.blob(canonical), WHENEVER);
    if (!info || this.integrity.isCorrupt(layout.blob(canonical), info)) return undefined;
    this.seen.set(digest, repository);
    return { canonical, size: info.size };
  }

  /** As `find`, and what it finds stays for the grace: for answers on which a push goes on. */
  async hold(repository: string, digest: Digest): Promise<Blob | undefined> {
    const link = layout.layerLink(repository, digest);
    const canonical = await readLink(this.driver, link);
    if (!canonical) return undefined;
    const [linked, info] = await Promise.all([this.leases.renew(link), this.leases.renew(layout.blob(canonical))]);
    if (!linked || !info || this.integrity.isCorrupt(layout.blob(canonical), info)) return undefined;
    this.seen.set(digest, repository);
    return { canonical, size: info.size };
  }

  /** @throws RegistryError BLOB_UNKNOWN */
  async get(repository: string, digest: Digest): Promise<Blob> {
    return known(await this.find(repository, digest), digest);
  }

  /** As `get`, for a client that will not push what it hears is there. @throws RegistryError BLOB_UNKNOWN */
  async getHeld(repository: string, digest: Digest): Promise<Blob> {
    return known(await orUnheld(this.hold(repository, digest), () => this.find(repository, digest)), digest);
  }

  /**
   * The bytes, or the given range of them.
   * @throws RegistryError BLOB_UNKNOWN when they have just been removed, and from the stream before its last chunk where
   *   the whole is read and is corrupt
   */
  async read({ canonical, size }: Blob, range?: ByteRange): Promise<ByteStream> {
    const key = layout.blob(canonical);
    const stream = await this.driver.read(key, range);
    if (!stream) throw new RegistryError('BLOB_UNKNOWN');
    if (stream.info.size !== size) {
      await stream.return();
      throw new StorageError('unavailable', `${key} has changed its size from ${size} to ${stream.info.size}`);
    }
    const isWhole = range === undefined || (range.start === 0 && range.end >= size - 1);
    return isWhole ? this.integrity.checked(canonical, key, stream) : stream;
  }

  /** As `get`, and then `urlOf` or `read`, with a look less. @throws as both */
  async open(repository: string, digest: Digest): Promise<Opened> {
    const canonical = await readLink(this.driver, layout.layerLink(repository, digest));
    if (!canonical) throw unknown(digest);
    const url = await this.urlOf({ canonical });
    if (url !== undefined) return { ...known(await this.linked(repository, digest, canonical), digest), url };
    const key = layout.blob(canonical);
    const stream = await this.driver.read(key);
    if (!stream) throw unknown(digest);
    if (this.integrity.isCorrupt(key, stream.info)) {
      await stream.return();
      throw unknown(digest);
    }
    this.seen.set(digest, repository);
    return { canonical, size: stream.info.size, stream: this.integrity.checked(canonical, key, stream) };
  }

  /** A URL by which its bytes can be had elsewhere, unchecked, for some minutes: a secret. Undefined where that is not to be. */
  async urlOf({ canonical }: Pick<Blob, 'canonical'>): Promise<string | undefined> {
    return this.driver.readUrl?.(layout.blob(canonical));
  }

  /**
   * Makes stored bytes a blob of the repository, under their canonical digest and the one that the client used.
   * @param unsettled the keys of what has to be settled first: whoever sees the link relies on it
   */
  async link(repository: string, canonical: Digest, digest: Digest, unsettled: readonly string[] = []): Promise<void> {
    const names = digest === canonical ? [canonical] : [canonical, digest];
    const links = names.map(name => layout.layerLink(repository, name));
    if (unsettled.length > 0) await this.driver.settle?.(unsettled);
    await Promise.all(links.map(link => writeLink(this.driver, link, canonical, { settled: false })));
    await this.driver.settle?.(links);
    this.seen.set(digest, repository);
  }

  /**
   * Cross-repository mount (distribution-spec, "Mounting a blob from another repository").
   * @returns false where `from` has no such blob. Whether the caller may read `from` is the caller's question.
   * @throws RegistryError DENIED where the repository's quota does not hold it
   */
  async mount(repository: string, digest: Digest, from: string): Promise<boolean> {
    const blob = await this.hold(from, digest);
    if (!blob) return false;
    const { canonical, size } = blob;
    await this.quotas.within(repository, canonical, size, () => this.link(repository, canonical, digest));
    return true;
  }

  /**
   * Some repository that has the blob, for a mount that names none. No list says which have it, so the search is
   * bounded: where it was last met, then the first repositories of all.
   * @param visible whether the caller may pull from a repository: others are not even looked at, so that neither the
   *   answer nor its time tells of them
   */
  async sourceOf(digest: Digest, visible: (repository: string) => boolean): Promise<string | undefined> {
    const met = this.seen.get(digest);
    if (met !== undefined && visible(met) && (await this.find(met, digest))) return met;
    let looks = 0;
    for await (const name of this.catalog.names()) {
      if (visible(name) && (await this.find(name, digest))) return name;
      if (++looks === MOST_LOOKS) break;
    }
    return undefined;
  }

  /**
   * Takes a blob from a repository, under each of its digests, durably. The bytes stay, for other repositories may have
   * them: they are the collector's. @throws RegistryError BLOB_UNKNOWN; DENIED where an immutable tag needs it
   */
  async remove(repository: string, digest: Digest): Promise<void> {
    await this.locks.exclusive(repository, async () => {
      const linkOf = (name: Digest) => layout.layerLink(repository, name);
      const canonical = await readLink(this.driver, linkOf(digest));
      if (!canonical) throw unknown(digest);
      const names = await namesOf(this.driver, layout.layers(repository), linkOf, canonical);
      await this.immutable.checkContent(repository, names);
      await allDone(names.map(name => this.driver.removeAll(layout.layer(repository, name))));
    });
  }
}

function known(blob: Blob | undefined, digest: Digest): Blob {
  if (!blob) throw unknown(digest);
  return blob;
}

function unknown(digest: Digest): RegistryError {
  return new RegistryError('BLOB_UNKNOWN', { detail: { digest } });
}
