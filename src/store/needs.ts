import type { Digest } from '../reference.js';
import { type Manifest, readManifest } from './manifest.js';
import { referencesOf } from './references.js';
import { mustBeThere, type Validation } from './validation.js';

/** What a stored manifest is not whole without, and what it may have. */
export interface Needs {
  /** As this version reads it; undefined for what only an older one took. */
  readonly manifest: Manifest | undefined;
  /** Config and layers, without those that clients fetch from elsewhere. */
  readonly blobs: readonly Digest[];
  /** What an index lists: manifests and, in BuildKit's caches, blobs. */
  readonly manifests: readonly Digest[];
  readonly subject: Digest | undefined;
}

/** @returns undefined where it is no manifest at all */
function needsOf(data: Uint8Array): Needs | undefined {
  const manifest = readManifest(data);
  if (!manifest) {
    const references = referencesOf(data);
    return references && { manifest, ...references };
  }
  const digests = (descriptors: readonly { digest: Digest }[]) => [...new Set(descriptors.map(({ digest }) => digest))];
  return {
    manifest,
    blobs: digests(manifest.blobs),
    manifests: digests(manifest.manifests),
    subject: manifest.subject?.digest,
  };
}

/** The same, without what may be missing in this registry: parts of sparse images and indexes. */
export function strictNeedsOf(data: Uint8Array, validation: Validation): Needs | undefined {
  const needs = needsOf(data);
  if (!needs) return undefined;
  const listed = needs.manifest?.manifests.filter(descriptor => mustBeThere(descriptor, validation));
  return {
    ...needs,
    blobs: validation.images === 'none' ? [] : needs.blobs,
    manifests: listed ? listed.map(({ digest }) => digest) : needs.manifests,
  };
}
