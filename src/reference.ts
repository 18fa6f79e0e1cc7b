import { RegistryError } from './errors.js';

/**
 * The grammars of references: repository names, tags, digests, byte ranges. Pure functions. Every one looks at the
 * length before it matches, so that no input can make it slow.
 */

export const ALGORITHMS = { sha256: 64, sha512: 128 } as const;

export type Algorithm = keyof typeof ALGORITHMS;

/** `algorithm:lower-case hex` (image-spec, descriptor.md, "Digests"). Only `parseDigest` makes one from outside input. */
export type Digest = `${Algorithm}:${string}`;

const COMPONENT = '[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*';
const NAME = new RegExp(`^${COMPONENT}(?:/${COMPONENT})*$`);
const TAG = /^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/;
const HEX = /^[0-9a-f]+$/;

/** distribution-spec, "Pulling manifests": at most 255 characters in all, as Distribution counts them. */
export function isRepositoryName(name: string): boolean {
  return name.length <= 255 && NAME.test(name);
}

/** distribution-spec, "Pulling manifests": at most 128 characters. */
export function isTag(tag: string): boolean {
  return tag.length <= 128 && TAG.test(tag);
}

export function isDigest(text: string): text is Digest {
  const colon = text.indexOf(':');
  if (colon < 0 || text.length > 7 + 128) return false;
  const algorithm = text.slice(0, colon);
  if (algorithm !== 'sha256' && algorithm !== 'sha512') return false;
  return text.length - colon - 1 === ALGORITHMS[algorithm] && HEX.test(text.slice(colon + 1));
}

/** @throws RegistryError DIGEST_INVALID for any other algorithm or shape. */
export function parseDigest(text: string): Digest {
  if (isDigest(text)) return text;
  throw new RegistryError('DIGEST_INVALID', {
    message: 'not a digest: expected sha256 and 64, or sha512 and 128 lower-case hex digits, joined by a colon',
  });
}

export function algorithmOf(digest: Digest): Algorithm {
  return digest.startsWith('sha256:') ? 'sha256' : 'sha512';
}

export function hexOf(digest: Digest): string {
  return digest.slice(digest.indexOf(':') + 1);
}

/** Both ends inclusive, as in HTTP. */
export interface ByteRange {
  readonly start: number;
  readonly end: number;
}

/** More ranges than this in one request are answered with the whole representation. */
const MAX_RANGES = 1024;

/**
 * The Range header of RFC 9110 §14.1.2 against a representation of `size` bytes.
 * @returns the satisfiable ranges; `[]` when none is (416); undefined when the header is to be ignored and the whole is
 *   to be sent: another unit, a syntax error, overlapping or descending ranges, or more than 1,024.
 */
export function parseRange(header: string | undefined, size: number): ByteRange[] | undefined {
  if (header === undefined || header.length > 64 * 1024) return undefined;
  const unit = /^bytes=/i.exec(header);
  if (!unit) return undefined;
  const specs = header.slice(unit[0].length).split(',');
  if (specs.length > MAX_RANGES) return undefined;
  const ranges: ByteRange[] = [];
  let inverted = false;
  for (const spec of specs) {
    const match = /^[ \t]*(\d{0,16})-(\d{0,16})[ \t]*$/.exec(spec);
    if (!match || (match[1] === '' && match[2] === '')) return undefined;
    const [first, last] = [match[1]!, match[2]!];
    if (first !== '' && last !== '' && Number(last) < Number(first)) {
      inverted = true;
      continue;
    }
    const start = first === '' ? Math.max(0, size - Number(last)) : Number(first);
    const end = first === '' || last === '' ? size - 1 : Math.min(Number(last), size - 1);
    if (start >= size || start > end) continue;
    const before = ranges.at(-1);
    if (before && start <= before.end) return undefined;
    ranges.push({ start, end });
  }
  // RFC 9110 calls `500-0` invalid and lets a server ignore it; the OCI conformance suite expects 416.
  if (inverted && ranges.length > 0) return undefined;
  return ranges;
}
