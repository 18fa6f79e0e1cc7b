import { createHash, randomUUID } from 'node:crypto';
import { OperatorError } from '../errors.js';
import type { Digest } from '../reference.js';
import type { ByteStream, StorageDriver } from '../storage/driver.js';
import { inBatches } from './batches.js';
import { everyRepository } from './collector.js';
import { asBroken, BrokenImage, type CopyTarget, type Reached } from './copy.js';
import { DigestSet } from './digest-set.js';
import { layout } from './layout.js';
import { digestsIn, readLink, writeLink } from './links.js';

export interface FolderOptions {
  /**
   * `mirror`: in the end it has what the source has, and nothing else. `add`: what is there stays, also a tag on another
   * image. `overwrite`: as `add`, but tags move.
   */
  readonly mode: 'mirror' | 'add' | 'overwrite';
  /** Whether bytes may be shared with the source where that can be done. */
  readonly share: boolean;
  readonly dryRun?: boolean;
  /** Told of bytes that were read or need not be, for the progress. */
  readonly onBytes?: (bytes: number) => void;
}

/** What became of it; of a dry run, what would have. */
export interface FolderReport {
  readonly blobs: { copied: number; shared: number; kept: number; removed: number };
  /** That were copied or shared. */
  bytes: number;
  readonly tags: { written: number; same: number; removed: number };
  /** Tags that point at another image than in the source, and were left so. */
  readonly keptTags: Array<{ readonly repository: string; readonly tag: string; here: Digest; there: Digest }>;
}

/** Copies images into a volume, durably and so that any beginning of the copy is a volume of whole images. */
export class FolderTarget implements CopyTarget {
  readonly report: FolderReport = {
    blobs: { copied: 0, shared: 0, kept: 0, removed: 0 },
    bytes: 0,
    tags: { written: 0, same: 0, removed: 0 },
    keptTags: [],
  };
  private readonly running = new Map<Digest, Promise<void>>();
  private readonly repositories = new Set<string>();
  private readonly needed = new DigestSet();
  private whole = true;
  /** In a dry run, what would be there. */
  private readonly pretended = new Set<string>();

  constructor(
    private readonly driver: StorageDriver,
    private readonly options: FolderOptions,
  ) {}

  async blob(source: StorageDriver, digest: Digest, size: number): Promise<void> {
    // Several repositories may have it.
    const running = this.running.get(digest) ?? this.take(digest, size, () => this.copyFrom(source, digest));
    this.running.set(digest, running);
    await running.finally(() => this.running.delete(digest));
  }

  /** The same from a stream, which is read only where the blob is not here already. @throws BrokenImage */
  async bytes(digest: Digest, size: number, stream: AsyncIterable<Buffer>): Promise<void> {
    await this.take(digest, size, () => this.copyBytes(digest, stream));
  }

  private async take(digest: Digest, size: number, copy: () => Promise<'copied' | 'shared'>): Promise<void> {
    const key = layout.blob(digest);
    this.needed.add(digest);
    if (await this.has(key, size)) {
      this.report.blobs.kept += 1;
      return;
    }
    const how = this.options.dryRun ? 'copied' : await copy();
    if (this.options.dryRun) this.pretended.add(key);
    this.report.blobs[how] += 1;
    this.report.bytes += size;
  }

  /** What is there already, a collector leaves alone from now on; but for a mirror, where there is none. */
  private async has(key: string, size?: number): Promise<boolean> {
    if (this.pretended.has(key)) return true;
    const info = await this.driver.stat(key);
    if (!info || (size !== undefined && info.size !== size)) return false;
    return this.options.mode === 'mirror' || this.options.dryRun || this.driver.touch(key);
  }

  private async copyFrom(source: StorageDriver, digest: Digest): Promise<'copied' | 'shared'> {
    const key = layout.blob(digest);
    const check = (bytes: ByteStream) => this.check(digest, bytes, () => undefined);
    if (this.options.share && (await this.driver.share?.(source, key, check))) return 'shared';
    const stream = await source.read(key);
    if (!stream) throw new BrokenImage(`lacks ${digest}`);
    return this.copyBytes(digest, stream);
  }

  private async copyBytes(digest: Digest, stream: AsyncIterable<Buffer>): Promise<'copied'> {
    const part = layout.part(randomUUID());
    const writer = await this.driver.createSegment(part);
    try {
      await this.check(digest, stream, chunk => writer.write(chunk));
      await writer.close();
      await this.driver.assemble([part], layout.blob(digest));
    } finally {
      await writer.abort();
    }
    return 'copied';
  }

  /** @throws BrokenImage for bytes that cannot be read, or are not what the digest says */
  private async check(
    digest: Digest,
    stream: AsyncIterable<Buffer> | ByteStream,
    take: (chunk: Buffer) => Promise<void> | undefined,
  ): Promise<void> {
    const hash = createHash('sha256');
    const iterator = stream[Symbol.asyncIterator]();
    try {
      for (;;) {
        const { done, value } = await iterator.next().catch(error => {
          throw asBroken(digest, error);
        });
        if (done) break;
        hash.update(value);
        const pressure = take(value);
        if (pressure) await pressure;
        this.options.onBytes?.(value.length);
      }
    } finally {
      await iterator.return?.();
    }
    if (`sha256:${hash.digest('hex')}` !== digest) throw new BrokenImage(`is broken: ${digest} is corrupt`);
  }

