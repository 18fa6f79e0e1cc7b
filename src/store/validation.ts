import { RegistryError } from '../errors.js';
import type { Descriptor, Manifest } from './manifest.js';

/** What a pushed manifest must fulfil beyond being well-formed. */
export interface Validation {
  /** Of the URLs in it each must match one of `allow`, where there are any, and none of `deny`. Undefined: any URL goes. */
  readonly urls: { readonly allow: readonly RegExp[]; readonly deny: readonly RegExp[] } | undefined;
  /** Which manifests that an index lists must be in the repository: those of the named platforms, or all, or none. */
  readonly indexes: 'all' | 'none' | ReadonlyArray<{ readonly os: string; readonly architecture: string }>;
  /** Whether the blobs that an image names must be in the repository. */
  readonly images: 'all' | 'none';
}

/** A longer URL is refused before any pattern sees it. */
const LONGEST_URL = 2048;

/** @throws RegistryError MANIFEST_INVALID for a URL that is not allowed. Nothing here ever fetches one. */
export function checkUrls(manifest: Manifest, { urls }: Validation): void {
  if (!urls) return;
  const { allow, deny } = urls;
  const wrong = manifest.urls.find(
    url =>
      !isPlainUrl(url) ||
      (allow.length > 0 && !allow.some(pattern => pattern.test(url))) ||
      deny.some(pattern => pattern.test(url)),
  );
  if (wrong !== undefined)
    throw new RegistryError('MANIFEST_INVALID', {
      message: 'manifest invalid: it names a URL that this registry does not allow (validation.manifests.urls)',
      detail: { url: wrong.slice(0, LONGEST_URL) },
    });
}

/** As the original has it: of http or https, and without a fragment. */
function isPlainUrl(url: string): boolean {
  return url.length <= LONGEST_URL && /^https?:\/\//i.test(url) && URL.canParse(url) && !url.includes('#');
}

/** Whether an index is complete only with this manifest. */
export function mustBeThere({ platform }: Descriptor, { indexes }: Validation): boolean {
  if (typeof indexes === 'string') return indexes === 'all';
  return indexes.some(({ os, architecture }) => platform?.os === os && platform.architecture === architecture);
}
