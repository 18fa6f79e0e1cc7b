import type { Digest } from '../reference.js';
import { type Manifest, readManifest } from './manifest.js';
import { referencesOf } from './references.js';
import { mustBeThere, type Validation } from './validation.js';

/** What a stored manifest refers to, and without what it is not whole. */
export interface Needs {
  /** As this version reads it; undefined for what only an older one took. */
  readonly manifest: Manifest | undefined;
  /** Config and layers, without those that clients fetch from elsewhere. */
  readonly blobs: readonly Digest[];
  /** What an index lists: manifests and, in BuildKit's caches, blobs. */
  readonly manifests: readonly Digest[];
  /** Of both, what may not be missing in this registry: parts of sparse images and indexes may. */
  readonly required: ReadonlySet<Digest>;
}

/** @returns undefined where it is no manifest at all */
export function needsOf(data: Uint8Array, validation: Validation): Needs | undefined {
  const manifest = readManifest(data);
  if (!manifest) {
    const references = referencesOf(data);
    if (!references) return undefined;
    const { blobs, manifests } = references;
    return { manifest, blobs, manifests, required: new Set([...blobs, ...manifests]) };
  }
  const digests = (descriptors: readonly { digest: Digest }[]) => [...new Set(descriptors.map(({ digest }) => digest))];
  const blobs = digests(manifest.blobs);
  const listed = manifest.manifests.filter(descriptor => mustBeThere(descriptor, validation));
  const required = new Set([...(validation.images === 'none' ? [] : blobs), ...digests(listed)]);
  return { manifest, blobs, manifests: digests(manifest.manifests), required };
}
