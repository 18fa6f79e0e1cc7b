import { createHash } from 'node:crypto';
import { type Digest, hexOf, isDigest } from '../reference.js';
import type { StorageDriver } from '../storage/driver.js';
import { readTar, type TarEntry, type TarWriter } from '../tar.js';
import { asBroken, BrokenImage, type CopyTarget } from './copy.js';
import type { FolderTarget } from './copy-folder.js';
import { layout, type Place, placeOf } from './layout.js';

/** Links and notes are far smaller. */
const LARGEST_SMALL = 1024 * 1024;

/** Writes images into an archive that is a volume, file by file: who unpacks it can serve it. */
export class ArchiveTarget implements CopyTarget {
  readonly report = { blobs: 0, bytes: 0, tags: 0 };
  /** Each blob is in the archive once. Whether it was whole is known when its entry is written. */
  private readonly blobs = new Map<string, Promise<void>>();
  private last: Promise<unknown> = Promise.resolve();

  /** @param onBytes told of what was read, for the progress */
  constructor(
    private readonly tar: TarWriter,
    private readonly onBytes: (bytes: number) => void,
  ) {}

  blob(source: StorageDriver, digest: Digest): Promise<void> {
    const name = Buffer.from(hexOf(digest), 'hex').toString('latin1');
    const written = this.blobs.get(name) ?? this.inTurn(() => this.addBlob(source, digest));
    this.blobs.set(name, written);
    return written;
  }

  private async addBlob(source: StorageDriver, digest: Digest): Promise<void> {
    const stream = await source.read(layout.blob(digest));
    if (!stream) throw new BrokenImage(`lacks ${digest}`);
    const { size, modified } = stream.info;
    const hash = createHash('sha256');
    const { onBytes } = this;
    async function* hashed(): AsyncGenerator<Buffer> {
      for await (const chunk of stream!) {
        hash.update(chunk);
        yield chunk;
        onBytes(chunk.length);
      }
    }
    await this.tar.add(layout.blob(digest), size, modified, hashed()).catch(error => {
      throw asBroken(digest, error);
    });
    if (hash.digest('hex') !== hexOf(digest)) throw new BrokenImage(`is broken: ${digest} is corrupt`);
    this.report.blobs += 1;
    this.report.bytes += size;
  }

  link(key: string, canonical: Digest): Promise<void> {
    return this.small(key, Buffer.from(canonical, 'latin1'));
  }

  note(key: string, data: Buffer): Promise<void> {
    return this.small(key, data);
  }

  async tag(repository: string, tag: string, digest: Digest): Promise<void> {
    await this.link(layout.tagIndexLink(repository, tag, digest), digest);
    await this.link(layout.tagLink(repository, tag), digest);
    this.report.tags += 1;
  }

  private small(key: string, data: Buffer): Promise<void> {
    async function* body(): AsyncGenerator<Buffer> {
      yield data;
    }
    return this.inTurn(() => this.tar.add(key, data.length, new Date(), body()));
  }

  /** An archive takes one file after the other. */
  private inTurn(task: () => Promise<void>): Promise<void> {
    const done = this.last.then(task);
    this.last = done.catch(() => undefined);
    return done;
  }
}

/**
 * Copies the images of an archive into a volume. The archive may come from anywhere: only keys of images count, bytes
 * must be what their names say, and nothing is linked before what it leads to is there.
 * @param onProblem told of what cannot be restored, a line each
 * @throws OperatorError where the archive ends early, or is none
 */
export async function restoreArchive(
  archive: AsyncIterable<Buffer>,
  target: FolderTarget,
  onProblem: (message: string) => void,
): Promise<void> {
  const waiting: Link[] = [];
  for await (const entry of readTar(archive)) {
    const place = placeOf(entry.name);
    if (!place) continue;
    if (place.kind === 'blob')
      await target.bytes(place.digest, entry.size, entry.body).catch(error => {
        if (!(error instanceof BrokenImage)) throw error;
        onProblem(`the archive ${error.message}`);
      });
    else if (place.kind === 'record' || place.kind === 'referrer') {
      const data = await smallOf(entry);
      if (isJson(data)) await target.note(entry.name, data);
    } else {
      const digest = (await smallOf(entry)).toString('latin1').trim();
      const isRight = isDigest(digest) && (place.kind === 'tag' || agree(place.digest, digest));
      if (!isRight) onProblem(`${entry.name} in the archive holds no digest that fits`);
      else if (!(await restoreLink(target, { key: entry.name, place, digest })))
        waiting.push({ key: entry.name, place, digest });
    }
  }
  // In an archive of ours everything comes before what refers to it; who packs a volume by hand has another order.
  const order = ['layer', 'revision', 'tag'];
  waiting.sort((one, other) => order.indexOf(one.place.kind) - order.indexOf(other.place.kind));
  for (const link of waiting)
    if (!(await restoreLink(target, link))) onProblem(`${nameOf(link)} is left out: the archive lacks ${link.digest}`);
}

interface Link {
  readonly key: string;
  readonly place: Extract<Place, { kind: 'layer' | 'revision' | 'tag' }>;
  /** What it leads to. */
  readonly digest: Digest;
}

/** @returns false while what it leads to is not there */
async function restoreLink(target: FolderTarget, { key, place, digest }: Link): Promise<boolean> {
  const { kind, repository } = place;
  if (!(await target.isThere(kind === 'tag' ? layout.revisionLink(repository, digest) : layout.blob(digest))))
    return false;
  await (kind === 'tag' ? target.tag(repository, place.tag, digest) : target.link(key, digest));
  return true;
}

function nameOf({ place, digest }: Link): string {
  return place.kind === 'tag' ? `${place.repository}:${place.tag}` : `${place.repository}@${digest}`;
}

/** A link by its canonical name leads to just that; one of another algorithm to a canonical one. */
function agree(name: Digest, target: Digest): boolean {
  return target.startsWith('sha256:') && (name === target || !name.startsWith('sha256:'));
}

async function smallOf({ size, body }: TarEntry): Promise<Buffer> {
  const chunks: Buffer[] = [];
  if (size > LARGEST_SMALL) return Buffer.alloc(0);
  for await (const chunk of body) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks);
}

function isJson(data: Buffer): boolean {
  try {
    return typeof JSON.parse(data.toString('utf8')) === 'object';
  } catch {
    return false;
  }
}
