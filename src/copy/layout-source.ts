import { OperatorError } from '../errors.js';
import { type Digest, isDigest } from '../reference.js';
import { type Descriptor, readManifest, storedMediaType } from '../store/manifest.js';
import { type Files, readSmall } from './files.js';
import { blobPath, type LayoutIndex } from './layout-index.js';
import type { ImageSource, OnlyImage, OpenBlob, PlacedManifest } from './place.js';

/** An image layout (image-spec, image-layout.md), in a folder or a tar archive. */
export class LayoutSource implements ImageSource {
  readonly name: string;
  readonly #shelf: LayoutIndex['shelf'];
  /** What entries without a tag refer to. */
  #subjects: Promise<ReadonlyMap<Digest, readonly Descriptor[]>> | undefined;

  constructor(
    private readonly files: Files,
    private readonly index: LayoutIndex,
  ) {
    this.name = files.name;
    this.#shelf = index.shelf;
  }

  close(): Promise<void> {
    return this.files.close();
  }

  async *repositories(): AsyncGenerator<string> {
    yield* this.#shelf.repositories();
  }

  async *tags(repository: string): AsyncGenerator<string> {
    yield* this.#shelf.tags(repository);
  }

  async only(): Promise<OnlyImage> {
    return onlyOf(
      this.name,
      // What refers to another image goes along with that.
      (await this.#roots()).map(({ digest, ...entry }) => ({
        repository: this.index.nameOf({ digest, ...entry })?.repository,
        tag: this.index.nameOf({ digest, ...entry })?.tag,
        digest,
      })),
    );
  }

  async #roots(): Promise<LayoutIndex['entries']> {
    const subjects = await this.#readSubjects();
    const referring = new Set([...subjects.values()].flat().map(({ digest }) => digest));
    return this.index.entries.filter(entry => this.index.nameOf(entry) || !referring.has(entry.digest));
  }

  async manifest(repository: string, reference: string): Promise<PlacedManifest | undefined> {
    const digest = isDigest(reference) ? reference : this.#shelf.find(repository, reference);
    const data = digest && (await readSmall(this.files, blobPath(digest)));
    if (!data) {
      if (!digest || isDigest(reference)) return undefined;
      throw new OperatorError(`${this.name} lists ${repository}:${reference}, and has no ${digest}`, {
        fix: 'save the image again',
      });
    }
    return { digest, mediaType: this.index.entryOf(digest)?.mediaType ?? storedMediaType(data) ?? '', data };
  }

  async referrers(_repository: string, subject: Digest): Promise<readonly Descriptor[]> {
    return (await this.#readSubjects()).get(subject) ?? [];
  }

  #readSubjects(): Promise<ReadonlyMap<Digest, readonly Descriptor[]>> {
    this.#subjects ??= (async () => {
      const subjects = new Map<Digest, Descriptor[]>();
      for (const entry of this.index.entries) {
        if (this.index.nameOf(entry)) continue;
        const data = await readSmall(this.files, blobPath(entry.digest));
        const subject = data && readManifest(data)?.subject?.digest;
        if (subject) subjects.set(subject, [...(subjects.get(subject) ?? []), entry]);
      }
      return subjects;
    })();
    return this.#subjects;
  }

  openBlob(_repository: string, { digest }: Descriptor): OpenBlob {
    return start => this.files.open(blobPath(digest), start);
  }
}

/** @throws OperatorError where there is none, or more than one */
export function onlyOf(
  place: string,
  images: ReadonlyArray<{ repository: string | undefined; tag: string | undefined; digest: Digest }>,
): OnlyImage {
  const [first] = images;
  if (!first) throw new OperatorError(`there are no images in ${place}`);
  const { repository, tag, digest } = first;
  if (images.every(image => image.digest === digest)) return { repository, reference: tag ?? digest, tag };
  const names = images.map(image => (image.tag === undefined ? image.digest : `${image.repository}:${image.tag}`));
  throw new OperatorError(`${place} has ${images.length} images: ${names.slice(0, 10).join(', ')}`, {
    fix: `name one of them, as in ${place}#${names[0]}, or copy them with --all`,
    exitCode: 2,
  });
}
