import { type Descriptor, isManifest, type Manifest } from '../store/manifest.js';

/** In Go's words, as image-spec has them (image-index.md). */
export interface Platform {
  readonly os: string;
  readonly architecture: string;
}

const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64', ia32: '386', ppc64: 'ppc64le' };

/** What images are run on here. Containers run Linux, also where Docker brings one along. */
export const HERE: Platform = { os: 'linux', architecture: ARCHITECTURES[process.arch] ?? process.arch };

/** The manifest of an index for a platform, or the only one that it has; undefined where there is none. */
export function ofPlatform({ manifests }: Manifest, { os, architecture }: Platform): Descriptor | undefined {
  const images = manifests.filter(
    // BuildKit lists its attestations for a platform that nobody has.
    one => isManifest(one.mediaType) && one.platform?.architecture !== 'unknown',
  );
  return (
    images.find(({ platform }) => platform?.os === os && platform.architecture === architecture) ??
    (images.length === 1 ? images[0] : undefined)
  );
}
