import { randomUUID } from 'node:crypto';
import { rmSync } from 'node:fs';
import { type FileHandle, open, rename, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { OperatorError, systemCode } from '../errors.js';
import { syncFolder } from '../folder.js';
import { withLock } from '../lock.js';
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
import { wasMadeBySave } from './tar-source.js';

/**
 * A tar archive that `docker load`, `podman load` and skopeo read: an image layout that lists its images for Docker as well.
 * It takes the place of the one that was there when it is whole, and has the images of that too.
 */
export class TarTarget implements ImageTarget {
  #part: Part | undefined;
  #last: Promise<unknown> = Promise.resolve();
  /** Whether there is an image that the archive did not have. */
  #isNew = false;

  private constructor(
    readonly name: string,
    private readonly own: string,
    private archive: Archive,
  ) {}

  /** @param own the repository of entries that have a mere tag @throws OperatorError where there is another kind of file */
  static async open(path: string, own: string): Promise<TarTarget> {
    return new TarTarget(path, own, await readArchive(path, own));
  }

  private get before(): TarFiles | undefined {
    return this.archive.files;
  }

  private get index(): LayoutIndex {
    return this.archive.index;
  }

  async close(): Promise<void> {
    await this.#last;
    await this.#drop();
    await this.before?.close();
  }

  async #drop(): Promise<void> {
    await this.#part?.file.close();
    this.discard();
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
    if (isPart) return;
    this.index.put(manifest, name, name && dockerName(name));
    this.#isNew = true;
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
    // Of images that have failed there may be bytes, which another round may need.
    if (!this.#part || !this.#isNew) return;
    try {
      await this.#replace(this.#part);
    } finally {
      // Where it has failed, all begins anew.
      await this.#drop();
      this.#isNew = false;
      await this.#reopen();
    }
  }

  async #replace(part: Part): Promise<void> {
    for (const { digest } of this.index.entries) await this.#takeOver(digest);
    const list = await dockerList(this.#files, this.index, HERE);
    for (const [path, data] of [
      [MARK, MARK_CONTENT],
      [INDEX, this.index.toJson()],
      [LIST, list],
    ] as const)
      await this.#add(path, data.length, () => [data]);
    await part.seal();
    const lock = join(dirname(this.name), `.${basename(this.name)}.lock`);
    await withLock(lock, async () => {
      if ((await identityOf(this.name)) !== this.archive.identity)
        throw new OperatorError(
          `${this.name} has been written by another meanwhile, and would lose what that has added`,
          {
            fix: 'run this again',
          },
        );
      await part.moveTo(this.name);
    });
  }

  async #reopen(): Promise<void> {
    const archive = await readArchive(this.name, this.own);
    await this.before?.close();
    this.archive = archive;
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

/** What is there before anything is added. */
interface Archive {
  /** Which file it is, and as of when; undefined where there is none. */
  readonly identity: string | undefined;
  readonly files: TarFiles | undefined;
  readonly index: LayoutIndex;
}

async function readArchive(path: string, own: string): Promise<Archive> {
  const identity = await identityOf(path);
  if (identity === undefined) return { identity, files: undefined, index: LayoutIndex.empty(path, own) };
  const files = await TarFiles.open(path);
  try {
    const index = await LayoutIndex.read(files, own);
    if (!index)
      throw new OperatorError(`${path} is an archive of another kind, and cannot be added to`, {
        fix: 'name another file, or remove this one',
      });
    // Its images get other manifests when they are read, and so would those that are added, whose digests are known.
    if (await wasMadeBySave(files, index))
      throw new OperatorError(`${path} was made by docker save, and cannot be added to`, {
        fix: `copy its images to a new one: registry-secure copy ${path} NEW.tar --all`,
      });
    return { identity, files, index };
  } catch (error) {
    await files.close();
    throw error;
  }
}

async function identityOf(path: string): Promise<string | undefined> {
  try {
    const { dev, ino, size, mtimeNs } = await stat(path, { bigint: true });
    return [dev, ino, size, mtimeNs].join();
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined;
    throw new OperatorError(`${path} cannot be read (${systemCode(error)})`, { cause: error });
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

  /** Ends it, and has it on the disk. */
  async seal(): Promise<void> {
    await this.#tar.end();
    try {
      await this.file.sync();
    } catch (error) {
      throw cannotWrite(this.path, error);
    }
  }

  async moveTo(path: string): Promise<void> {
    try {
      await rename(this.path, path);
      await syncFolder(dirname(path));
    } catch (error) {
      throw cannotWrite(path, error);
    }
  }
}
