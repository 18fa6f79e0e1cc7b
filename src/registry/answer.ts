import type { IncomingMessage, OutgoingHttpHeader, OutgoingHttpHeaders, ServerResponse } from 'node:http';
import { finished } from 'node:stream';
import { RegistryError } from '../errors.js';
import { StorageError } from '../storage/driver.js';
import { isClientGone } from '../store/incoming.js';

/** A manifest of most images. In bytes. */
const SMALL = 64 * 1024;

/**
 * Reads away a small body before a refusal: containerd waits for ever when the answer to its manifest comes before it has
 * sent it. A large body is not waited for, nor one that the client holds back until it is asked for it.
 */
export async function readSmallRest(request: IncomingMessage): Promise<void> {
  const { 'content-length': length, expect } = request.headers;
  if (length === undefined || Number(length) > SMALL || expect !== undefined) return;
  if (request.complete || request.destroyed) return;
  await new Promise(resolve => finished(request.resume(), resolve));
}

/**
 * Headers as `writeHead` takes them at the least cost: names and values by turns, with none set before.
 * @param carried in pairs too: they stand before the others, and give way to those of the same name
 */
export function inPairs(headers: OutgoingHttpHeaders, carried: readonly string[]): OutgoingHttpHeader[] {
  const pairs: OutgoingHttpHeader[] = [];
  for (let at = 0; at < carried.length; at += 2)
    if (!has(headers, carried[at]!)) pairs.push(carried[at]!, carried[at + 1]!);
  for (const name in headers) {
    const value = headers[name];
    if (Array.isArray(value)) for (const one of value) pairs.push(name, one);
    else if (value !== undefined) pairs.push(name, value);
  }
  return pairs;
}

function has(headers: OutgoingHttpHeaders, name: string): boolean {
  for (const own in headers) if (own.length === name.length && own.toLowerCase() === name.toLowerCase()) return true;
  return false;
}

/** The one place where an error becomes an answer. @param carried as for `inPairs` */
export function answer(
  error: unknown,
  request: IncomingMessage,
  response: ServerResponse,
  onFault: (error: unknown, request: IncomingMessage) => void,
  carried: readonly string[] = [],
): void {
  if (response.destroyed || request.socket.destroyed || isClientGone(error)) {
    response.destroy();
    return;
  }
  const known = error instanceof RegistryError ? error : fault(error);
  // One without a cause was told of where it was found out, once and not for each request.
  if (known.status >= 500 && (known !== error || known.cause !== undefined)) onFault(error, request);
  if (response.headersSent) {
    // The status is out already: only a broken connection can still say that the body is not whole.
    response.destroy();
    return;
  }
  const body = Buffer.from(JSON.stringify(known));
  // Whatever else the client sends is not worth reading; the listener lets it see the answer before it closes.
  const unread = hasBody(request) && !request.complete;
  const headers = {
    'Content-Type': 'application/json',
    'Content-Length': body.length,
    ...known.headers,
    ...(unread && { Connection: 'close' }),
  };
  response.writeHead(known.status, inPairs(headers, carried));
  response.end(request.method === 'HEAD' ? undefined : body);
}

function fault(error: unknown): RegistryError {
  if (!(error instanceof StorageError)) return new RegistryError('UNKNOWN', { cause: error });
  return error.kind === 'full'
    ? new RegistryError('UNAVAILABLE', { status: 507, message: 'the storage of the registry is full', cause: error })
    : new RegistryError('UNAVAILABLE', { headers: { 'Retry-After': '10' }, cause: error });
}

function hasBody(request: IncomingMessage): boolean {
  return 'transfer-encoding' in request.headers || Number(request.headers['content-length'] ?? 0) > 0;
}
