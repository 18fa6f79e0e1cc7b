import type { Config } from '../config/schema.js';
import type { Validation } from '../store/validation.js';

/** What the configuration asks of manifests. */
export function validationOf({ validation: { disabled, manifests } }: Config): Validation {
  const { urls, indexes, images } = manifests;
  const compile = (patterns: readonly string[]) => patterns.map(pattern => new RegExp(pattern, 'u'));
  const restricted = urls.allow.length > 0 || urls.deny.length > 0;
  const platforms = indexes.platformlist.length > 0 ? indexes.platformlist : 'all';
  return {
    urls: restricted && !disabled ? { allow: compile(urls.allow), deny: compile(urls.deny) } : undefined,
    indexes: disabled ? 'none' : indexes.platforms === 'list' ? platforms : indexes.platforms,
    images: images.blobs,
  };
}
