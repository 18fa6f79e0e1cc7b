import { RegistryError } from '../errors.js';
import type { ByteRange, Digest } from '../reference.js';
import type { ByteStream, StorageDriver } from '../storage/driver.js';
import { layout } from './layout.js';
import { namesOf, readLink, writeLink } from './links.js';
import type { Locks } from './locks.js';

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
  constructor(
    private readonly driver: StorageDriver,
    private readonly locks: Locks,
  ) {}

  /** @returns undefined where the repository has no such blob, or its bytes are gone. */
  async find(repository: string, digest: Digest): Promise<Blob | undefined> {
    const canonical = await readLink(this.driver, layout.layerLink(repository, digest));
    if (!canonical) return undefined;
    const info = await this.driver.stat(layout.blob(canonical));
    return info && { canonical, size: info.size };
  }

  /** @throws RegistryError BLOB_UNKNOWN */
  async get(repository: string, digest: Digest): Promise<Blob> {
    const blob = await this.find(repository, digest);
    if (!blob) throw new RegistryError('BLOB_UNKNOWN', { detail: { digest } });
    return blob;
  }

  /** The bytes, or the given range of them. @throws RegistryError BLOB_UNKNOWN when they have just been removed. */
  async read(blob: Blob, range?: ByteRange): Promise<ByteStream> {
    const stream = await this.driver.read(layout.blob(blob.canonical), range);
    if (!stream) throw new RegistryError('BLOB_UNKNOWN');
    return stream;
  }

  /** Makes stored bytes a blob of the repository, under their canonical digest and the one that the client used. */
  async link(repository: string, canonical: Digest, digest: Digest): Promise<void> {
    const names = digest === canonical ? [canonical] : [canonical, digest];
    await Promise.all(names.map(name => writeLink(this.driver, layout.layerLink(repository, name), canonical)));
  }

  /**
   * Cross-repository mount (distribution-spec, "Mounting a blob from another repository").
   * @returns false where `from` has no such blob. Whether the caller may read `from` is the caller's question.
   */
  async mount(repository: string, digest: Digest, from: string): Promise<boolean> {
    const blob = await this.find(from, digest);
    if (!blob) return false;
    await this.link(repository, blob.canonical, digest);
    return true;
  }

  /**
   * Takes a blob from a repository, under each of its digests, durably. The bytes stay, for other repositories may have
   * them: they are the collector's. @throws RegistryError BLOB_UNKNOWN
   */
  async remove(repository: string, digest: Digest): Promise<void> {
    await this.locks.exclusive(repository, async () => {
      const linkOf = (name: Digest) => layout.layerLink(repository, name);
      const canonical = await readLink(this.driver, linkOf(digest));
      if (!canonical) throw new RegistryError('BLOB_UNKNOWN', { detail: { digest } });
      const names = await namesOf(this.driver, layout.layers(repository), linkOf, canonical);
      await Promise.all(names.map(name => this.driver.removeAll(layout.layer(repository, name))));
    });
  }
}
