import type { Digest } from '../../../src/reference.js';
import type { Request } from './calls.js';
import { type Content, REPOSITORIES, TAGS } from './universe.js';
import { chosen } from './uploads.js';
import type { World } from './world.js';

/** Something that a repository has or has not: a blob or a manifest under one digest, or a tag on one. */
export interface Thing {
  readonly repository: string;
  readonly kind: 'blob' | 'manifest' | 'tag';
  /** Digest or tag. */
  readonly key: string;
}

/** What a request does to things if it succeeds. */
export interface Effect {
  readonly things: readonly Thing[];
  /** The digest that is there then; undefined where they are gone. */
  readonly value: Digest | undefined;
  /** Only where the thing was one of these: the delete of a manifest takes the tags that are on it. */
  readonly of?: readonly Digest[];
}

/** `start` and `end` are places in the order of all beginnings and ends: in between it came to be. */
type Change = Omit<Effect, 'things'> & { readonly start: number; readonly end: number };

/** What happened to each thing, while several clients were at work. */
export class History {
  readonly #changes = new Map<string, Change[]>();
  #clock = 0;

  /** @param world as it is before */
  constructor(world: World) {
    for (const repository of REPOSITORIES) {
      const { blobs, manifests, tags } = world.repository(repository);
      for (const key of blobs.keys()) this.#note(there(repository, 'blob', key, key), 0, 0);
      for (const key of manifests.keys()) this.#note(there(repository, 'manifest', key, key), 0, 0);
      for (const [key, value] of tags) this.#note(there(repository, 'tag', key, value), 0, 0);
    }
  }

  /** A request is sent. @returns to be called with its answer: whether it has done what it was for */
  begin(effects: readonly Effect[]): (isDone: boolean) => void {
    const start = ++this.#clock;
    return isDone => {
      const end = ++this.#clock;
      if (isDone) for (const effect of effects) this.#note(effect, start, end);
    };
  }

  /** What may be there in the end, if each request took effect at one moment while it was under way. */
  possible(thing: Thing): Array<Digest | undefined> {
    const last = this.#last(thing);
    if (last.length === 0) return [undefined];
    const values = last.map(({ value }) => value);
    const mayBeTaken = this.#of(thing).some(({ of, end }) =>
      last.some(({ value, start }) => value && of?.includes(value) && start < end),
    );
    return mayBeTaken ? [...values, undefined] : values;
  }

  /** When the earliest of those pushes was begun to which the thing may owe that it is there. */
  firstPush(thing: Thing): number {
    const pushes = this.#last(thing).filter(({ value }) => value !== undefined);
    return Math.min(...pushes.map(({ start }) => start));
  }

  /** Whether something may have taken it away after the given moment. */
  mayHaveGone(thing: Thing, since: number): boolean {
    return this.#of(thing).some(({ value, end }) => value === undefined && end > since);
  }

  /** Those changes that no other one has followed for certain. */
  #last(thing: Thing): Change[] {
    const changes = this.#of(thing).filter(({ of }) => of === undefined);
    return changes.filter(({ end }) => !changes.some(({ start }) => start > end));
  }

  #of({ repository, kind, key }: Thing): Change[] {
    return this.#changes.get(`${repository} ${kind} ${key}`) ?? [];
  }

  #note({ things, ...effect }: Effect, start: number, end: number): void {
    for (const thing of things)
      this.#changes.set(`${thing.repository} ${thing.kind} ${thing.key}`, [
        ...this.#of(thing),
        { ...effect, start, end },
      ]);
  }
}

export function effectsOf(world: World, request: Request): Effect[] {
  const { universe } = world;
  switch (request.do) {
    case 'post':
      return blob(request.repository, world.blob(request.blob), request.claim);
    case 'finish': {
      const upload = chosen(world, request)!;
      return blob(upload.repository, upload.content, request.claim);
    }
    case 'mount': {
      const content = world.content(world.blobDigest(request.from ?? 'app', request));
      return blob(request.repository, content, request.algorithm);
    }
    case 'deleteBlob': {
      const content = world.content(world.blobDigest(request.repository, request));
      return [gone(request.repository, 'blob', namesOf(content))];
    }
    case 'put': {
      const { repository, as } = request;
      const content = world.manifest(request.manifest);
      const value = 'algorithm' in as ? content[as.algorithm] : content.sha256;
      const tags = 'tag' in as ? [as.tag] : 'tags' in as ? as.tags : [];
      return [
        ...[content.sha256, value].map(name => there(repository, 'manifest', name, name)),
        ...tags.map(tag => there(repository, 'tag', tag, value)),
      ];
    }
    case 'deleteManifest': {
      const { repository, reference } = request;
      if ('tag' in reference) return [gone(repository, 'tag', [reference.tag])];
      if (!('manifest' in reference)) return [];
      const names = namesOf(world.content(world.manifestDigest(repository, reference)));
      return [gone(repository, 'manifest', names), { ...gone(repository, 'tag', TAGS), of: names }];
    }
    case 'deleteRepository': {
      const { repository } = request;
      return [
        gone(repository, 'blob', universe.blobs.flatMap(namesOf)),
        gone(repository, 'manifest', universe.manifests.flatMap(namesOf)),
        gone(repository, 'tag', TAGS),
      ];
    }
    default:
      return [];
  }
}

function blob(repository: string, content: Content, claim: string): Effect[] {
  const names = claim === 'sha512' ? namesOf(content) : [content.sha256];
  return names.map(name => there(repository, 'blob', name, name));
}

function namesOf({ sha256, sha512 }: Content): Digest[] {
  return [sha256, sha512];
}

function there(repository: string, kind: Thing['kind'], key: string, value: Digest): Effect {
  return { things: [{ repository, kind, key }], value };
}

function gone(repository: string, kind: Thing['kind'], keys: readonly string[]): Effect {
  return { things: keys.map(key => ({ repository, kind, key })), value: undefined };
}
