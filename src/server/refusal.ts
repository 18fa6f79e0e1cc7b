import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { RegistryError, systemCode } from '../errors.js';

/** Answers to what is not a request that a handler could see: the socket is all there is to write to. */

/** How a client's mistake is answered: an HTTP status and one sentence. */
export interface Refusal {
  readonly status: 400 | 403 | 405 | 408 | 431;
  readonly message: string;
}

const REASON = {
  400: 'Bad Request',
  403: 'Forbidden',
  405: 'Method Not Allowed',
  408: 'Request Timeout',
  431: 'Request Header Fields Too Large',
};

/** The reason phrase. containerd shows it and nothing of the body, so for what its user has to mend it says what. */
export function reasonOf({ status, message }: Refusal): string {
  return status === 403 ? `${REASON[status]}: ${message}` : REASON[status];
}

/** The refusal for an error of Node's HTTP parser; undefined where the connection itself broke and nobody listens. */
export function parseRefusal(error: Error): Refusal | undefined {
  const code = systemCode(error);
  switch (code) {
    case 'HPE_HEADER_OVERFLOW':
      return { status: 431, message: 'the request line and headers are too long' };
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return { status: 408, message: 'the request did not arrive in time' };
    case 'HPE_INVALID_METHOD':
      return { status: 405, message: 'unknown request method' };
    default:
      if (!code?.startsWith('HPE_')) return undefined;
      return malformed((error as { reason?: string }).reason ?? code);
  }
}

/** More header lines than any client of ours sends. Node counts no line ends, so that its limit lets thousands through. */
const MOST_HEADERS = 200;

/**
 * What Node's parser lets through although two servers could read it in two ways: RFC 9112 §3.2 (Host), §6.1 and §6.3
 * (Transfer-Encoding). Node keeps the first of two Host or Authorization headers without a word.
 */
export function framingFault(request: IncomingMessage): Refusal | undefined {
  let hosts = 0;
  let authorizations = 0;
  const { rawHeaders, httpVersionMinor } = request;
  if (rawHeaders.length > 2 * MOST_HEADERS) return { status: 431, message: 'too many headers' };
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const name = rawHeaders[index]!;
    if (name.length === 4 && name.toLowerCase() === 'host') hosts++;
    else if (name.length === 13 && name.toLowerCase() === 'authorization') authorizations++;
  }
  if (hosts > 1) return malformed('more than one Host header');
  if (hosts === 0 && httpVersionMinor > 0) return malformed('no Host header');
  if (authorizations > 1) return malformed('more than one Authorization header');
  const encoding = request.headers['transfer-encoding'];
  if (encoding === undefined) return undefined;
  if (encoding.toLowerCase() !== 'chunked') return malformed('a transfer encoding other than chunked');
  if (httpVersionMinor === 0) return malformed('a transfer encoding in HTTP/1.0');
  return undefined;
}

/**
 * RFC 9112 §3.2.2: a target in absolute form is accepted, and its authority replaces Host. Changes `url` and
 * `headers.host`; a target in origin form, and the `*` of OPTIONS, is left as it is.
 */
export function toOriginForm(request: IncomingMessage): Refusal | undefined {
  const target = request.url!;
  if (target.startsWith('/') || target === '*') return undefined;
  const [, authority, rest] = /^https?:\/\/([^/?#]*)(.*)$/i.exec(target) ?? [];
  if (authority === undefined || rest === undefined)
    return malformed('the request target is neither a path nor a URL of HTTP');
  if (authority === '' || authority.includes('@')) return malformed('no valid authority in the request target');
  request.headers.host = authority;
  request.url = rest.startsWith('/') ? rest : `/${rest}`;
  return undefined;
}

function malformed(what: string): Refusal {
  return { status: 400, message: `malformed request: ${what}` };
}

/** The JSON body of the distribution specification. */
export function refusalBody({ status, message }: Refusal): string {
  return JSON.stringify(new RegistryError(status === 403 ? 'DENIED' : 'UNSUPPORTED', { status, message }));
}

/** Writes the refusal to the bare socket and ends it; the other half stays open so that the client can still read. */
export function refuseSocket(socket: Duplex, refusal: Refusal): void {
  socket.end(response(refusal.status, 'application/json', refusalBody(refusal)));
}

/** The answer to plain HTTP on the port of HTTPS, in words for the person who typed `http://`. */
export const USE_HTTPS = response(400, 'text/plain', 'This port speaks HTTPS. Use https:// in place of http://.\n');

function response(status: Refusal['status'], type: string, body: string): string {
  return [
    `HTTP/1.1 ${status} ${REASON[status]}`,
    `Content-Type: ${type}`,
    `Content-Length: ${Buffer.byteLength(body)}`,
    'Connection: close',
    '',
    body,
  ].join('\r\n');
}
