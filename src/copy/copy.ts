import { createHash } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import { OperatorError } from '../errors.js';
import { algorithmOf, type Digest, hexOf } from '../reference.js';
import { type Descriptor, isManifest, type Manifest, parseManifest } from '../store/manifest.js';
import { Gate } from './gate.js';
import type { ImageSource, ImageTarget, OpenBlob, PlacedManifest } from './place.js';
import { ofPlatform } from './platform.js';

/** One image to be copied. */
export interface ImagePair {
  readonly from: { readonly repository: string /** A tag or a digest. */; readonly reference: string };
  readonly to: { readonly repository: string /** Undefined: by its digest alone. */; readonly tag: string | undefined };
}

export interface CopyOptions {
  /** How many images, and how many blobs of all of them together, are under way at a time. */
  readonly jobs: number;
  /** Says what would be copied, and copies nothing. */
  readonly dryRun?: boolean;
  /** Leaves signatures and whatever else refers to an image behind. */
  readonly withoutReferrers?: boolean;
  /** Told of each image as it is done. */
  readonly onImage?: (done: CopiedImage) => void;
  /** Bytes that have arrived, and those known to be to come, in all so far. */
  readonly onProgress?: (done: number, total: number) => void;
}

export interface CopiedImage {
  readonly pair: ImagePair;
  /** `same`: the tag was there already, and pointed at the same. */
  readonly outcome: 'new' | 'moved' | 'same' | 'failed';
  readonly digest?: Digest;
  /** That had to be brought (in a dry run: that would). */
  readonly bytes: number;
  /** Why it failed. */
  readonly problem?: string;
}

export interface CopyReport {
  readonly images: Readonly<Record<CopiedImage['outcome'], number>>;
  readonly blobs: { readonly copied: number; readonly mounted: number; readonly present: number };
  /** Of blobs that were copied. */
  readonly bytes: number;
}

/** How deep indexes may lie in one another. */
export const DEEPEST = 8;
/** What may refer to one image, with its platforms. */
const MOST_REFERRERS = 10_000;
/** How often a blob is read on where its source breaks off without a byte more. */
const TRIES = 3;
/** Of blobs, where in the target they were last put. */
const REMEMBERED = 50_000;

/**
 * Copies images with all that they need: only what is missing, the manifests last, so that nothing is ever half there; with
 * what refers to them, such as signatures. All bytes are held against their digests on the way.
 */
export class Copier {
  readonly #images = { new: 0, moved: 0, same: 0, failed: 0 };
  readonly #blobs = { copied: 0, mounted: 0, present: 0 };
  #bytes = 0;
  #arrived = 0;
  #expected = 0;
  readonly #transfers: Gate;
  /** What is under way, so that images that share a layer wait for one copy of it. */
  readonly #underWay = new Map<string, Promise<number>>();
  readonly #placed = new LRUCache<Digest, string>({ max: REMEMBERED });

  constructor(
    private readonly source: ImageSource,
    private readonly target: ImageTarget,
    private readonly options: CopyOptions,
  ) {
    this.#transfers = new Gate(options.jobs);
  }