  async link(key: string, canonical: Digest): Promise<void> {
    if ((await readLink(this.driver, key)) === canonical && (await this.has(key))) return;
    if (this.options.dryRun) this.pretended.add(key);
    else await writeLink(this.driver, key, canonical);
  }

  /** Whether something is here, or in a dry run would be. */
  async isThere(key: string): Promise<boolean> {
    return this.pretended.has(key) || (await this.driver.stat(key)) !== undefined;
  }

  async note(key: string, data: Buffer): Promise<void> {
    const present = await this.driver.get(key);
    if (this.options.dryRun || (present && (this.options.mode !== 'mirror' || present.equals(data)))) return;
    await this.driver.write(key, data);
  }

  async tag(repository: string, tag: string, digest: Digest): Promise<void> {
    const { report, driver, options } = this;
    const key = layout.tagLink(repository, tag);
    const here = await readLink(driver, key);
    if (here === digest) {
      report.tags.same += 1;
      return;
    }
    if (here && options.mode === 'add') {
      report.keptTags.push({ repository, tag, here, there: digest });
      return;
    }
    report.tags.written += 1;
    if (options.dryRun) return;
    // A tag that moves is lost as well.
    if (here && options.mode === 'mirror') await checkStillMirror(driver);
    await writeLink(driver, layout.tagIndexLink(repository, tag, digest), digest);
    await writeLink(driver, key, digest);
  }

  async done(repository: string, reached: Reached, whole: boolean): Promise<void> {
    this.repositories.add(repository);
    if (!whole) this.whole = false;
    if (this.options.mode !== 'mirror' || !whole) return;
    const { driver } = this;
    const removeAll = async (folder: string, of: (digest: Digest) => string, kept: ReadonlySet<Digest>) => {
      const stale = (await digestsIn(driver, folder)).filter(digest => !kept.has(digest));
      if (stale.length > 0) await checkStillMirror(driver);
      await inBatches(stale, digest => driver.removeAll(of(digest)));
    };
    const tags = (await driver.list(layout.tags(repository))).filter(({ name }) => !reached.tags.has(name));
    this.report.tags.removed += tags.length;
    if (this.options.dryRun) return;
    if (tags.length > 0) await checkStillMirror(driver);
    await inBatches(tags, ({ name }) => driver.removeAll(layout.tag(repository, name)));
    // One that was deleted and made anew has another past.
    await inBatches([...(reached.past ?? [])], ([tag, past]) =>
      removeAll(layout.tagIndex(repository, tag), digest => layout.tagIndexEntry(repository, tag, digest), past),
    );
    await removeAll(layout.revisions(repository), digest => layout.revision(repository, digest), reached.manifests);
    await removeAll(layout.layers(repository), digest => layout.layer(repository, digest), reached.layers);
    const notes = await digestsIn(driver, layout.records(repository));
    await checkStillMirror(driver);
    for (const subject of await digestsIn(driver, layout.subjects(repository)))
      for (const digest of await digestsIn(driver, layout.referrers(repository, subject)))
        if (!reached.notes.has(layout.referrer(repository, subject, digest)))
          await driver.remove(layout.referrer(repository, subject, digest));
    for (const digest of notes)
      if (!reached.notes.has(layout.record(repository, digest))) await driver.remove(layout.record(repository, digest));
  }

  /** Of a mirror: removes what the source does not have any more. Nothing, where the source could not be read as a whole. */
  async prune(): Promise<void> {
    if (!this.whole) return;
    const { driver } = this;
    const { dryRun } = this.options;
    for await (const { name, parts } of everyRepository(driver))
      if (!this.repositories.has(name)) {
        this.report.tags.removed += (await driver.list(layout.tags(name))).length;
        if (dryRun) continue;
        await checkStillMirror(driver);
        // In the order in which nothing is left that points at nothing.
        await driver.removeAll(layout.tags(name));
        for (const part of parts) await driver.removeAll(`${layout.repository(name)}/${part}`);
        await driver.removeEmptyFolders(layout.repository(name));
      }
    for (const { name } of await driver.list(layout.blobs)) {
      const blobs = await driver.list(`${layout.blobs}/${name}`);
      const stale = blobs.filter(blob => !this.needed.has(`sha256:${blob.name}`));
      this.report.blobs.removed += stale.length;
      if (dryRun || stale.length === 0) continue;
      await checkStillMirror(driver);
      await inBatches(stale, blob => driver.removeAll(`${layout.blobs}/${name}/${blob.name}`));
    }
  }
}

/** Who begins to serve a place, or to write to it, takes its mark away, also from under what is running. @throws OperatorError */
export async function checkStillMirror(place: StorageDriver): Promise<void> {
  if (await place.stat(layout.backup)) return;
  throw new OperatorError('the target has been served or written to since this began, and nothing is removed there', {
    fix: 'where that was a mistake, end what serves it, and run this again into an empty place',
  });
}
