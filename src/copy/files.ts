import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import { OperatorError, systemCode } from '../errors.js';
import { readFrom } from './spool.js';

/** Files of an image layout, wherever they are. Their paths are relative and have been checked, or are digests. */
export interface Files {
  /** For people. */
  readonly name: string;
  /** In bytes; undefined where there is no such file. */
  sizeOf(path: string): Promise<number | undefined>;
  /** The bytes from a position on. @throws OperatorError where there is no such file */
  open(path: string, start: number): AsyncIterable<Buffer>;
  close(): Promise<void>;
}

/** No list of images and no manifest is larger (bytes). */
const LARGEST = 32 * 1024 * 1024;

/** A small file; undefined where there is none. @param largest in bytes @throws OperatorError for one that is not small */
export async function readSmall(files: Files, path: string, largest = LARGEST): Promise<Buffer | undefined> {
  const size = await files.sizeOf(path);
  if (size === undefined) return undefined;
  if (size > largest) throw new OperatorError(`${files.name}: ${path} has ${size} bytes, and ${largest} are the most`);
  const chunks: Buffer[] = [];
  for await (const chunk of files.open(path, 0)) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** The same as JSON, of whatever shape. @throws OperatorError where it is none */
export async function readJson(files: Files, path: string): Promise<unknown> {
  const data = await readSmall(files, path);
  if (!data) return undefined;
  try {
    return JSON.parse(data.toString('utf8'));
  } catch (cause) {
    throw new OperatorError(`${files.name}: ${path} is no JSON`, { fix: 'make it again', cause });
  }
}

/** Members of whatever was in a file; none of what is no object. */
export function membersOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
}

export function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

/** Files below a folder. No link is followed: it might lead to any file of this machine. */
export class FolderFiles implements Files {
  constructor(readonly name: string) {}

  async sizeOf(path: string): Promise<number | undefined> {
    const file = await this.#open(path);
    try {
      return (await file?.stat())?.size;
    } finally {
      await file?.close();
    }
  }

  async *open(path: string, start: number): AsyncGenerator<Buffer> {
    const file = await this.#open(path);
    if (!file) throw new OperatorError(`${this.name} has no ${path}`);
    try {
      yield* readFrom(file, start);
    } finally {
      await file.close();
    }
  }

  async #open(path: string): Promise<FileHandle | undefined> {
    try {
      const file = await open(join(this.name, path), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
      if ((await file.stat()).isFile()) return file;
      await file.close();
    } catch (error) {
      const code = systemCode(error);
      if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
      if (code !== 'ELOOP')
        throw new OperatorError(`${join(this.name, path)} cannot be read (${code})`, {
          fix: 'check its permissions',
          cause: error,
        });
    }
    throw new OperatorError(`${join(this.name, path)} is no plain file`, { fix: 'put the file itself there' });
  }

  async close(): Promise<void> {}
}
