import type { Digest } from '../reference.js';
import type { Descriptor } from '../store/manifest.js';

/** A manifest with the bytes that its digest is of. */
export interface PlacedManifest {
  readonly digest: Digest;
  readonly mediaType: string;
  readonly data: Buffer;
}

/** Opens a blob at a byte; chunks may be used again once the next one is asked for. */
export type OpenBlob = (start: number) => AsyncIterable<Uint8Array>;

/** Where images come from. All of it rejects with an OperatorError that names the place. */
export interface ImageSource {
  /** For people. */
  readonly name: string;
  /** All repositories, in any order. */
  repositories(): AsyncIterable<string>;
  /** All tags of a repository; none where there is no such repository. */
  tags(repository: string): AsyncIterable<string>;
  /** @param reference a tag or a digest @returns undefined where there is none; its bytes are not yet checked */
  manifest(repository: string, reference: string): Promise<PlacedManifest | undefined>;
  /** What has the manifest as its subject, as far as the place can tell. */
  referrers(repository: string, subject: Digest): Promise<readonly Pick<Descriptor, 'digest'>[]>;
  openBlob(repository: string, blob: Descriptor): OpenBlob;
  close(): Promise<void>;
}

/** Where images go. What it has said to have, and what it has taken, is there durably, as far as the place promises that. */
export interface ImageTarget {
  readonly name: string;
  /** What a tag points at; undefined where there is none. */
  resolve(repository: string, tag: string): Promise<Digest | undefined>;
  hasManifest(repository: string, digest: Digest): Promise<boolean>;
  hasBlob(repository: string, blob: Descriptor): Promise<boolean>;
  /** Takes over what another repository of this place has; false where that cannot be done. */
  mount(repository: string, blob: Descriptor, from: string): Promise<boolean>;
  /** Takes the bytes only if they are what the digest says. */
  putBlob(repository: string, blob: Descriptor, open: OpenBlob): Promise<void>;
  /** @param tag undefined: by its digest alone. What it refers to is there. */
  putManifest(repository: string, manifest: PlacedManifest, tag: string | undefined): Promise<void>;
  close(): Promise<void>;
}
