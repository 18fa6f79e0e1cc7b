import { OperatorError } from './errors.js';

/**
 * Tar archives of plain files, written and read as streams: POSIX.1-1988 headers (`ustar`), extended headers of
 * POSIX.1-2001 (`pax`) for long names, and in reading GNU's long names and large sizes as well.
 */

const BLOCK = 512;

/** The largest size that eleven octal digits hold. */
const LARGEST_OCTAL = 8 ** 11 - 1;

/** No list of attributes is longer. */
const LARGEST_ATTRIBUTES = 64 * 1024;

/** No name is longer (bytes): Linux opens none that is. */
const LONGEST_NAME = 4096;

/** Before one entry: both of GNU's, and one of pax, with some to spare. */
const MOST_EXTENDED = 8;

/** What of an extended header is of use here; the rest is not kept. */
const ATTRIBUTES = ['path', 'linkpath', 'size', 'mtime'];

export interface TarEntry {
  /** As in the archive, without `./` before it. */
  readonly name: string;
  readonly size: number;
  readonly modified: Date;
  /** Where in the archive its bytes begin. */
  readonly offset: number;
  /** To be read before the next entry is asked for; else it is passed over. Chunks are good until the next is read. */
  readonly body: AsyncIterable<Buffer>;
}

/** The bytes of an archive, in order. */
export interface TarSource extends AsyncIterable<Buffer> {
  /** Passes over bytes that come next, where they need not be read for that. */
  skip?(bytes: number): void;
}

/** A file that the archive has under another name as well. */
export interface TarLink {
  readonly name: string;
  /** As in the archive: from its root for a hard link, from the folder of the link for a symbolic one. */
  readonly target: string;
  readonly symbolic: boolean;
}

export class TarWriter {
  /** @param options.fillUp false for whoever takes back what was written of a file that fails */
  constructor(
    private readonly write: (chunk: Uint8Array) => Promise<void>,
    private readonly options: { readonly fillUp: boolean } = { fillUp: true },
  ) {}

  /**
   * Adds a file. Where the body fails, or has too few bytes, the entry is filled up with zeros, so that the archive is
   * whole all the same. @throws what the body throws, once that is done; RangeError for a body of another size
   */
  async add(name: string, size: number, modified: Date, body: AsyncIterable<Uint8Array>): Promise<void> {
    for (const header of headers(name, size, modified)) await this.write(header);
    let written = 0;
    let failure: unknown;
    try {
      for await (const chunk of body) {
        if (written + chunk.length > size) throw new RangeError(`${name} has more than ${size} bytes`);
        await this.write(chunk);
        written += chunk.length;
      }
      if (written < size) failure = new RangeError(`${name} has ${written} bytes, not ${size}`);
    } catch (error) {
      failure = error;
    }
    if (failure !== undefined && !this.options.fillUp) throw failure;
    const zeros = Buffer.alloc(BLOCK * 128);
    for (let left = padded(size) - written; left > 0; left -= zeros.length)
      await this.write(zeros.subarray(0, Math.min(left, zeros.length)));
    if (failure !== undefined) throw failure;
  }

  async end(): Promise<void> {
    await this.write(Buffer.alloc(2 * BLOCK));
  }
}

/**
 * The files of an archive, in order.
 * @param onLink takes the links, which nobody expects unless told
 * @throws OperatorError where it ends early, or is none
 */
