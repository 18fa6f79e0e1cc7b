import { createReadStream } from 'node:fs';
import { LONGEST_LINE } from './chain.js';

const NEWLINE = 0x0a;

export interface ReadLine {
  /** Without the newline. Good until the next one is asked for. */
  readonly bytes: Buffer;
  /** False for what stands after the last newline of the file. */
  readonly whole: boolean;
  /** Bytes of the file up to here. */
  readonly done: number;
}

/** The lines of a file, in memory that does not grow with it. One over `LONGEST_LINE` comes as its first so many bytes. */
export async function* linesOf(path: string): AsyncGenerator<ReadLine> {
  let rest: Buffer = Buffer.alloc(0);
  let done = 0;
  for await (const chunk of createReadStream(path, { highWaterMark: 256 * 1024 }) as AsyncIterable<Buffer>) {
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, start)) {
      const piece = chunk.subarray(start, end);
      const bytes = rest.length === 0 ? piece : Buffer.concat([rest, piece]);
      done += bytes.length + 1;
      yield { bytes, whole: true, done };
      rest = Buffer.alloc(0);
      start = end + 1;
    }
    if (rest.length < LONGEST_LINE) rest = Buffer.concat([rest, chunk.subarray(start)]);
  }
  if (rest.length > 0) yield { bytes: rest, whole: false, done: done + rest.length };
}
