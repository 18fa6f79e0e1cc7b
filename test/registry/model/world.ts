import type { Digest } from '../../../src/reference.js';
import type { Asked, Of } from './operations.js';
import { type Content, type ManifestContent, mayPull, REPOSITORIES, type Universe, type User } from './universe.js';

type ManifestChoice = Pick<Of<'referrers'>, 'manifest' | 'algorithm' | 'held'>;

/** What one repository holds, by every digest under which it has it. */
class RepositoryState {
  /** Whether the API knows the repository. */
  exists = false;
  readonly blobs = new Map<Digest, Content>();
  readonly manifests = new Map<Digest, ManifestContent>();
  readonly tags = new Map<string, Digest>();

  get isEmpty(): boolean {
    return this.blobs.size === 0 && this.manifests.size === 0;
  }
}

export interface UploadState {
  readonly repository: string;
  readonly owner: User;
  readonly uuid: string;
  /** What it is meant to become. */
  readonly content: Content;
  bytes: Buffer;
  open: boolean;
}

/** Something that may have gone, or may still be there: a look tells. */
export type Doubt =
  | { readonly about: 'blob' | 'manifest'; readonly repository: string; readonly digest: Digest }
  | { readonly about: 'repository'; readonly repository: string }
  | { readonly about: 'upload'; readonly upload: UploadState };

/**
 * The reference: what a registry is, by the OCI distribution specification and the protocol of the Docker registry, in a
 * few maps. It knows nothing of links, files or processes.
 */
export class World {
  readonly #repositories = new Map(REPOSITORIES.map(name => [name as string, new RepositoryState()]));
  readonly uploads: UploadState[] = [];
  /** Of the two processes. */
  readonly readOnly = [false, false];
  /** To be settled before the next operation. */
  doubts: Doubt[] = [];

  constructor(readonly universe: Universe) {}

  repository(name: string): RepositoryState {
    return this.#repositories.get(name) ?? new RepositoryState();
  }

  blob(number: number): Content {
    const { blobs, manifests } = this.universe;
    return number < 0 ? manifests.at(number)! : blobs[number % blobs.length]!;
  }

  content(digest: Digest): Content {
    const { blobs, manifests } = this.universe;
    return [...blobs, ...manifests].find(({ sha256, sha512 }) => digest === sha256 || digest === sha512)!;
  }

  /** The digest of a blob, where it is to be one that a repository has, of those. */
  blobDigest(name: string, { blob, algorithm, held }: Pick<Of<'getBlob'>, 'blob' | 'algorithm' | 'held'>): Digest {
    const some = held ? [...this.repository(name).blobs.keys()] : [];
    return some[Math.abs(blob) % some.length] ?? this.blob(blob)[algorithm];
  }

  /** As `blobDigest`, of a manifest. */
  manifestDigest(name: string, { manifest, algorithm, held }: ManifestChoice): Digest {
    const some = held ? [...this.repository(name).manifests.keys()] : [];
    return some[manifest % some.length] ?? this.manifest(manifest)[algorithm];
  }

  /** The digest of a manifest, where it is to be the subject of one that a repository has, of those. */
  subjectDigest(name: string, { manifest, algorithm, held }: ManifestChoice): Digest {
    const some = held ? [...this.repository(name).manifests.values()].flatMap(({ subject }) => subject ?? []) : [];
    return some[manifest % some.length] ?? this.manifest(manifest)[algorithm];
  }

  manifest(number: number): ManifestContent {
    const { manifests } = this.universe;
    return manifests[number % manifests.length]!;
  }

  isReadOnly({ at }: Asked): boolean {
    return this.readOnly[at]!;
  }

  /** Those that somebody may pull from, in the order of their bytes. */
  visible(by: User): string[] {
    return REPOSITORIES.filter(name => this.repository(name).exists && mayPull(by, name));
  }

  addBlob(name: string, content: Content, digest: Digest): void {
    const repository = this.repository(name);
    repository.exists = true;
    for (const known of [content.sha256, digest]) repository.blobs.set(known, content);
  }

  /** Under whichever digest it is asked for, a blob goes under all of them. */
  removeBlob(name: string, content: Content): void {
    const { blobs } = this.repository(name);
    for (const digest of [content.sha256, content.sha512]) blobs.delete(digest);
    this.#doubtWhereEmpty(name);
  }

