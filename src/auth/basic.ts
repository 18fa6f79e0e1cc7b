import type { IncomingMessage } from 'node:http';
import { RegistryError } from '../errors.js';

/** RFC 7617 sets no limit; no user and password of ours come near it. In bytes, decoded. */
const LONGEST_CREDENTIALS = 1024;

interface BasicCredentials {
  /** Not empty, no control characters, in Unicode NFC. */
  readonly user: string;
  /** No control characters, as the client sent it. */
  readonly password: string;
}

/** What an Authorization header says. `unusable`: malformed, or of a scheme that is neither Basic nor Bearer. */
export type Authorization = BasicCredentials | { readonly token: string } | 'none' | 'unusable';

/** Ours have some 300 characters; those of an outside token server may bring certificates along. Node takes 16 KiB of headers. */
const LONGEST_TOKEN = 12 * 1024;

const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/**
 * The one Authorization header of a request.
 * @throws RegistryError UNAUTHORIZED with status 400 when there are several: which of them counts would be a guess, and
 *   Node silently takes the first.
 */
export function authorizationOf(request: IncomingMessage): Authorization {
  const header = authorizationHeader(request);
  if (header === SEVERAL)
    throw new RegistryError('UNAUTHORIZED', { status: 400, message: 'more than one Authorization header' });
  return header === undefined ? 'none' : parseAuthorization(header);
}

const SEVERAL = Symbol('several Authorization headers');

/** As it was sent. */
export function authorizationHeader({ rawHeaders }: IncomingMessage): string | typeof SEVERAL | undefined {
  let header: string | undefined;
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = rawHeaders[at]!;
    if (name.length !== 13 || name.toLowerCase() !== 'authorization') continue;
    if (header !== undefined) return SEVERAL;
    header = rawHeaders[at + 1]!;
  }
  return header;
}

/** RFC 7617 §2 in UTF-8, or RFC 6750 §2.1. Empty credentials, which `docker search` sends when it has none, are none. */
export function parseAuthorization(header: string): Authorization {
  const token = /^bearer +([\w.~+/-]+=*)$/i.exec(header.slice(0, LONGEST_TOKEN + 8))?.[1];
  if (token !== undefined) return token.length <= LONGEST_TOKEN ? { token } : 'unusable';
  const scheme = /^basic +/i.exec(header);
  if (!scheme || header.length > scheme[0].length + (LONGEST_CREDENTIALS * 4) / 3 + 4) return 'unusable';
  const encoded = header.slice(scheme[0].length);
  const bytes = Buffer.from(encoded, 'base64');
  // Node's decoder skips what it does not know: strict is what comes back the same.
  if (bytes.length > LONGEST_CREDENTIALS || bytes.toString('base64') !== encoded) return 'unusable';
  let text: string;
  try {
    text = UTF8.decode(bytes);
  } catch {
    return 'unusable';
  }
  if (text === ':') return 'none';
  const colon = text.indexOf(':');
  if (colon < 1 || /[\x00-\x1f\x7f-\x9f]/.test(text)) return 'unusable';
  return { user: text.slice(0, colon).normalize('NFC'), password: text.slice(colon + 1) };
}
