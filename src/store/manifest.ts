import { RegistryError } from '../errors.js';
import { type Digest, isDigest } from '../reference.js';
import { parseStrictJson } from './json.js';

/** The media types of manifests that this registry stores, and what each refers to. */
const KINDS: Readonly<Record<string, 'image' | 'index' | 'artifact'>> = {
  'application/vnd.oci.image.manifest.v1+json': 'image',
  'application/vnd.docker.distribution.manifest.v2+json': 'image',
  'application/vnd.oci.image.index.v1+json': 'index',
  'application/vnd.docker.distribution.manifest.list.v2+json': 'index',
  'application/vnd.oci.artifact.manifest.v1+json': 'artifact',
};

/** Docker schema 1, which only an old volume can hold: given back, never taken. */
const SIGNED_SCHEMA_1 = 'application/vnd.docker.distribution.manifest.v1+prettyjws';

export interface Descriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly size: number;
  readonly urls?: readonly string[];
  readonly artifactType?: string;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly platform?: { readonly os?: string; readonly architecture?: string; readonly variant?: string };
}

/** What the registry needs to know of a manifest (image-spec, manifest.md and image-index.md). */
export interface Manifest {
  readonly mediaType: string;
  readonly kind: 'image' | 'index' | 'artifact';
  /** Blobs that it needs. Those that clients fetch from elsewhere (foreign, non-distributable layers) are left out. */
  readonly blobs: readonly Descriptor[];
  /** Manifests that an index lists; BuildKit lists layers of its caches here. */
  readonly manifests: readonly Descriptor[];
  readonly config?: Descriptor;
  readonly subject?: Descriptor;
  /** Every URL that one of its descriptors names. */
  readonly urls: readonly string[];
  /** As the referrers API gives it: the manifest's own, else an image's config media type. */
  readonly artifactType?: string;
  readonly annotations?: Readonly<Record<string, string>>;
}

/**
 * Reads a manifest that a client pushes.
 * @param contentType the request's Content-Type, or undefined where it had none
 * @throws RegistryError MANIFEST_INVALID that says which member is wrong
 */
export function parseManifest(data: Uint8Array, contentType: string | undefined): Manifest {
  let value: unknown;
  try {
    value = parseStrictJson(data);
  } catch (error) {
    throw invalid(`not valid JSON: ${(error as Error).message.slice(0, 200)}`);
  }
  const members = object(value, 'manifest');
  const mediaType = mediaTypeOf(members);
  const given = contentType?.replace(/;.*/s, '').trim();
  if (mediaType === undefined || !Object.hasOwn(KINDS, mediaType))
    throw invalid(`unsupported media type ${quote(mediaType ?? given ?? 'unknown')}`);
  // The layout keeps no media type: what cannot be read from the body again could not be given back as it was pushed.
  if (given !== undefined && given !== mediaType)
    throw invalid(`Content-Type ${quote(given)} differs from the manifest's media type ${quote(mediaType)}`);
  if ('layers' in members && 'manifests' in members) throw invalid('both "layers" and "manifests" (CVE-2021-41190)');
  const kind = KINDS[mediaType]!;
  if (kind !== 'artifact' && members.schemaVersion !== 2) throw invalid('"schemaVersion" is not 2');

  const config = kind === 'image' ? descriptor(members.config, 'config') : undefined;
  const layers = kind === 'index' ? [] : descriptors(members, kind === 'image' ? 'layers' : 'blobs', kind === 'image');
  const subject = members.subject === undefined ? undefined : descriptor(members.subject, 'subject');
  const artifactType = optionalString(members, 'artifactType') || (kind === 'image' ? config?.mediaType : undefined);
  const annotations = annotationsOf(members, 'annotations');
  const blobs = [...(config ? [config] : []), ...layers];
  const manifests = kind === 'index' ? descriptors(members, 'manifests', true) : [];
  return {
    mediaType,
    kind,
    blobs: blobs.filter(blob => blob === config || !isForeign(blob)),
    manifests,
    urls: [...blobs, ...manifests].flatMap(({ urls }) => urls ?? []),
    ...(config && { config }),
    ...(subject && { subject }),
    ...(artifactType && { artifactType }),
    ...(annotations && { annotations }),
  };
}

/** A manifest that is stored already, whoever wrote it; undefined where it is none that `parseManifest` takes. */
export function readManifest(data: Uint8Array): Manifest | undefined {
  try {
    return parseManifest(data, undefined);
  } catch {
    return undefined;
  }
}