  /**
   * Never rejects because of one image: the report says how many failed. Whatever else it rejects with, all that was under way
   * has ended by then.
   */
  async run(pairs: AsyncIterable<ImagePair>): Promise<CopyReport> {
    const images = new Gate(this.options.jobs);
    const running = new Set<Promise<void>>();
    let fault: { readonly error: unknown } | undefined;
    try {
      for await (const pair of pairs) {
        const leave = await images.enter();
        if (fault) break;
        const task = this.#image(pair)
          .catch((error: unknown) => {
            fault ??= { error };
          })
          .finally(() => {
            leave();
            running.delete(task);
          });
        running.add(task);
      }
    } finally {
      await Promise.all(running);
    }
    if (fault) throw fault.error;
    if (!this.options.dryRun) await this.target.finish?.();
    return { images: { ...this.#images }, blobs: { ...this.#blobs }, bytes: this.#bytes };
  }

  async #image(pair: ImagePair): Promise<void> {
    const done = await this.#copyImage(pair).catch((error: unknown): CopiedImage => {
      if (!(error instanceof OperatorError)) throw error;
      const problem = error.fix === undefined ? error.message : `${error.message}; ${error.fix}`;
      return { pair, outcome: 'failed', bytes: 0, problem };
    });
    await this.source.release?.(pair.from.repository, pair.from.reference);
    this.#images[done.outcome]++;
    this.options.onImage?.(done);
  }

  async #copyImage(pair: ImagePair): Promise<CopiedImage> {
    const { from, to } = pair;
    const manifest = await this.#forTarget(await this.#manifest(from.repository, from.reference), from.repository);
    const { digest } = manifest;
    const before = to.tag === undefined ? undefined : await this.target.resolve(to.repository, to.tag, manifest);
    const isThere =
      to.tag === undefined
        ? await this.target.hasManifest(to.repository, digest, { isPart: false })
        : before === digest;
    let bytes = isThere ? 0 : await this.#tree(pair, manifest, to.tag, 0);
    if (!this.options.withoutReferrers && !this.target.platform) bytes += await this.#belonging(pair, manifest);
    return { pair, outcome: isThere ? 'same' : before === undefined ? 'new' : 'moved', digest, bytes };
  }

  /** The image itself, or that of the one platform that the target takes. */
  async #forTarget(placed: PlacedManifest, repository: string): Promise<PlacedManifest> {
    const { platform } = this.target;
    for (let found = placed, depth = 0; ; depth++) {
      const manifest = this.#parsed(found, repository);
      if (!platform || manifest.kind !== 'index') return found;
      const chosen = ofPlatform(manifest, platform);
      if (!chosen || depth === DEEPEST)
        throw new OperatorError(
          `${this.source.name}/${repository}@${placed.digest} has no image for ${platform.os}/${platform.architecture}`,
        );
      found = await this.#manifest(repository, chosen.digest);
    }
  }

  /** What refers to an image, to a platform of it, or to what refers to that. @returns bytes brought */
  async #belonging(pair: ImagePair, placed: PlacedManifest): Promise<number> {
    const subjects = [
      placed.digest,
      ...this.#parsed(placed, pair.from.repository).manifests.map(({ digest }) => digest),
    ];
    const seen = new Set<Digest>(subjects);
    let bytes = 0;
    for (const subject of subjects) {
      // Lists may name one another, and what is in none of them by right.
      if (seen.size > MOST_REFERRERS)
        throw new OperatorError(`${this.source.name}/${pair.from.repository}: too much refers to ${placed.digest}`, {
          fix: 'copy it with --no-referrers',
        });
      for (const { digest } of await this.source.referrers(pair.from.repository, subject)) {
        if (seen.has(digest)) continue;
        seen.add(digest);
        subjects.push(digest);
        if (!(await this.target.hasManifest(pair.to.repository, digest, { isPart: false })))
          bytes += await this.#tree(pair, await this.#manifest(pair.from.repository, digest), undefined, 0);
      }
    }
    return bytes;
  }

  /** A manifest and all below it. @returns bytes brought */
  async #tree(pair: ImagePair, placed: PlacedManifest, tag: string | undefined, depth: number): Promise<number> {
    const { from, to } = pair;
    const manifest = this.#parsed(placed, from.repository);
    const children: Descriptor[] = [];
    const blobs = [...manifest.blobs];
    // BuildKit lists the layers of its caches among the manifests.
    for (const child of manifest.manifests) (isManifest(child.mediaType) ? children : blobs).push(child);
    if (children.length > 0 && depth === DEEPEST)
      throw new OperatorError(`${this.source.name}/${from.repository}: its indexes lie more than ${DEEPEST} deep`);
    let bytes = 0;
    for (const child of children) {
      if (await this.target.hasManifest(to.repository, child.digest, { isPart: true })) continue;
      const found = await this.source.manifest(from.repository, child.digest);
      // An index may list platforms that were never pushed; the target says whether it takes one.
      if (found) bytes += await this.#tree(pair, this.#checked(found), undefined, depth + 1);
    }
    bytes += await this.#all(pair, unique(blobs));
    if (!this.options.dryRun) await this.target.putManifest(to.repository, placed, tag, { isPart: depth > 0 });
    return bytes;
  }

  /** Ends when all have ended, and not with the first that fails: nothing goes on behind the back of who waits. */
  async #all(pair: ImagePair, blobs: readonly Descriptor[]): Promise<number> {
    const ended = await Promise.allSettled(blobs.map(blob => this.#blob(pair, blob)));
    return ended.reduce((sum, one) => {
      if (one.status === 'rejected') throw one.reason;
      return sum + one.value;
    }, 0);
  }

  #blob({ from, to }: ImagePair, blob: Descriptor): Promise<number> {
    const key = `${to.repository}@${blob.digest}`;
    const running = this.#underWay.get(key);
    // Whoever waits has brought none of it.
    if (running) return running.then(() => 0);
    const task = this.#transfers
      .pass(() => this.#place(from.repository, to.repository, blob))
      .finally(() => this.#underWay.delete(key));
    this.#underWay.set(key, task);
    return task;
  }

  async #place(from: string, to: string, blob: Descriptor): Promise<number> {
    if (await this.target.hasBlob(to, blob)) {
      this.#blobs.present++;
      this.#placed.set(blob.digest, to);
      return 0;
    }
    if (this.options.dryRun) return blob.size;
    const other = this.#placed.get(blob.digest) ?? (await this.target.holderOf?.(blob));
    if (other !== undefined && other !== to && (await this.target.mount(to, blob, other))) {
      this.#blobs.mounted++;
      return 0;
    }
    this.#expected += blob.size;
    await this.target.putBlob(to, blob, this.#counted(blob, whole(blob, this.source.openBlob(from, blob))));
    this.#placed.set(blob.digest, to);
    this.#blobs.copied++;
    this.#bytes += blob.size;
    return blob.size;
  }

  #counted(blob: Descriptor, open: OpenBlob): OpenBlob {
    const { onProgress } = this.options;
    let counted = 0;
    const count = (bytes: number) => {
      // What has to be sent again has arrived once.
      const more = Math.max(0, bytes - counted);
      counted += more;
      this.#arrived += more;
      onProgress?.(this.#arrived, this.#expected);
    };
    return async function* (start) {
      let at = start;
      for await (const chunk of open(start)) {
        yield chunk;
        at += chunk.length;
        count(Math.min(at, blob.size));
      }
    };
  }

  async #manifest(repository: string, reference: string): Promise<PlacedManifest> {
    const found = await this.source.manifest(repository, reference);
    if (found) return this.#checked(found);
    const joint = reference.includes(':') ? '@' : ':';
    throw new OperatorError(`${this.source.name} has no ${repository}${joint}${reference}`);
  }

  #checked(manifest: PlacedManifest): PlacedManifest {
    const { digest, data } = manifest;
    if (createHash(algorithmOf(digest)).update(data).digest('hex') === hexOf(digest)) return manifest;
    throw new OperatorError(`${this.source.name}: the manifest ${digest} is not what its digest says`);
  }

  #parsed({ data, digest }: PlacedManifest, repository: string): Manifest {
    try {
      return parseManifest(data, undefined);
    } catch (error) {
      throw new OperatorError(`${this.source.name}/${repository}@${digest}: ${(error as Error).message}`, {
        cause: error,
      });
    }
  }
}