export async function* readTar(source: TarSource, onLink?: (link: TarLink) => void): AsyncGenerator<TarEntry> {
  const input = new Input(source);
  let attributes: Record<string, string> = {};
  let extended = 0;
  try {
    for (;;) {
      const header = await input.exactly(BLOCK);
      if (header.every(byte => byte === 0)) return;
      const { type, size, modified, name, target } = parseHeader(header);
      if (type === 'x' || type === 'L' || type === 'K') {
        if (size > LARGEST_ATTRIBUTES) throw damaged('an extended header is too long');
        if (++extended > MOST_EXTENDED) throw damaged('too many extended headers follow one another');
        const data = (await input.exactly(padded(size))).subarray(0, size);
        const told = type === 'x' ? parsePax(data) : { [type === 'L' ? 'path' : 'linkpath']: untilNul(data) };
        for (const path of [told.path, told.linkpath])
          if (path !== undefined && Buffer.byteLength(path) > LONGEST_NAME) throw damaged('a name is too long');
        attributes = { ...attributes, ...told };
        continue;
      }
      const own = attributes;
      attributes = {};
      extended = 0;
      const length =
        own.size === undefined ? size : checkedSize(/^\d+$/.test(own.size) ? Number(own.size) : Number.NaN);
      const seconds = Number(own.mtime ?? Number.NaN);
      if (type === '0' || type === '\0' || type === '7') {
        const end = input.position + padded(length);
        const entry = { name: plain(own.path ?? name), size: length, offset: input.position, body: input.body(length) };
        yield { ...entry, modified: Number.isFinite(seconds) ? new Date(seconds * 1000) : modified };
        await input.skip(end - input.position);
      } else if ((type === '1' || type === '2') && onLink)
        onLink({ name: plain(own.path ?? name), target: own.linkpath ?? target, symbolic: type === '2' });
      else if (type === '1' || type === '2')
        throw new OperatorError(`the archive holds the link ${JSON.stringify(own.path ?? name)} instead of a file`, {
          fix: 'make it again with tar --hard-dereference --dereference',
        });
      else await input.skip(padded(length));
    }
  } finally {
    await input.close();
  }
}

function* headers(name: string, size: number, modified: Date): Generator<Buffer> {
  const split = splitName(name);
  if (split) return yield header(split, size, modified, '0');
  const data = Buffer.from(paxRecord('path', name));
  yield header({ name: 'PaxHeader', prefix: '' }, data.length, modified, 'x');
  yield Buffer.concat([data], padded(data.length));
  yield header({ name: name.slice(0, 100), prefix: '' }, size, modified, '0');
}

/** As the header has it: up to 100 bytes, and before a slash up to 155 more. Undefined where that does not do. */
function splitName(name: string): { name: string; prefix: string } | undefined {
  if (/[^\x20-\x7e]/.test(name)) return undefined;
  if (name.length <= 100) return { name, prefix: '' };
  const slash = name.indexOf('/', name.length - 101);
  return slash >= 0 && slash <= 155 ? { name: name.slice(slash + 1), prefix: name.slice(0, slash) } : undefined;
}