/** Whether a descriptor of this type is of a manifest that this registry takes, and not of a blob. */
export function isManifest(mediaType: string): boolean {
  return Object.hasOwn(KINDS, mediaType);
}

export function isIndex(mediaType: string): boolean {
  return Object.hasOwn(KINDS, mediaType) && KINDS[mediaType] === 'index';
}

/** The descriptor of a manifest as the referrers API gives it. @param size in bytes */
export function describe({ mediaType, artifactType, annotations }: Manifest, digest: Digest, size: number): Descriptor {
  return { mediaType, digest, size, ...(artifactType && { artifactType }), ...(annotations && { annotations }) };
}

/** The media type of a manifest that is stored already, whoever wrote it; undefined where it is none. */
export function storedMediaType(data: Uint8Array): string | undefined {
  try {
    return mediaTypeOf(object(JSON.parse(Buffer.from(data).toString('utf8')), 'manifest'));
  } catch {
    return undefined;
  }
}

function mediaTypeOf(members: Record<string, unknown>): string | undefined {
  if (members.schemaVersion === 1 && 'signatures' in members) return SIGNED_SCHEMA_1;
  const own = optionalString(members, 'mediaType');
  if (own) return own;
  if ('manifests' in members) return 'application/vnd.oci.image.index.v1+json';
  if ('config' in members || 'layers' in members) return 'application/vnd.oci.image.manifest.v1+json';
  return undefined;
}

function isForeign({ mediaType, urls }: Descriptor): boolean {
  return /\.(foreign|nondistributable)\./.test(mediaType) || (urls !== undefined && urls.length > 0);
}

function descriptors(members: Record<string, unknown>, name: string, required: boolean): Descriptor[] {
  const list = members[name] ?? (required ? undefined : []);
  if (!Array.isArray(list)) throw invalid(`"${name}" is not a list`);
  return list.map((entry, index) => descriptor(entry, `${name}[${index}]`));
}

function descriptor(value: unknown, where: string): Descriptor {
  const members = object(value, where);
  const { digest, size } = members;
  if (typeof digest !== 'string' || !isDigest(digest)) throw invalid(`"${where}.digest" is not a digest`);
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0)
    throw invalid(`"${where}.size" is not a size`);
  const mediaType = optionalString(members, 'mediaType', where);
  if (!mediaType) throw invalid(`"${where}.mediaType" is missing`);
  const { urls } = members;
  if (urls !== undefined && urls !== null && !(Array.isArray(urls) && urls.every(url => typeof url === 'string')))
    throw invalid(`"${where}.urls" is not a list of strings`);
  const artifactType = optionalString(members, 'artifactType', where);
  const annotations = annotationsOf(members, `${where}.annotations`);
  const platform = platformOf(members);
  return {
    mediaType,
    digest,
    size,
    ...(Array.isArray(urls) && { urls: urls as string[] }),
    ...(artifactType && { artifactType }),
    ...(annotations && { annotations }),
    ...(platform && { platform }),
  };
}

/** What does not look like a platform is none: nothing but the choice of what must be there depends on it. */
function platformOf({ platform }: Record<string, unknown>): Descriptor['platform'] {
  if (typeof platform !== 'object' || platform === null) return undefined;
  const { os, architecture, variant } = platform as Record<string, unknown>;
  return {
    ...(typeof os === 'string' && { os }),
    ...(typeof architecture === 'string' && { architecture }),
    ...(typeof variant === 'string' && { variant }),
  };
}

function annotationsOf(members: Record<string, unknown>, where: string): Record<string, string> | undefined {
  const { annotations } = members;
  if (annotations === undefined || annotations === null) return undefined;
  const entries = Object.entries(object(annotations, where));
  if (entries.some(([, value]) => typeof value !== 'string')) throw invalid(`"${where}" has a value that is no string`);
  return Object.fromEntries(entries) as Record<string, string>;
}

function optionalString(members: Record<string, unknown>, name: string, where?: string): string | undefined {
  const value = members[name];
  if (value === undefined || value === null) return undefined;
  if (typeof value !== 'string') throw invalid(`"${where ? `${where}.` : ''}${name}" is not a string`);
  return value;
}

function object(value: unknown, where: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw invalid(`"${where}" is not an object`);
  return value as Record<string, unknown>;
}

function quote(text: string): string {
  return JSON.stringify(text.slice(0, 128));
}

function invalid(message: string): RegistryError {
  return new RegistryError('MANIFEST_INVALID', { message: `manifest invalid: ${message}` });
}