/**
 * Reads on where the source breaks off. @throws OperatorError at the end where the bytes are not what the digest says, so
 * that whoever takes them is not told that they are all
 */
function whole({ digest, size }: Descriptor, open: OpenBlob): OpenBlob {
  return async function* (start) {
    // What was read before another start is the target's to check.
    const hash = start === 0 ? createHash(algorithmOf(digest)) : undefined;
    let at = start;
    for (let failures = 0; ; ) {
      const before = at;
      try {
        for await (const chunk of open(at)) {
          if (at + chunk.length > size) throw new OperatorError(`${digest} has more than ${size} bytes`);
          hash?.update(chunk);
          at += chunk.length;
          // Its last byte is held back until all of them are known to be right.
          if (at === size && hash && hash.digest('hex') !== hexOf(digest))
            throw new OperatorError(`the bytes of ${digest} are not what the digest says`);
          yield chunk;
        }
        if (at === size) return;
        throw new OperatorError(`${digest} has ${at} bytes, not ${size}`);
      } catch (error) {
        failures = at > before ? 1 : failures + 1;
        if (at === size || failures === TRIES || !isBreak(error)) throw error;
      }
    }
  };
}

function isBreak(error: unknown): boolean {
  return (error as { isPassing?: boolean }).isPassing === true || (error as NodeJS.ErrnoException).code !== undefined;
}

function unique(blobs: readonly Descriptor[]): Descriptor[] {
  return [...new Map(blobs.map(blob => [blob.digest, blob])).values()];
}
