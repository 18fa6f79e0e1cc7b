import type { Digest } from '../reference.js';
import type { Descriptor } from '../store/manifest.js';
import type { Platform } from './platform.js';

/** A manifest with the bytes that its digest is of. */
export interface PlacedManifest {
  readonly digest: Digest;
  readonly mediaType: string;
  readonly data: Buffer;
}

/** Opens a blob at a byte; chunks may be used again once the next one is asked for. */
export type OpenBlob = (start: number) => AsyncIterable<Uint8Array>;

/** The image of a place that has no more. */
export interface OnlyImage {
  /** Undefined where it has no name there. */
  readonly repository: string | undefined;
  readonly tag: string | undefined;
  /** What the place finds it by: the tag, or a digest. */
  readonly reference: string;
}

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
  /** The image that is meant where none is named, in a place that usually has one. @throws OperatorError for none or several */
  only?(): Promise<OnlyImage>;
  /** For a list, where there is no manifest before an image is asked for: its ID, and its size in bytes. */
  about?(repository: string, tag: string): Promise<{ readonly digest: Digest; readonly bytes: number } | undefined>;
  /** An image has been copied: what was kept of it for that may go. */
  release?(repository: string, reference: string): Promise<void>;
  close(): Promise<void>;
}

/** Where images go. What it has said to have, and what it has taken, is there durably, as far as the place promises that. */
export interface ImageTarget {
  readonly name: string;
  /** Of all platforms of an image it takes this one, and nothing that belongs to the image. All where it is not there. */
  readonly platform?: Platform;
  /**
   * What a tag points at; undefined where there is none.
   * @param wanted what it is compared with, by a place that does not know images by the digests of their manifests
   */
  resolve(repository: string, tag: string, wanted: PlacedManifest): Promise<Digest | undefined>;
  /** @param isPart whether it would do as what an index lists */
  hasManifest(repository: string, digest: Digest, options: { readonly isPart: boolean }): Promise<boolean>;
  hasBlob(repository: string, blob: Descriptor): Promise<boolean>;
  /** A repository of this place that has it, as far as the place can tell. */
  holderOf?(blob: Descriptor): Promise<string | undefined>;
  /** Takes over what another repository of this place has; false where that cannot be done. */
  mount(repository: string, blob: Descriptor, from: string): Promise<boolean>;
  /** Takes the bytes only if they are what the digest says. */
  putBlob(repository: string, blob: Descriptor, open: OpenBlob): Promise<void>;
  /**
   * What it refers to is there.
   * @param tag undefined: by its digest alone
   * @param isPart whether it belongs to an index that comes later
   */
  putManifest(
    repository: string,
    manifest: PlacedManifest,
    tag: string | undefined,
    options: { readonly isPart: boolean },
  ): Promise<void>;
  /** Makes what was taken visible, where that is done for all of it at once. */
  finish?(): Promise<void>;
  close(): Promise<void>;
}