function header(place: { name: string; prefix: string }, size: number, modified: Date, type: string): Buffer {
  const block = Buffer.alloc(BLOCK);
  const octal = (value: number, at: number, digits: number) =>
    block.write(value.toString(8).padStart(digits, '0'), at, 'latin1');
  block.write(place.name, 0, 100, 'latin1');
  octal(0o644, 100, 7);
  octal(0, 108, 7);
  octal(0, 116, 7);
  if (size <= LARGEST_OCTAL) octal(size, 124, 11);
  else {
    // GNU's way, which everybody reads: a set first bit, then the number itself.
    block[124] = 0x80;
    block.writeBigUInt64BE(BigInt(size), 128);
  }
  octal(Math.min(LARGEST_OCTAL, Math.max(0, Math.floor(modified.getTime() / 1000))), 136, 11);
  block.write(type, 156, 'latin1');
  block.write('ustar\x0000', 257, 'latin1');
  block.write(place.prefix, 345, 155, 'latin1');
  block.write(`${checksum(block).toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}

/** Its own field counts as spaces. */
function checksum(block: Buffer): number {
  let sum = 0;
  for (let at = 0; at < BLOCK; at++) sum += at >= 148 && at < 156 ? 0x20 : block[at]!;
  return sum;
}

function plain(name: string): string {
  return name.replace(/^(?:\.\/)+/, '');
}

function parseHeader(block: Buffer): { name: string; size: number; modified: Date; type: string; target: string } {
  if (number(block, 148, 8) !== checksum(block)) throw damaged('a header is wrong');
  const prefix = block.toString('latin1', 257, 262) === 'ustar' ? untilNul(block.subarray(345, 500)) : '';
  const name = untilNul(block.subarray(0, 100));
  return {
    // GNU tar has other things in the place of the prefix.
    name: prefix && block[263] === 0x30 ? `${prefix}/${name}` : name,
    size: checkedSize(number(block, 124, 12)),
    modified: new Date(number(block, 136, 12) * 1000),
    type: block.toString('latin1', 156, 157),
    target: untilNul(block.subarray(157, 257)),
  };
}

function checkedSize(size: number): number {
  if (!Number.isSafeInteger(size) || size < 0) throw damaged('a size is wrong');
  return size;
}

function number(block: Buffer, at: number, length: number): number {
  if ((block[at]! & 0x80) !== 0) return Number(block.readBigUInt64BE(at + length - 8));
  return Number.parseInt(block.toString('latin1', at, at + length).replace(/[\0 ]+$/, '') || '0', 8);
}

/** `<length> <key>=<value>\n`, where the length counts itself. */
function paxRecord(key: string, value: string): string {
  const rest = Buffer.byteLength(` ${key}=${value}\n`);
  let length = rest + String(rest).length;
  if (String(length).length > String(rest).length) length = rest + String(length).length;
  return `${length} ${key}=${value}\n`;
}

function parsePax(data: Buffer): Record<string, string> {
  const attributes: Record<string, string> = {};
  for (let at = 0; at < data.length; ) {
    const match = /^(\d{1,6}) ([^=\n]+)=/.exec(data.toString('utf8', at, at + 256));
    const length = Number(match?.[1]);
    if (!match || length <= match[0].length || at + length > data.length) throw damaged('an extended header is wrong');
    if (ATTRIBUTES.includes(match[2]!))
      attributes[match[2]!] = data.toString('utf8', at + match[0].length, at + length - 1);
    at += length;
  }
  return attributes;
}

function untilNul(data: Buffer): string {
  const end = data.indexOf(0);
  return data.toString('utf8', 0, end < 0 ? data.length : end);
}

function padded(size: number): number {
  return Math.ceil(size / BLOCK) * BLOCK;
}

function damaged(why: string): OperatorError {
  return new OperatorError(`the archive is damaged, or no tar archive: ${why}`, {
    fix: 'take another copy of it; a compressed one has to be decompressed first, such as by zstd -d',
  });
}

/** Takes bytes from a stream of chunks in portions of its own. */
class Input {
  readonly #chunks: AsyncIterator<Buffer>;
  #rest: Buffer = Buffer.alloc(0);
  #position = 0;

  constructor(private readonly source: TarSource) {
    this.#chunks = source[Symbol.asyncIterator]();
  }

  /** How many bytes were taken or passed over. */
  get position(): number {
    return this.#position;
  }

  /** At most that many bytes, at least one. */
  async upTo(size: number): Promise<Buffer> {
    if (this.#rest.length === 0) {
      const { done, value } = await this.#chunks.next();
      if (done) throw damaged('it ends early');
      this.#rest = value;
      return this.upTo(size);
    }
    const taken = this.#rest.subarray(0, size);
    this.#rest = this.#rest.subarray(taken.length);
    this.#position += taken.length;
    return taken;
  }

  async exactly(size: number): Promise<Buffer> {
    const parts: Buffer[] = [];
    for (let left = size; left > 0; left -= parts.at(-1)!.length) parts.push(Buffer.from(await this.upTo(left)));
    return Buffer.concat(parts, size);
  }

  async skip(size: number): Promise<void> {
    let left = size;
    if (this.source.skip && left > this.#rest.length) {
      left -= this.#rest.length;
      this.#rest = Buffer.alloc(0);
      this.source.skip(left);
      this.#position += size;
      return;
    }
    while (left > 0) left -= (await this.upTo(left)).length;
  }

  /** Can be taken up again where it was left. */
  body(size: number): AsyncIterable<Buffer> {
    let left = size;
    const next = async (): Promise<IteratorResult<Buffer>> => {
      if (left === 0) return { done: true, value: undefined };
      const value = await this.upTo(left);
      left -= value.length;
      return { done: false, value };
    };
    return { [Symbol.asyncIterator]: () => ({ next }) };
  }

  async close(): Promise<void> {
    await this.#chunks.return?.();
  }
}
