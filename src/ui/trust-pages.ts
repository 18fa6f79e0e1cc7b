import { createHash } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { LRUCache } from 'lru-cache';
import { covers, imageHost, LOOPBACK_NAMES, parseImageHost } from '../pki/names.js';
import { registryHost, trustInstructions } from '../trust/instructions.js';
import { CONTENT_SECURITY_POLICY, trustPage } from './trust-page.js';

/** What clients install to trust this registry, and the names that its certificate is good for. */
export interface Anchor {
  readonly pem: string;
  readonly names: readonly string[];
}

export interface TrustPagesOptions {
  /** As its file is now; undefined where nothing has to be installed, for a public authority signed the certificate. */
  readonly anchor: () => Promise<Anchor | undefined>;
  /** What stands before the registry's paths (`http.prefix`), without a slash at its end. */
  readonly prefix: string;
}

/** Handles GET and HEAD of one path; the rest of the request is not looked at. */
export type Page = (request: IncomingMessage, response: ServerResponse) => Promise<void>;

/**
 * What the registry tells those who do not trust it yet, without a login: `/ca.crt`, `/ca.pem` and `/trust`. Nothing in it is
 * secret, and nothing of it may be believed before its SHA-256 was compared: all three are sent over a connection that
 * nobody has verified.
 */
export function createTrustPages({ anchor, prefix }: TrustPagesOptions): ReadonlyMap<string, Page> {
  const rendered = new LRUCache<string, Buffer>({ max: 16 });

  const file =
    (name: string): Page =>
    async (request, response) => {
      const found = await anchor();
      if (!found) return nothing(request, response);
      const body = Buffer.from(found.pem, 'latin1');
      const etag = `"${createHash('sha256').update(body).digest('hex')}"`;
      response.setHeader('ETag', etag);
      // To be asked for anew each time: after a rotation the old file would be believed for its whole life.
      response.setHeader('Cache-Control', 'no-cache');
      if (matches(request.headers['if-none-match'], etag)) {
        response.writeHead(304).end();
        return;
      }
      response.setHeader('Content-Disposition', `attachment; filename="${name}"`);
      // Not x-x509-ca-cert, which some browsers import at a click: it is to be saved, checked, and then installed.
      send(request, response, 200, 'application/x-pem-file', body);
    };

  const page: Page = async (request, response) => {
    const found = await anchor();
    if (!found) return nothing(request, response);
    const host = hostFor(request, found.names);
    const key = `${host} ${found.pem}`;
    let body = rendered.get(key);
    if (!body) {
      body = Buffer.from(trustPage(trustInstructions({ host, caFile: 'ca.crt', pem: found.pem, prefix })));
      rendered.set(key, body);
    }
    for (const [name, value] of Object.entries(PAGE_HEADERS)) response.setHeader(name, value);
    send(request, response, 200, 'text/html; charset=utf-8', body);
  };

  const pages = { '/ca.crt': file('ca.crt'), '/ca.pem': file('ca.pem'), '/trust': page };
  return new Map(Object.entries(pages).flatMap(([path, show]) => [path, `${prefix}${path}`].map(at => [at, show])));
}

const PAGE_HEADERS = {
  'Content-Security-Policy': CONTENT_SECURITY_POLICY,
  'Cache-Control': 'no-store',
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Referrer-Policy': 'no-referrer',
  'X-Frame-Options': 'DENY',
} as const;

/**
 * How the reader calls the registry, if that is a name that the certificate has; else the first name in it that others can
 * use. What a client sends is never shown as it came.
 */
function hostFor({ headers, socket }: IncomingMessage, names: readonly string[]): string {
  try {
    const asked = registryHost(headers.host ?? '');
    if (covers(names, parseImageHost(asked).host)) return asked;
  } catch {
    // A name that no image reference can hold.
  }
  const plain = names.filter(name => !name.startsWith('*'));
  const name = plain.find(name => !LOOPBACK_NAMES.includes(name)) ?? plain[0] ?? 'localhost';
  return imageHost(name, socket.localPort ?? 443);
}

function nothing(request: IncomingMessage, response: ServerResponse): void {
  const body = `Nothing has to be installed to trust this registry: either a public authority has signed its certificate,
or it is served without TLS of its own. Where clients refuse it all the same, ask its operator for the certificate
of the authority that signed for it.
`;
  send(request, response, 404, 'text/plain; charset=utf-8', Buffer.from(body));
}

function matches(header: string | undefined, etag: string): boolean {
  if (header === undefined) return false;
  return header.trim() === '*' || header.split(',').some(one => one.trim().replace(/^W\//, '') === etag);
}

function send(request: IncomingMessage, response: ServerResponse, status: number, type: string, body: Buffer): void {
  response.setHeader('X-Content-Type-Options', 'nosniff');
  response.writeHead(status, { 'Content-Type': type, 'Content-Length': body.length });
  response.end(request.method === 'HEAD' ? undefined : body);
}
