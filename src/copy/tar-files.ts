import { type FileHandle, open } from 'node:fs/promises';
import { dirname, normalize } from 'node:path/posix';
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import { OperatorError, systemCode } from '../errors.js';
import { readTar, type TarLink } from '../tar.js';
import type { Files } from './files.js';
import { readFrom, Spool } from './spool.js';

/** Of one archive: far above what any image has. */
const MOST_ENTRIES = 500_000;
/** How many links may lead to one another. */
const MOST_LINKS = 8;

interface Extent {
  readonly offset: number;
  readonly size: number;
}

/** The files of a tar archive, read where they lie: its headers are read once, and nothing is unpacked. */
export class TarFiles implements Files {
  private constructor(
    readonly name: string,
    private readonly file: FileHandle,
    private readonly extents: ReadonlyMap<string, Extent>,
    private readonly links: ReadonlyMap<string, string>,
  ) {}

  /** An archive, which may be compressed by gzip. @throws OperatorError with the fix */
  static async open(path: string): Promise<TarFiles> {
    const file = await open(path, 'r').catch(cause => {
      throw new OperatorError(
        systemCode(cause) === 'ENOENT' ? `there is no ${path}` : `${path} cannot be read (${systemCode(cause)})`,
        { cause },
      );
    });
    try {
      const { buffer, bytesRead } = await file.read(Buffer.alloc(2), 0, 2, 0);
      if (bytesRead < 2 || buffer.readUInt16BE() !== GZIP) return await TarFiles.of(path, file);
      const spool = await unpacked(path, file);
      await file.close();
      return await TarFiles.of(path, spool.file);
    } catch (error) {
      await file.close().catch(() => undefined);
      throw error;
    }
  }

  /** @param file closed with this, or where it is no archive @param name for people */
  static async of(name: string, file: FileHandle): Promise<TarFiles> {
    const extents = new Map<string, Extent>();
    const links = new Map<string, string>();
    const within = (path: string): string => {
      const plain = normalize(path);
      if (!plain.startsWith('/') && plain !== '..' && !plain.startsWith('../')) return plain;
      throw new OperatorError(`${name} names a file outside of it, ${JSON.stringify(path.slice(0, 200))}`, {
        fix: 'do not trust where it comes from, and save the image again',
      });
    };
    const onLink = (link: TarLink) => {
      links.set(within(link.name), link.symbolic ? `${dirname(within(link.name))}/${link.target}` : link.target);
      bounded();
    };
    const bounded = () => {
      if (extents.size + links.size > MOST_ENTRIES)
        throw new OperatorError(`${name} has more than ${MOST_ENTRIES} files`, { fix: 'this is no archive of images' });
    };
    try {
      for await (const entry of readTar(readFrom(file, 0), onLink)) {
        extents.set(within(entry.name), { offset: entry.offset, size: entry.size });
        bounded();
      }
      // Only those that lead to a file of the archive can be asked for; where others lead is wrong all the same.
      for (const target of links.values()) within(target);
    } catch (error) {
      await file.close();
      if (!(error instanceof OperatorError) || error.message.startsWith(name)) throw error;
      throw new OperatorError(`${name}: ${error.message}`, {
        ...(error.fix !== undefined && { fix: error.fix }),
        cause: error,
      });
    }
    return new TarFiles(name, file, extents, links);
  }

  async sizeOf(path: string): Promise<number | undefined> {
    return this.#extentOf(path)?.size;
  }

  async *open(path: string, start: number): AsyncGenerator<Buffer> {
    const extent = this.#extentOf(path);
    if (!extent) throw new OperatorError(`${this.name} has no ${path}`, { fix: 'save the image again' });
    const end = extent.offset + extent.size;
    yield* readFrom(this.file, extent.offset + start, end);
  }

  #extentOf(path: string): Extent | undefined {
    let at = normalize(path);
    for (let hops = 0; hops <= MOST_LINKS; hops++) {
      const extent = this.extents.get(at);
      if (extent) return extent;
      const target = this.links.get(at);
      if (target === undefined) return undefined;
      at = normalize(target);
    }
    throw new OperatorError(`${this.name}: its links lead round in a circle at ${path}`, {
      fix: 'save the image again',
    });
  }

  async close(): Promise<void> {
    await this.file.close();
  }
}

/** The first bytes of what gzip has compressed (RFC 1952 §2.3.1). */
const GZIP = 0x1f8b;

async function unpacked(path: string, file: FileHandle): Promise<Spool> {
  const spool = await Spool.create();
  try {
    await pipeline(readFrom(file, 0), createGunzip(), async (chunks: AsyncIterable<Buffer>) => {
      for await (const chunk of chunks) await spool.append(chunk);
    });
    return spool;
  } catch (error) {
    await spool.close();
    if (!systemCode(error)?.startsWith('Z_')) throw error;
    throw new OperatorError(`${path} is damaged, or ends early: ${(error as Error).message}`, {
      fix: 'take another copy of it',
      cause: error,
    });
  }
}
