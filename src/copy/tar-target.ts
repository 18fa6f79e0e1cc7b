import { randomUUID } from 'node:crypto';
import { existsSync, rmSync } from 'node:fs';
import { type FileHandle, open, rename } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { OperatorError } from '../errors.js';
import { syncFolder } from '../folder.js';
import type { Digest } from '../reference.js';
import { type Descriptor, isManifest, readManifest } from '../store/manifest.js';
import { TarWriter } from '../tar.js';
import { dockerList, LIST } from './docker-list.js';
import { type Files, readSmall } from './files.js';
import { blobPath, INDEX, LayoutIndex, MARK, MARK_CONTENT } from './layout-index.js';
import { cannotWrite } from './layout-target.js';
import { dockerName } from './names.js';
import type { ImageTarget, OpenBlob, PlacedManifest } from './place.js';
import { HERE } from './platform.js';
import { readFrom, writeAll } from './spool.js';
import { TarFiles } from './tar-files.js';

/**
 * A tar archive that `docker load`, `podman load` and skopeo read: an image layout that lists its images for Docker as well.
 * It takes the place of the one that was there when it is whole, and has the images of that too.
 */
export class TarTarget implements ImageTarget {
  #part: Part | undefined;
  #last: Promise<unknown> = Promise.resolve();

  private constructor(
    readonly name: string,
    private before: TarFiles | undefined,
    private readonly index: LayoutIndex,
  ) {}

  /** @param own the repository of entries that have a mere tag @throws OperatorError where there is another kind of file */
  static async open(path: string, own: string): Promise<TarTarget> {
    if (!existsSync(path)) return new TarTarget(path, undefined, LayoutIndex.empty(path, own));
    const before = await TarFiles.open(path);
    const index = await LayoutIndex.read(before, own);
    if (index) return new TarTarget(path, before, index);
    await before.close();
    throw new OperatorError(`${path} is an archive of another kind, and cannot be added to`, {
      fix: 'name another file, or remove this one',
    });
  }

  async close(): Promise<void> {
    await this.#last;
    await this.#part?.file.close();
    this.discard();
    await this.before?.close();
  }

  /** Removes what is not finished. */
  discard(): void {
    if (this.#part) rmSync(this.#part.path, { force: true });
    this.#part = undefined;
  }

  async resolve(repository: string, tag: string): Promise<Digest | undefined> {
    return this.index.shelf.find(repository, tag);
  }

  async hasManifest(_repository: string, digest: Digest, { isPart }: { isPart: boolean }): Promise<boolean> {
    if (!isPart) return this.index.entryOf(digest) !== undefined;
    return (await this.#files.sizeOf(blobPath(digest))) !== undefined;
  }

  async hasBlob(_repository: string, { digest, size }: Descriptor): Promise<boolean> {
    return (await this.#files.sizeOf(blobPath(digest))) === size;
  }

  async mount(): Promise<boolean> {
    return false;
  }

  putBlob(_repository: string, { digest, size }: Descriptor, open: OpenBlob): Promise<void> {
    return this.#add(blobPath(digest), size, () => open(0));
  }

  async putManifest(
    repository: string,
    manifest: PlacedManifest,
    tag: string | undefined,
    { isPart }: { isPart: boolean },
  ): Promise<void> {
    const { digest, data } = manifest;
    await this.#add(blobPath(digest), data.length, () => [data]);
    const name = tag === undefined ? undefined : { repository, tag };
    if (!isPart) this.index.put(manifest, name, name && dockerName(name));
  }

  /** Whatever is in either archive. */
  get #files(): Files {
    const part = this.#part;
    const { name, before } = this;
    return {
      name,
      sizeOf: async path => part?.extents.get(path)?.size ?? before?.sizeOf(path),
      open: (path, start) => {
        const extent = part?.extents.get(path);
        if (extent) return readFrom(part!.file, extent.offset + start, extent.offset + extent.size);
        if (before) return before.open(path, start);
        throw new OperatorError(`${name} has no ${path}`);
      },
      close: async () => {},
    };
  }

  /** An archive takes one file after the other. */
  #add(path: string, size: number, open: () => AsyncIterable<Uint8Array> | Iterable<Uint8Array>): Promise<void> {
    const done = this.#last.then(async () => {
      if (this.#part?.extents.has(path)) return;
      this.#part ??= await Part.create(this.name);
      await this.#part.add(path, size, open());
    });
    this.#last = done.catch(() => undefined);
    return done;
  }

  async finish(): Promise<void> {
    if (!this.#part) return;
    for (const { digest } of this.index.entries) await this.#takeOver(digest);
    const list = await dockerList(this.#files, this.index, HERE);
    for (const [path, data] of [
      [MARK, MARK_CONTENT],
      [INDEX, this.index.toJson()],
      [LIST, list],
    ] as const)
      await this.#add(path, data.length, () => [data]);
    await this.#part.end(this.name);
    this.#part = undefined;
    await this.before?.close();
    this.before = await TarFiles.open(this.name);
  }

  /** What is only in the archive that was there goes into the new one, as far as an image that stays needs it. */
  async #takeOver(digest: Digest, seen = new Set<Digest>()): Promise<void> {
    const path = blobPath(digest);
    if (seen.has(digest) || !this.before) return;
    seen.add(digest);
    const data = await readSmall(this.#files, path);
    if (!data) return;
    const manifest = readManifest(data);
    for (const child of [...(manifest?.manifests ?? []), ...(manifest?.blobs ?? [])])
      if (isManifest(child.mediaType)) await this.#takeOver(child.digest, seen);
      else await this.#carry(blobPath(child.digest));
    await this.#carry(path);
  }

  async #carry(path: string): Promise<void> {
    const size = await this.before?.sizeOf(path);
    if (size !== undefined) await this.#add(path, size, () => this.before!.open(path, 0));
  }
}

/** The archive that is being written, beside the one that it will replace. */
class Part {
  readonly extents = new Map<string, { readonly offset: number; readonly size: number }>();
  #position = 0;
  readonly #tar: TarWriter;

  private constructor(
    readonly path: string,
    readonly file: FileHandle,
  ) {
    this.#tar = new TarWriter(
      async chunk => {
        await writeAll(file, chunk, this.#position).catch(error => {
          throw cannotWrite(path, error);
        });
        this.#position += chunk.length;
      },
      { fillUp: false },
    );
  }

  static async create(path: string): Promise<Part> {
    const part = join(dirname(path), `.${basename(path)}.${randomUUID()}.part`);
    // Images may be private.
    const file = await open(part, 'wx+', 0o600).catch(error => {
      throw cannotWrite(path, error);
    });
    return new Part(part, file);
  }

  async add(path: string, size: number, body: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): Promise<void> {
    const start = this.#position;
    let offset = start;
    const { file } = this;
    const counted = async function* (this: Part): AsyncGenerator<Uint8Array> {
      offset = this.#position;
      yield* body;
    }.bind(this);
    try {
      await this.#tar.add(path, size, new Date(), counted());
      this.extents.set(path, { offset, size });
    } catch (error) {
      // As if it had never begun.
      this.#position = start;
      await file.truncate(start);
      throw error;
    }
  }

  async end(path: string): Promise<void> {
    await this.#tar.end();
    await this.file.sync();
    await this.file.close();
    await rename(this.path, path);
    await syncFolder(dirname(path));
  }
}
