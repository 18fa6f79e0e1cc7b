import { createHash, randomBytes } from 'node:crypto';
import { digestOf, manifestOf, OCI_MANIFEST } from '../support/content.js';
import { Random } from '../support/random.js';

const CHUNK = 1 << 20;
const common = Buffer.from(new Random(7).bytes(CHUNK));

/**
 * A blob that nothing can compress and no other is like, without being kept: one chunk that begins with bytes of its own
 * and then the same one over and over.
 */
export class Blob {
  readonly digest: string;

  private constructor(
    readonly size: number,
    private readonly own: Buffer,
  ) {
    const hash = createHash('sha256');
    for (const piece of this.pieces()) hash.update(piece);
    this.digest = `sha256:${hash.digest('hex')}`;
  }

  /** One that no registry has yet. */
  static fresh(size: number): Blob {
    return new Blob(size, randomBytes(32));
  }

  /** The same one each time. */
  static known(size: number, seed: number): Blob {
    return new Blob(size, new Random(seed).bytes(32));
  }

  *pieces(): Generator<Buffer> {
    let piece = Buffer.from(common.subarray(0, this.size));
    this.own.copy(piece);
    for (let left = this.size; left > 0; left -= CHUNK, piece = common) yield piece.subarray(0, left);
  }

  /** All of it, for a small one. */
  whole(): Buffer {
    return Buffer.concat([...this.pieces()]);
  }
}

interface Image {
  readonly config: Buffer;
  readonly layers: readonly Buffer[];
  readonly manifest: Buffer;
}

/** Ten layers of 10 KB, a config and a manifest of about 2 KB. */
export function imageOf(blob: (size: number, index: number) => Blob): Image {
  const layers = Array.from({ length: 10 }, (_, index) => blob(10_000, index).whole());
  const unique = blob(16, 10).whole().toString('hex');
  const config = Buffer.from(JSON.stringify({ architecture: 'amd64', os: 'linux', unique }));
  return { config, layers, manifest: manifestOf(config, layers) };
}

/** What every server holds before anything is measured. */
export interface Holdings {
  readonly repository: string;
  readonly image: Image;
  readonly tags: readonly string[];
  /** The blobs that are pulled: of the size that was asked for, and of 1 MiB. */
  readonly big: Blob;
  readonly small: Blob;
}

export const MIB = 1 << 20;

export function holdings(bytes: number): Holdings {
  return {
    repository: 'bench/app',
    image: imageOf((size, index) => Blob.known(size, 100 + index)),
    tags: Array.from({ length: 100 }, (_, index) => `v${index}`),
    big: Blob.known(bytes, 1),
    small: Blob.known(MIB, 2),
  };
}

export const ACCEPT = `${OCI_MANIFEST}, application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.v2+json`;

/** Paths of the holdings, as a client asks for them. */
export const paths = {
  tag: ({ repository }: Holdings, tag: string) => `/v2/${repository}/manifests/${tag}`,
  manifest: ({ repository, image }: Holdings) => `/v2/${repository}/manifests/${digestOf(image.manifest)}`,
  blob: ({ repository }: Holdings, digest: string) => `/v2/${repository}/blobs/${digest}`,
  referrers: ({ repository, image }: Holdings) => `/v2/${repository}/referrers/${digestOf(image.manifest)}`,
  tags: ({ repository }: Holdings) => `/v2/${repository}/tags/list`,
};