  /** Whether the repository has what a manifest needs. */
  has(name: string, need: ManifestContent['needs'][number]): boolean {
    const { blobs, manifests } = this.repository(name);
    return (need.listed && manifests.has(need.digest)) || blobs.has(need.digest);
  }

  addManifest(name: string, content: ManifestContent, digest: Digest, tags: readonly string[]): void {
    const repository = this.repository(name);
    repository.exists = true;
    for (const known of [content.sha256, digest]) repository.manifests.set(known, content);
    for (const tag of tags) repository.tags.set(tag, digest);
  }

  removeManifest(name: string, { sha256, sha512 }: ManifestContent): void {
    const { manifests, tags } = this.repository(name);
    for (const digest of [sha256, sha512]) manifests.delete(digest);
    for (const [tag, digest] of tags) if (digest === sha256 || digest === sha512) tags.delete(tag);
    this.#doubtWhereEmpty(name);
  }

  removeRepository(name: string): void {
    this.#repositories.set(name, new RepositoryState());
    for (const upload of this.uploads) if (upload.repository === name) upload.open = false;
  }

  /** What a collector may have taken: where it waits for nothing, all that nothing leads to. */
  collected({ grace, untagged, uploads }: Of<'collect'>): void {
    for (const name of REPOSITORIES) {
      this.#doubtWhereEmpty(name);
      if (grace === 'day') continue;
      const { blobs, manifests } = this.repository(name);
      const kept = this.#reachable(name, untagged);
      const needed = new Set<Digest>();
      for (const { needs, foreign } of kept)
        for (const digest of [...needs.map(({ digest }) => digest), ...foreign]) {
          needed.add(digest);
          needed.add(blobs.get(digest)?.sha256 ?? digest);
        }
      for (const [digest, content] of manifests)
        if (!kept.has(content)) this.doubts.push({ about: 'manifest', repository: name, digest });
      for (const digest of blobs.keys())
        if (!needed.has(digest)) this.doubts.push({ about: 'blob', repository: name, digest });
      this.#doubtWhereEmpty(name);
    }
    for (const upload of uploads ? this.uploads : []) if (upload.open) this.doubts.push({ about: 'upload', upload });
  }

  /** A look has told that it has gone. */
  settle(doubt: Doubt, isThere: boolean): void {
    if (doubt.about === 'repository') this.repository(doubt.repository).exists = isThere;
    if (isThere) return;
    if (doubt.about === 'upload') doubt.upload.open = false;
    if (doubt.about === 'blob') this.repository(doubt.repository).blobs.delete(doubt.digest);
    if (doubt.about === 'manifest') this.repository(doubt.repository).manifests.delete(doubt.digest);
    if (doubt.about === 'blob' || doubt.about === 'manifest') this.#doubtWhereEmpty(doubt.repository);
  }

  /** Images that deletes have left without something that they need, as REPOSITORY@DIGEST. */
  broken(): string[] {
    return REPOSITORIES.flatMap(name =>
      [...this.repository(name).manifests].flatMap(([digest, { needs }]) =>
        needs.every(need => this.has(name, need)) ? [] : [`${name}@${digest}`],
      ),
    ).sort();
  }

  /** Tags keep manifests; these keep what they list, and what has them as its subject. */
  #reachable(name: string, untagged: boolean): Set<ManifestContent> {
    const { manifests, tags } = this.repository(name);
    const kept = new Set<ManifestContent>();
    const open = untagged ? [...tags.values()] : [...manifests.keys()];
    for (let digest = open.pop(); digest; digest = open.pop()) {
      const content = manifests.get(digest);
      if (!content || kept.has(content)) continue;
      kept.add(content);
      open.push(...content.needs.map(need => need.digest));
      for (const [referrer, { subject }] of manifests)
        if (subject && manifests.get(subject) === content) open.push(referrer);
    }
    return kept;
  }

  /** Whether a repository outlives all that was in it is left to the storage: some have folders, some have not. */
  #doubtWhereEmpty(name: string): void {
    const { isEmpty, exists } = this.repository(name);
    if (isEmpty && exists) this.doubts.push({ about: 'repository', repository: name });
  }
}
