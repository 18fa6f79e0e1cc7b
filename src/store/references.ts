import { type Digest, isDigest } from '../reference.js';

/** What a stored manifest refers to. */
export interface References {
  /** Config and layers, foreign ones too. */
  readonly blobs: readonly Digest[];
  /** What an index lists: manifests and, in BuildKit's caches, layers. */
  readonly manifests: readonly Digest[];
  readonly subject: Digest | undefined;
}

/**
 * Reads the references of a manifest that is stored already, whoever wrote it, and however long ago: what `parseManifest`
 * would refuse today is still served. Rather too many than too few.
 * @returns undefined where it is no manifest
 */
export function referencesOf(data: Uint8Array): References | undefined {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(data).toString('utf8'));
  } catch {
    return undefined;
  }
  if (!isObject(value)) return undefined;
  return {
    blobs: [
      ...digestsIn(value, 'config', 'digest'),
      ...digestsIn(value, 'layers', 'digest'),
      // Of OCI artifacts, and of Docker schema 1.
      ...digestsIn(value, 'blobs', 'digest'),
      ...digestsIn(value, 'fslayers', 'blobsum'),
    ],
    manifests: digestsIn(value, 'manifests', 'digest'),
    subject: digestsIn(value, 'subject', 'digest')[0],
  };
}

/** The digests of one descriptor or of a list of them. */
function digestsIn(value: object, name: string, digest: string): Digest[] {
  const descriptors = membersOf(value, name).flat();
  const texts = descriptors.flatMap(descriptor => (isObject(descriptor) ? membersOf(descriptor, digest) : []));
  return texts.filter(text => typeof text === 'string').filter(isDigest);
}

/** In any case of their letters: as clients written in Go read them. */
function membersOf(value: object, name: string): unknown[] {
  return Object.entries(value).flatMap(([key, member]) => (key.toLowerCase() === name ? [member] : []));
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
