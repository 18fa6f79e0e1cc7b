import { createHash } from 'node:crypto';
import type { Digest } from '../../src/reference.js';

export const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
export const OCI_INDEX = 'application/vnd.oci.image.index.v1+json';
export const OCI_CONFIG = 'application/vnd.oci.image.config.v1+json';
export const OCI_LAYER = 'application/vnd.oci.image.layer.v1.tar+gzip';

export function digestOf(data: Buffer, algorithm: 'sha256' | 'sha512' = 'sha256'): Digest {
  return `${algorithm}:${createHash(algorithm).update(data).digest('hex')}`;
}

export function descriptorOf(data: Buffer, mediaType: string): { mediaType: string; digest: Digest; size: number } {
  return { mediaType, digest: digestOf(data), size: data.length };
}

/** An OCI image manifest of the given config and layers. */
export function manifestOf(
  config: Buffer,
  layers: readonly Buffer[],
  more: Partial<Record<string, unknown>> = {},
): Buffer {
  return Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config: descriptorOf(config, OCI_CONFIG),
      layers: layers.map(layer => descriptorOf(layer, OCI_LAYER)),
      ...more,
    }),
  );
}

/** An index of stored manifests. */
export function indexOf(manifests: readonly Buffer[], more: Partial<Record<string, unknown>> = {}): Buffer {
  return Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: OCI_INDEX,
      manifests: manifests.map(data => descriptorOf(data, OCI_MANIFEST)),
      ...more,
    }),
  );
}
