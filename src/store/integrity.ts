import { createHash } from 'node:crypto';
import { RegistryError } from '../errors.js';
import { growingCache } from '../growing-cache.js';
import { NOBODY, type Others } from '../others.js';
import type { Digest } from '../reference.js';
import type { ByteStream, ObjectInfo } from '../storage/driver.js';

/** When a blob is hashed as it is pulled: once a day while it is unchanged, each time, or never. */
export type VerifyMode = 'daily' | 'always' | 'off';

/** Bytes that are not what their digest says. */
export interface Corruption {
  readonly digest: Digest;
  /** What the bytes hash to. */
  readonly actual: Digest;
  /** Where they are stored. */
  readonly key: string;
}

const DAY = 24 * 60 * 60 * 1000;

/** Some 300 bytes each. */
const REMEMBERED = 50_000;

const TOPIC = 'verdict';

/** What was found out about the bytes of one version. */
interface Verdict {
  readonly key: string;
  readonly version: string;
  readonly isIntact: boolean;
}

/**
 * Knows which blobs are what their digests say. Disks lose bits without a word, so a blob that is pulled as a whole is
 * hashed on the way. What was found counts for these very bytes, known by their version: a blob that is written again
 * starts anew. A corrupt one is to be answered as absent, so that clients that push it send it again: by all processes of
 * this machine, for a client asks one and sends to another.
 */
export class Integrity {
  readonly #intact = growingCache<string, { version: string; since: number }>(REMEMBERED);
  readonly #corrupt = growingCache<string, string>(REMEMBERED);

  constructor(
    private readonly mode: VerifyMode,
    private readonly onCorruption: (found: Corruption) => void,
    private readonly others: Others = NOBODY,
  ) {
    others.hear(TOPIC, verdict => this.#note(verdict as Verdict));
  }

  isCorrupt(key: string, { version }: ObjectInfo): boolean {
    return this.#corrupt.get(key) === version;
  }

  /** This process has renewed a lease, which changes the version and not the bytes. */
  renewed(key: string, before: ObjectInfo, after: ObjectInfo): void {
    const known = this.#intact.get(key);
    if (known?.version === before.version) this.#intact.set(key, { ...known, version: after.version });
    if (this.isCorrupt(key, before)) this.#found({ key, version: after.version, isIntact: false });
  }

  /**
   * The bytes of a whole blob, hashed on the way where that is due. Then the last chunk is held back until all have been:
   * a corrupt blob fails with RegistryError BLOB_UNKNOWN before it is whole.
   */
  checked(canonical: Digest, key: string, stream: ByteStream): ByteStream {
    if (this.mode === 'off') return stream;
    const { version } = stream.info;
    const known = this.#intact.get(key);
    if (this.mode === 'daily' && known?.version === version && Date.now() - known.since < DAY) return stream;
    return new HashedStream(stream, hex => {
      const actual: Digest = `sha256:${hex}`;
      if (actual !== canonical) throw this.corrupt(canonical, key, stream.info, actual);
      this.#found({ key, version, isIntact: true });
    });
  }

  #found(verdict: Verdict): void {
    this.#note(verdict);
    this.others.tell(TOPIC, verdict);
  }

  #note({ key, version, isIntact }: Verdict): void {
    if (isIntact) this.#intact.set(key, { version, since: Date.now() });
    else this.#corrupt.set(key, version);
  }

  /** Whether a small object is what its digest says. Reported where it is not. */
  isIntact(canonical: Digest, key: string, data: Uint8Array): boolean {
    const actual: Digest = `sha256:${createHash('sha256').update(data).digest('hex')}`;
    if (actual !== canonical) this.onCorruption({ digest: canonical, actual, key });
    return actual === canonical;
  }

  /** Remembers, and reports, that the bytes are not what their digest says. @returns what to answer */
  private corrupt(digest: Digest, key: string, { version }: ObjectInfo, actual: Digest): RegistryError {
    this.#found({ key, version, isIntact: false });
    this.onCorruption({ digest, actual, key });
    return new RegistryError('BLOB_UNKNOWN', { detail: { digest } });
  }
}

/** Passes a stream on, one chunk behind, which `LENT_CHUNKS` leaves room for. */
class HashedStream implements ByteStream {
  readonly #hash = createHash('sha256');
  #held: Buffer | undefined;
  #ended = false;

  constructor(
    private readonly source: ByteStream,
    private readonly verdict: (sha256: string) => void,
  ) {}

  get info(): ObjectInfo {
    return this.source.info;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<Buffer, undefined>> {
    if (this.#ended) return this.return();
    const passed = this.#held ?? (await this.#take());
    this.#held = passed && (await this.#take());
    if (this.#held === undefined) {
      this.#ended = true;
      this.verdict(this.#hash.digest('hex'));
    }
    return passed === undefined ? this.return() : { done: false, value: passed };
  }

  async return(): Promise<IteratorReturnResult<undefined>> {
    this.#ended = true;
    return this.source.return();
  }

  async #take(): Promise<Buffer | undefined> {
    const { value } = await this.source.next();
    if (value !== undefined) this.#hash.update(value);
    return value;
  }
}
