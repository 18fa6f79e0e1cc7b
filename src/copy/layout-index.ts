import { OperatorError } from '../errors.js';
import { algorithmOf, type Digest, hexOf, isDigest } from '../reference.js';
import type { Descriptor } from '../store/manifest.js';
import { type Files, listOf, membersOf, readJson } from './files.js';
import { type ImageName, parseImageName, Shelf } from './names.js';
import type { PlacedManifest } from './place.js';

/** image-spec, image-layout.md. */
export const INDEX = 'index.json';
export const MARK = 'oci-layout';
export const MARK_CONTENT = Buffer.from('{"imageLayoutVersion":"1.0.0"}');
const INDEX_TYPE = 'application/vnd.oci.image.index.v1+json';

/** The name of an entry by image-spec (annotations.md), and by containerd and Docker. */
const REF_NAME = 'org.opencontainers.image.ref.name';
const FULL_NAME = 'io.containerd.image.name';
/** Of an index of ours: manifests are what they were where they were copied from, and not made for the archive. */
const AS_PUSHED = 'registry-secure.as-pushed';

export function blobPath(digest: Digest): string {
  return `blobs/${algorithmOf(digest)}/${hexOf(digest)}`;
}

type Entry = Pick<Descriptor, 'mediaType' | 'digest' | 'size' | 'annotations'>;

/** `index.json` of an image layout: which images it has, by which names. */
export class LayoutIndex {
  private constructor(
    private readonly name: string,
    /** Which repository is meant where an entry names none. */
    private readonly own: string,
    private all: readonly Entry[],
    readonly asPushed: boolean,
  ) {}

  static empty(name: string, own: string): LayoutIndex {
    return new LayoutIndex(name, own, [], true);
  }

  /** @returns undefined where there is no layout @throws OperatorError where it is damaged */
  static async read(files: Files, own: string): Promise<LayoutIndex | undefined> {
    const value = await readJson(files, INDEX);
    if (value === undefined) return undefined;
    const { manifests, annotations } = membersOf(value);
    if (!Array.isArray(manifests))
      throw new OperatorError(`${files.name}: ${INDEX} lists no images`, { fix: 'make it again' });
    const entries = manifests.map((one, at) => entryOf(one, `${files.name}: ${INDEX}: manifests[${at}]`));
    return new LayoutIndex(files.name, own, entries, membersOf(annotations)[AS_PUSHED] === 'true');
  }

  get entries(): readonly Entry[] {
    return this.all;
  }

  /** By all the names that entries have. */
  get shelf(): Shelf<Digest> {
    const shelf = new Shelf<Digest>(this.name);
    for (const entry of this.all)
      for (const written of writtenOf(entry).slice(0, 1)) {
        const name = parseImageName(written, this.own);
        if (name) shelf.add(name, entry.digest, written);
      }
    return shelf;
  }

  entryOf(digest: Digest): Entry | undefined {
    return this.all.find(entry => entry.digest === digest);
  }

  /** The tag of an entry; undefined for what is there without one. */
  nameOf(entry: Entry): ImageName | undefined {
    return writtenOf(entry).flatMap(written => parseImageName(written, this.own) ?? [])[0];
  }

  /**
   * Lets a tag point at a manifest, or lists one without a tag.
   * @param fullName what Docker is to call it; undefined where no Docker reads it
   * @returns false where it was so
   */
  put(manifest: PlacedManifest, name: ImageName | undefined, fullName?: string): boolean {
    const { mediaType, digest, data } = manifest;
    const same = (one: ImageName | undefined) => one?.repository === name?.repository && one?.tag === name?.tag;
    if (this.all.some(entry => entry.digest === digest && (!name || same(this.nameOf(entry))))) return false;
    const annotations = name && {
      [REF_NAME]: `${name.repository}:${name.tag}`,
      ...(fullName !== undefined && { [FULL_NAME]: fullName }),
    };
    this.all = [
      ...this.all.filter(entry =>
        name ? !same(this.nameOf(entry)) && (entry.digest !== digest || this.nameOf(entry)) : true,
      ),
      { mediaType, digest, size: data.length, ...(annotations && { annotations }) },
    ];
    return true;
  }

  toJson(): Buffer {
    const index = {
      schemaVersion: 2,
      mediaType: INDEX_TYPE,
      manifests: this.all,
      ...(this.asPushed && { annotations: { [AS_PUSHED]: 'true' } }),
    };
    return Buffer.from(JSON.stringify(index));
  }
}

/** The name with the most in it first. */
function writtenOf({ annotations }: Entry): string[] {
  return [annotations?.[FULL_NAME], annotations?.[REF_NAME]].filter(name => name !== undefined);
}

function entryOf(value: unknown, where: string): Entry {
  const { mediaType, digest, size, annotations, ...rest } = membersOf(value);
  if (typeof digest !== 'string' || !isDigest(digest))
    throw new OperatorError(`${where} has no digest`, { fix: 'make it again' });
  if (typeof mediaType !== 'string' || typeof size !== 'number')
    throw new OperatorError(`${where} has no media type, or no size`, { fix: 'make it again' });
  const told = Object.entries(membersOf(annotations)).filter(([, text]) => typeof text === 'string');
  return {
    ...rest,
    mediaType,
    digest,
    size,
    ...(told.length > 0 && { annotations: Object.fromEntries(told) as Record<string, string> }),
  };
}

/** Layers of an image that are not compressed, by their media types. */
export function hasPlainLayers(manifest: unknown): boolean {
  return listOf(membersOf(manifest).layers).some(layer =>
    /\.(?:tar|diff\.tar)$/.test(String(membersOf(layer).mediaType)),
  );
}
