import type { Digest } from '../../src/reference.js';

let clock = 0;

/** A moment, later than every one before. */
export function now(): number {
  return ++clock;
}

/** What is asked of the past: what was acknowledged before `until`, and what was begun before `reach`. */
export interface Moment {
  readonly until: number;
  readonly reach: number;
}

const ALWAYS: Moment = { until: Number.POSITIVE_INFINITY, reach: Number.POSITIVE_INFINITY };

/** One thing that clients change, several at once perhaps, and what may be found of it after a crash. */
export class Register<T> {
  #writes: Array<{ readonly value: T; readonly begun: number; acknowledged: number }>;

  constructor(initial: T) {
    this.#writes = [{ value: initial, begun: 0, acknowledged: 0 }];
  }

  /** A change is under way. To be called when it is acknowledged: the result. */
  begin(value: T): () => void {
    const write = { value, begun: now(), acknowledged: Number.POSITIVE_INFINITY };
    this.#writes.push(write);
    return () => {
      write.acknowledged = now();
    };
  }

  /**
   * Whatever a crash may leave: every value whose change was begun, unless another that was begun after it was
   * acknowledged is acknowledged itself.
   */
  candidates({ until, reach }: Moment = ALWAYS): Set<T> {
    const acknowledged = this.#writes.filter(write => write.acknowledged < until);
    const isSuperseded = (end: number) => acknowledged.some(other => other.begun > end);
    return new Set(
      this.#writes.filter(write => write.begun < reach && !isSuperseded(write.acknowledged)).map(({ value }) => value),
    );
  }

  /** After a crash and the look at what it left, there is nothing open. */
  settle(value: T): void {
    const at = now();
    this.#writes = [{ value, begun: at, acknowledged: at }];
  }
}

/** An upload in chunks that a client has begun. */
export class Upload {
  readonly begun = now();
  readonly offset = new Register(0);
  /** When the client asked for its end, and when that was acknowledged. */
  ending = Number.POSITIVE_INFINITY;
  ended = Number.POSITIVE_INFINITY;

  constructor(
    readonly path: string,
    readonly content: Buffer,
    readonly digest: Digest,
  ) {}
}

/** What clients did in one repository. */
export class RepositoryLedger {
  readonly tags = new Map<string, Register<Digest | undefined>>();
  readonly manifests = new Map<Digest, Register<boolean>>();
  readonly blobs = new Map<Digest, Register<boolean>>();
  readonly uploads = new Set<Upload>();
  /** What the manifests refer to. */
  readonly references = new Map<Digest, readonly Digest[]>();

  constructor(readonly name: string) {}

  tag(tag: string): Register<Digest | undefined> {
    return entry(this.tags, tag, () => new Register<Digest | undefined>(undefined));
  }

  manifest(digest: Digest): Register<boolean> {
    return entry(this.manifests, digest, () => new Register(false));
  }

  blob(digest: Digest): Register<boolean> {
    return entry(this.blobs, digest, () => new Register(false));
  }

  /** A deletion of the whole repository, in which no upload is open. */
  beginRemoval(): () => void {
    const done = [
      ...[...this.tags.values()].map(tag => tag.begin(undefined)),
      ...[...this.manifests.values(), ...this.blobs.values()].map(object => object.begin(false)),
    ];
    return () => {
      for (const acknowledge of done) acknowledge();
    };
  }
}

/** What clients were told by one registry, and what they still waited to hear. */
export class Ledger {
  readonly repositories = new Map<string, RepositoryLedger>();

  repository(name: string): RepositoryLedger {
    return entry(this.repositories, name, () => new RepositoryLedger(name));
  }
}

function entry<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  const found = map.get(key);
  if (found !== undefined) return found;
  const made = make();
  map.set(key, made);
  return made;
}
