import type { IncomingMessage } from 'node:http';
import { RegistryError } from '../errors.js';

const SAFE = new Set(['GET', 'HEAD', 'OPTIONS']);

/**
 * Refuses what a page of another site has a browser send: the browser adds the credentials that it knows, Basic ones too,
 * whatever page asks. Browsers say where a request comes from (Fetch Metadata; before that, Origin); other programs say
 * nothing, and nobody can make them send a request.
 * @param origin of this registry as the operator has configured it; empty: that of the Host header
 * @throws RegistryError DENIED
 */
export function refuseCrossSite({ method = '', headers }: IncomingMessage, origin: string): void {
  if (SAFE.has(method)) return;
  const site = headers['sec-fetch-site'];
  if (site === undefined ? isOwn(headers.origin, headers.host, origin) : site === 'same-origin' || site === 'none')
    return;
  throw new RegistryError('DENIED', { message: 'a page of another site may not send this' });
}

function isOwn(asking: string | undefined, host: string | undefined, configured: string): boolean {
  if (asking === undefined) return true;
  if (configured !== '' && asking === new URL(configured).origin) return true;
  // A proxy may have ended TLS: the scheme does not tell.
  return URL.canParse(asking) && host !== undefined && new URL(asking).host === hostOf(host, asking);
}

/** As a URL of the same scheme has it: without the port that goes without saying. */
function hostOf(host: string, asking: string): string | undefined {
  const url = `${new URL(asking).protocol}//${host}`;
  return URL.canParse(url) ? new URL(url).host : undefined;
}
