import { randomUUID } from 'node:crypto';
import type { ServerResponse } from 'node:http';
import { RegistryError } from '../errors.js';
import { type ByteRange, type Digest, parseDigest, parseRange } from '../reference.js';
import type { ByteStream } from '../storage/driver.js';
import type { Blob } from '../store/blobs.js';
import type { Exchange } from './exchange.js';

/**
 * GET and HEAD of a blob, whole or in ranges (distribution-spec, "Pulling blobs"; RFC 9110 §14). HEAD is never sent elsewhere: it
 * has no bytes, and what it tells of stays for the grace.
 */
export async function getBlob(exchange: Exchange): Promise<void> {
  const { request, response, store, repository } = exchange;
  const digest = parseDigest(exchange.reference);
  const head = request.method === 'HEAD';
  if (!head && !['range', 'if-range', 'if-none-match'].some(name => exchange.header(name) !== undefined))
    return getWhole(exchange, digest);
  const blob = await (head ? store.blobs.getHeld(repository, digest) : store.blobs.get(repository, digest));
  const headers = headersOf(digest);
  const { ETag: etag } = headers;
  if (matches(exchange.header('if-none-match'), etag)) return exchange.empty(304, { ETag: etag });
  if (head) {
    exchange.head(200, headers, blob.size);
    response.end();
    return;
  }
  const condition = exchange.header('if-range');
  const header = condition === undefined || condition === etag ? exchange.header('range') : undefined;
  const ranges = parseRange(header, blob.size);
  if (ranges?.length === 0)
    throw new RegistryError('SIZE_INVALID', {
      status: 416,
      message: 'the range lies outside of the blob',
      headers: { 'Content-Range': `bytes */${blob.size}` },
    });
  // An object store knows neither several ranges nor our ETag.
  const elsewhere = condition === undefined && (ranges?.length ?? 1) === 1 ? await store.blobs.urlOf(blob) : undefined;
  if (elsewhere !== undefined) return sendElsewhere(exchange, digest, elsewhere);
  // Also where several ranges are the whole: only as one stream it is checked that the blob is not corrupt.
  const asked = ranges?.reduce((sum, { start, end }) => sum + end - start + 1, 0);
  if (!ranges || (ranges.length > 1 && asked === blob.size))
    return send(exchange, 200, { ...headers, 'Content-Length': blob.size }, [await store.blobs.read(blob)]);
  if (ranges.length === 1) {
    const [range] = ranges as [ByteRange];
    const length = range.end - range.start + 1;
    const partial = { ...headers, 'Content-Range': contentRange(range, blob), 'Content-Length': length };
    return send(exchange, 206, partial, [await store.blobs.read(blob, range)]);
  }
  const boundary = randomUUID();
  const heads = ranges.map(range =>
    Buffer.from(
      `\r\n--${boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: ${contentRange(range, blob)}\r\n\r\n`,
    ),
  );
  const tail = Buffer.from(`\r\n--${boundary}--\r\n`);
  const length = ranges.reduce((sum, { start, end }) => sum + end - start + 1, 0);
  const multipart = {
    ...headers,
    'Content-Type': `multipart/byteranges; boundary=${boundary}`,
    'Content-Length': heads.reduce((sum, head) => sum + head.length, length + tail.length),
  };
  async function* parts(): AsyncGenerator<Buffer | ByteStream> {
    for (const [index, range] of ranges!.entries()) {
      yield heads[index]!;
      yield await store.blobs.read(blob, range);
    }
    yield tail;
  }
  return send(exchange, 206, multipart, parts());
}

/** What nearly all clients ask for. */
async function getWhole(exchange: Exchange, digest: Digest): Promise<void> {
  const opened = await exchange.store.blobs.open(exchange.repository, digest);
  if ('url' in opened) return sendElsewhere(exchange, digest, opened.url);
  return send(exchange, 200, { ...headersOf(digest), 'Content-Length': opened.size }, [opened.stream]);
}

function headersOf(digest: Digest) {
  return {
    'Content-Type': 'application/octet-stream',
    'Docker-Content-Digest': digest,
    'Accept-Ranges': 'bytes',
    ETag: `"${digest}"`,
    'Cache-Control': 'max-age=31536000, private',
  };
}

function sendElsewhere(exchange: Exchange, digest: Digest, url: string): void {
  exchange.empty(307, { Location: url, 'Docker-Content-Digest': digest, 'Cache-Control': 'no-store' });
}

/** DELETE of a blob (distribution-spec, "Deleting Blobs"). */
export async function deleteBlob(exchange: Exchange): Promise<void> {
  const digest = parseDigest(exchange.reference);
  await exchange.store.blobs.remove(exchange.repository, digest);
  await exchange.changed({ type: 'delete', kind: 'blob', digest });
  exchange.empty(202);
}

/**
 * Streams the parts one after the other, at the client's pace. A source is freed whatever happens; one that fails before
 * its first bytes can still be answered with an error.
 */
async function send(
  exchange: Exchange,
  status: number,
  headers: Record<string, string | number>,
  parts: Iterable<Buffer | ByteStream> | AsyncIterable<Buffer | ByteStream>,
): Promise<void> {
  const { response } = exchange;
  const write = writer(response);
  // One chunk is on its way while the next is read, and no more: chunks are lent (see `ByteStream`).
  let onItsWay: Promise<void> = Promise.resolve();
  for await (const part of parts)
    for await (const chunk of Buffer.isBuffer(part) ? [part] : part) {
      await onItsWay;
      if (!response.headersSent) exchange.head(status, headers);
      onItsWay = write(chunk);
      // Its failure is met at the next turn.
      onItsWay.catch(() => undefined);
    }
  await onItsWay;
  // The answer of an empty blob has no chunk.
  if (!response.headersSent) exchange.head(status, headers);
  response.end();
}

/** Writes that resolve when the bytes are with the kernel, and reject when the client is gone. */
function writer(response: ServerResponse): (chunk: Buffer) => Promise<void> {
  let settle: ((error?: Error | null) => void) | undefined;
  response.once('close', () => settle?.(gone()));
  return chunk =>
    new Promise((resolve, reject) => {
      if (response.destroyed) return reject(gone());
      settle = error => (error ? reject(error) : resolve());
      response.write(chunk, settle);
    });
}

function gone(): Error {
  return Object.assign(new Error('the client is gone'), { code: 'ECONNRESET' });
}

function contentRange({ start, end }: ByteRange, { size }: Blob): string {
  return `bytes ${start}-${end}/${size}`;
}

/** If-None-Match (RFC 9110 §13.1.2), by weak comparison. */
export function matches(header: string | undefined, etag: string): boolean {
  return header?.split(',').some(tag => tag.trim().replace(/^W\//, '') === etag || tag.trim() === '*') ?? false;
}
