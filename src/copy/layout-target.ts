import { randomUUID } from 'node:crypto';
import { rmSync } from 'node:fs';
import { mkdir, open, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { OperatorError, systemCode } from '../errors.js';
import { makeFolders, syncFolder } from '../folder.js';
import { withLock } from '../lock.js';
import type { Digest } from '../reference.js';
import type { Descriptor } from '../store/manifest.js';
import { FolderFiles } from './files.js';
import { blobPath, INDEX, LayoutIndex, MARK, MARK_CONTENT } from './layout-index.js';
import type { ImageTarget, OpenBlob, PlacedManifest } from './place.js';
import { writeAll } from './spool.js';

/** A folder that is, or becomes, an image layout (image-spec, image-layout.md). */
export class LayoutTarget implements ImageTarget {
  /** Files that are being written. */
  readonly #parts = new Set<string>();

  private constructor(
    private readonly files: FolderFiles,
    private readonly own: string,
    private index: LayoutIndex,
  ) {}

  /** Makes nothing yet. @param own the repository of entries that have a mere tag */
  static async open(folder: string, own: string): Promise<LayoutTarget> {
    const files = new FolderFiles(folder);
    return new LayoutTarget(files, own, (await LayoutIndex.read(files, own)) ?? LayoutIndex.empty(folder, own));
  }

  get name(): string {
    return this.files.name;
  }

  async close(): Promise<void> {}

  /** Removes what is not finished. */
  discard(): void {
    for (const part of this.#parts) rmSync(part, { force: true });
  }

  async resolve(repository: string, tag: string): Promise<Digest | undefined> {
    return this.index.shelf.find(repository, tag);
  }

  async hasManifest(_repository: string, digest: Digest, { isPart }: { isPart: boolean }): Promise<boolean> {
    if (!isPart) return this.index.entryOf(digest) !== undefined;
    return (await this.files.sizeOf(blobPath(digest))) !== undefined;
  }

  async hasBlob(_repository: string, { digest, size }: Descriptor): Promise<boolean> {
    return (await this.files.sizeOf(blobPath(digest))) === size;
  }

  async mount(): Promise<boolean> {
    return false;
  }

  putBlob(_repository: string, { digest }: Descriptor, open: OpenBlob): Promise<void> {
    return this.#write(blobPath(digest), open(0));
  }

  async putManifest(
    repository: string,
    manifest: PlacedManifest,
    tag: string | undefined,
    { isPart }: { isPart: boolean },
  ): Promise<void> {
    await this.#write(blobPath(manifest.digest), [manifest.data]);
    if (isPart) return;
    // Others may add images at the same time.
    await withLock(join(this.name, `${INDEX}.lock`), async () => {
      const index = (await LayoutIndex.read(this.files, this.own)) ?? LayoutIndex.empty(this.name, this.own);
      if (index.put(manifest, tag === undefined ? undefined : { repository, tag })) {
        await this.#write(MARK, [MARK_CONTENT]);
        await this.#write(INDEX, [index.toJson()]);
      }
      this.index = index;
    });
  }

  /** The file appears when it is whole and on the disk. */
  async #write(path: string, chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): Promise<void> {
    const whole = join(this.name, path);
    const part = join(dirname(whole), `.${randomUUID()}.part`);
    this.#parts.add(part);
    const done = async (): Promise<void> => {
      // Images may be private: nobody else is to look into a new layout.
      await makeFolders(this.name, 0o700);
      await mkdir(dirname(whole), { recursive: true });
      const file = await open(part, 'wx');
      try {
        let at = 0;
        for await (const chunk of chunks) {
          await writeAll(file, chunk, at);
          at += chunk.length;
        }
        await file.sync();
      } finally {
        await file.close();
      }
      await rename(part, whole);
      await syncFolder(dirname(whole));
    };
    try {
      await done();
    } catch (error) {
      await rm(part, { force: true });
      throw cannotWrite(whole, error);
    } finally {
      this.#parts.delete(part);
    }
  }
}

/** What a failing write means, where it was one; else the failure itself. */
export function cannotWrite(path: string, error: unknown): unknown {
  if ((error as NodeJS.ErrnoException).syscall === undefined || error instanceof OperatorError) return error;
  return new OperatorError(`${path} cannot be written (${systemCode(error)})`, {
    fix: `check the folder and the space there: df -h ${dirname(path)}`,
    cause: error,
  });
}
