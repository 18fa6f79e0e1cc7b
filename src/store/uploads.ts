import { createHash, type Hash, randomBytes, randomUUID } from 'node:crypto';
import type { Readable } from 'node:stream';
import { LRUCache } from 'lru-cache';
import { RegistryError } from '../errors.js';
import { growingCache } from '../growing-cache.js';
import { type Algorithm, algorithmOf, type Digest, hexOf } from '../reference.js';
import { type SegmentWriter, type StorageDriver, StorageError, WHENEVER } from '../storage/driver.js';
import type { Blobs } from './blobs.js';
import { Incoming, receive } from './incoming.js';
import { layout } from './layout.js';
import type { Quotas } from './quotas.js';
import type { UploadCap } from './upload-cap.js';

/**
 * An upload is a folder of numbered steps. Step 0 says whose it is; each later one adds a segment: bytes that are
 * already stored. A step is made by create-if-absent, so of two writers in any two processes exactly one gets it, and
 * the other's bytes vanish: they can never interleave. Nothing else holds the offset. Any process can serve the next
 * request; the running hash is all that stays in memory, and where it is gone the bytes are read again.
 *
 * Most blobs of most images are small. Where step 1 has no more than `SMALL` bytes they stand in it, behind a line feed:
 * then there is no segment, and the blob is written from memory.
 */
interface Step {
  /** How many bytes there are after this step. */
  readonly offset: number;
  /** SHA-256 in hex of all of them, where the writer knew it. */
  readonly sha256?: string;
  /** Undefined where the step has its bytes in itself. */
  readonly segment?: string;
  /** `StorageDriver.epoch` of the writer: in another one an unflushed segment may have lost its end. */
  readonly epoch: string;
}

interface FirstStep extends Step {
  readonly owner: string;
  /** What the client announced (`digest-algorithm`), computed beside SHA-256 on the way in. */
  readonly algorithm: Algorithm;
}

/** Which upload, and who asks. A foreign one is the same as none. */
export interface UploadKey {
  readonly repository: string;
  readonly uuid: string;
  /** The principal: it must be the one who started the upload. */
  readonly owner: string;
}

/** The bytes of an upload that were read from the storage once more: no process that has seen them all knew the digest asked for. */
export interface Reread {
  readonly repository: string;
  /** Of the upload. */
  readonly bytes: number;
  /** How often this process has done so, with this one. */
  readonly times: number;
}

interface State {
  readonly number: number;
  readonly first: FirstStep;
  readonly last: Step;
}

type Hashes = ReadonlyMap<Algorithm, Hash>;

/** The bytes of an upload, or of one request: those that stand in memory come first. */
interface Content {
  readonly bytes: Buffer;
  /** The keys of segments. */
  readonly segments: readonly string[];
}

/** In bytes. */
const SMALL = 64 * 1024;

/** Of the bytes of steps, those that a process keeps from one request of an upload to the next. */
const KEPT = 4 * 1024 * 1024;

/** Steps in the order of their numbers. */
const STEP = /^\d{8}$/;

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

export class Uploads {
  /** The hashes of all bytes up to one step. They are never updated in here: writers work on copies. */
  private readonly running = growingCache<string, { number: number; hashes: Hashes }>(1000);

  /** Steps, which never change, by upload and number. Whether they are still there the storage tells. */
  private readonly known = growingCache<string, Step>(1000);

  /** The bytes of step 1, by upload. */
  private readonly small = new LRUCache<string, Buffer>({
    maxSize: KEPT,
    sizeCalculation: ({ length }) => length + 200,
  });

  private reread = 0;

  constructor(
    private readonly driver: StorageDriver,
    private readonly blobs: Blobs,
    private readonly quotas: Quotas,
    private readonly cap: UploadCap,
    private readonly onReread: (reread: Reread) => void,
  ) {}

  /** Starts an upload of unknown content. @returns its UUID. @throws RegistryError TOOMANYREQUESTS */
  async start(repository: string, owner: string, algorithm: Algorithm = 'sha256'): Promise<string> {
    const uuid = randomUUID();
    const first: FirstStep = { offset: 0, epoch: this.driver.epoch, owner, algorithm };
    await this.cap.enter(owner);
    try {
      await this.createStep({ repository, uuid, owner }, 0, first);
    } catch (error) {
      await this.discard({ repository, uuid, owner }).catch(() => undefined);
      throw error;
    }
    return uuid;
  }

  /** The number of bytes that have arrived. @throws RegistryError BLOB_UPLOAD_UNKNOWN */
  async offset(upload: UploadKey): Promise<number> {
    return (await this.load(upload)).last.offset;
  }

  /**
   * Takes the body of one PATCH or PUT. A client that leaves on the way has what arrived kept, as a step.
   * @param start the offset that the client believes in, or undefined when it named none
   * @param length how many bytes it promised, or undefined; any other number is refused and forgotten
   * @returns the new offset
   * @throws RegistryError BLOB_UPLOAD_UNKNOWN; BLOB_UPLOAD_INVALID with status 416 when out of order or when another
   *   writer was first; SIZE_INVALID
   */
  async append(upload: UploadKey, body: Readable, start?: number, length?: number): Promise<number> {
    const state = await this.load(upload);
    const { number, last } = state;
    if (start !== undefined && start !== last.offset) throw outOfOrder(last.offset);
    const hashes = this.hashesAfter(upload, state);
    const segment = `${number + 1}-${randomBytes(8).toString('hex')}`;
    const incoming = new Incoming(number === 0 ? SMALL : 0, () => this.createSegment(upload, segment));
    let kept = false;
    try {
      const { received, cut } = await receive(body, chunk => {
        for (const hash of hashes?.values() ?? []) hash.update(chunk);
        return incoming.write(chunk);
      });
      if (!cut && length !== undefined && received !== length) throw wrongSize(length, received);
      if (received > 0) {
        const bytes = await incoming.close();
        const offset = last.offset + received;
        const sha256 = hashes?.get('sha256')?.copy().digest('hex');
        const next: Step = {
          offset,
          ...(!bytes && { segment }),
          epoch: this.driver.epoch,
          ...(sha256 && { sha256 }),
        };
        kept = await this.createStep(upload, number + 1, next, bytes).catch(error => {
          // The step may be there all the same: then it must not lose its segment.
          kept = error instanceof StorageError && error.kind === 'unavailable';
          throw error;
        });
        if (!kept) throw outOfOrder(await this.offset(upload));
        // Another request may have ended the upload meanwhile: then this step has only made its folder again.
        if (!(await this.driver.stat(layout.uploadStep(upload.repository, upload.uuid, 0), WHENEVER))) {
          kept = false;
          await this.discard(upload);
          throw unknown();
        }
        if (hashes) this.running.set(upload.uuid, { number: number + 1, hashes });
      }
      if (cut) throw cut;
      return last.offset + received;
    } finally {
      if (!kept) await incoming.abort();
    }
  }

  /** For what is not small. `registry:2` would never purge an upload that does not say when it was started. */
  private async createSegment({ repository, uuid }: UploadKey, segment: string): Promise<SegmentWriter> {
    const now = Buffer.from(new Date().toISOString());
    await this.driver.create(layout.uploadStartedAt(repository, uuid), now, { durable: false });
    return this.driver.createSegment(layout.uploadSegment(repository, uuid, segment));
  }

  /**
   * Makes the blob of all that arrived, if it is what the digest says, durably, and ends the upload either way.
   * @throws RegistryError DIGEST_INVALID, BLOB_UPLOAD_UNKNOWN, DENIED
   */
  async finish(upload: UploadKey, digest: Digest): Promise<void> {
    const state = await this.load(upload);
    const content = await this.contentOf(upload, state.number);
    const canonical = await this.verify(upload, state, content, digest);
    if (!canonical) {
      await this.discard(upload);
      throw new RegistryError('DIGEST_INVALID', { detail: { digest } });
    }
    try {
      const first = layout.uploadStep(upload.repository, upload.uuid, 0);
      await this.commit(upload, { canonical, digest, size: state.last.offset }, content, first);
    } catch (error) {
      if (error instanceof RegistryError) await this.discard(upload);
      throw error;
    }
    await this.discard(upload);
  }

  private async contentOf(upload: UploadKey, last: number): Promise<Content> {
    const steps = await Promise.all(Array.from({ length: last }, (_, index) => this.readStep(upload, index + 1)));
    const { repository, uuid } = upload;
    return {
      bytes: steps[0] && !steps[0].segment ? await this.smallOf(upload) : Buffer.alloc(0),
      segments: steps.flatMap(({ segment }) => (segment ? layout.uploadSegment(repository, uuid, segment) : [])),
    };
  }

  /**
   * @param sign what is there as long as the upload is
   * @throws RegistryError BLOB_UPLOAD_UNKNOWN where another request has ended the upload, or deleted the repository
   */
  private async commit(
    { repository, uuid }: Omit<UploadKey, 'owner'>,
    { canonical, digest, size }: { canonical: Digest; digest: Digest; size: number },
    content: Content,
    sign: string | undefined,
  ): Promise<void> {
    try {
      await this.quotas.within(repository, canonical, size, async () => {
        const blob = layout.blob(canonical);
        await this.store({ repository, uuid }, content, blob);
        await this.blobs.link(repository, canonical, digest, [blob]);
      });
    } catch (error) {
      if (error instanceof RegistryError) throw error;
      // A segment that is missing does not say so: a store that fails may show it late.
      throw sign !== undefined && !(await this.driver.stat(sign)) ? unknown() : error;
    }
  }

  private async store(
    { repository, uuid }: Omit<UploadKey, 'owner'>,
    { bytes, segments }: Content,
    key: string,
  ): Promise<void> {
    if (segments.length === 0) return this.driver.write(key, bytes, { settled: false });
    if (bytes.length === 0) return this.driver.assemble(segments, key, { settled: false });
    const first = layout.uploadSegment(repository, uuid, `1-${randomBytes(8).toString('hex')}`);
    const writer = await this.driver.createSegment(first);
    try {
      await writer.write(bytes);
      await writer.close();
      await this.driver.assemble([first, ...segments], key, { settled: false });
    } finally {
      await writer.abort();
    }
  }

  /**
   * The last bytes of an upload and its end. Where they are also the first ones, and few, or the storage can take them under
   * their own name, there is no step: a client that leaves on the way has to send them again.
   * @param start as `append`, `length` too
   * @throws as `append` and `finish`
   */
  async finishWith(upload: UploadKey, digest: Digest, body: Readable, start?: number, length?: number): Promise<void> {
    if (this.goesStraight(digest) || (length !== undefined && length <= SMALL)) {
      const { number } = await this.load(upload);
      if (number === 0 && (start ?? 0) === 0) {
        await this.whole(upload.repository, digest, body, length, () => this.checkUntouched(upload)).catch(
          async error => {
            const goesOn = error instanceof RegistryError && (error.code === 'SIZE_INVALID' || error.status === 416);
            if (error instanceof RegistryError && !goesOn) await this.discard(upload);
            throw error;
          },
        );
        return this.discard(upload);
      }
    }
    await this.append(upload, body, start, length);
    await this.finish(upload, digest);
  }

  /** @throws RegistryError BLOB_UPLOAD_UNKNOWN; BLOB_UPLOAD_INVALID with status 416 where another request has brought bytes */
  private async checkUntouched(upload: UploadKey): Promise<void> {
    const { number, last } = await this.load(upload);
    if (number !== 0) throw outOfOrder(last.offset);
  }

  /** Whether a blob can be written to where it stays before it is known that its bytes are the right ones. */
  private goesStraight(digest: Digest): boolean {
    return this.driver.createObject !== undefined && algorithmOf(digest) === 'sha256';
  }

  /** @throws RegistryError DIGEST_INVALID, SIZE_INVALID, DENIED: then there is nothing of it */
  private async straight(repository: string, digest: Digest, body: Readable, length?: number): Promise<void> {
    const hash = createHash('sha256');
    const writer = await this.driver.createObject!(layout.blob(digest));
    try {
      const { received, cut } = await receive(body, chunk => {
        hash.update(chunk);
        return writer.write(chunk);
      });
      if (cut) throw cut;
      if (length !== undefined && received !== length) throw wrongSize(length, received);
      if (hash.digest('hex') !== hexOf(digest)) throw new RegistryError('DIGEST_INVALID', { detail: { digest } });
      await this.quotas.within(repository, digest, received, async () => {
        await writer.close();
        await this.blobs.link(repository, digest, digest);
      });
    } finally {
      await writer.abort();
    }
  }

  /**
   * A whole blob in one request. It has no steps, since nobody could resume it.
   * @param check asked once all has come, before it is stored, where that is not written straight to its place
   * @throws RegistryError DIGEST_INVALID, SIZE_INVALID, DENIED, BLOB_UPLOAD_UNKNOWN
   */
  async whole(
    repository: string,
    digest: Digest,
    body: Readable,
    length?: number,
    check?: () => Promise<void>,
  ): Promise<void> {
    if (this.goesStraight(digest)) return this.straight(repository, digest, body, length);
    const uuid = randomUUID();
    const hashes = newHashes(algorithmOf(digest));
    const segment = layout.uploadSegment(repository, uuid, '1');
    const incoming = new Incoming(SMALL, () => this.driver.createSegment(segment));
    try {
      const { received, cut } = await receive(body, chunk => {
        for (const hash of hashes.values()) hash.update(chunk);
        return incoming.write(chunk);
      });
      if (cut) throw cut;
      const bytes = await incoming.close();
      if (length !== undefined && received !== length) throw wrongSize(length, received);
      await check?.();
      const canonical = named(hashes, digest);
      if (!canonical) throw new RegistryError('DIGEST_INVALID', { detail: { digest } });
      const content = bytes ? { bytes, segments: [] } : { bytes: Buffer.alloc(0), segments: [segment] };
      await this.commit({ repository, uuid }, { canonical, digest, size: received }, content, content.segments[0]);
    } finally {
      if (incoming.isLarge) {
        await incoming.abort();
        await this.discard({ repository, uuid });
      }
    }
  }

  /** Ends an upload and frees its place. @throws RegistryError BLOB_UPLOAD_UNKNOWN */
  async cancel(upload: UploadKey): Promise<void> {
    await this.load(upload);
    await this.discard(upload);
  }

  /** An upload that a power cut brings back is abandoned, and expires. */
  private async discard({ repository, uuid, owner }: Omit<UploadKey, 'owner'> & Partial<UploadKey>): Promise<void> {
    this.running.delete(uuid);
    this.small.delete(uuid);
    if (owner !== undefined) this.cap.leave(owner, uuid);
    // The first step goes first. Without it there is no upload, and a crash leaves none that has lost its bytes.
    await this.driver.removeAll(layout.upload(repository, uuid), { durable: false });
  }

  private async createStep(
    { repository, uuid }: UploadKey,
    number: number,
    step: Step,
    bytes: Buffer = Buffer.alloc(0),
  ): Promise<boolean> {
    const head = Buffer.from(`${JSON.stringify(step)}\n`);
    const data = Buffer.concat([head, bytes]);
    const key = layout.uploadStep(repository, uuid, number);
    const created = await this.driver.create(key, data, { durable: false, secret: number === 0 });
    if (!created) return false;
    this.known.set(`${uuid}/${number}`, step);
    if (bytes.length > 0) this.small.set(uuid, data.subarray(head.length));
    return true;
  }

  private async readStep(upload: UploadKey, number: number): Promise<Step> {
    const known = this.known.get(`${upload.uuid}/${number}`);
    if (known) return known;
    const { step, bytes } = await this.read(upload, number);
    this.known.set(`${upload.uuid}/${number}`, step);
    if (bytes.length > 0) this.small.set(upload.uuid, bytes);
    return step;
  }

  private async smallOf(upload: UploadKey): Promise<Buffer> {
    return this.small.get(upload.uuid) ?? (await this.read(upload, 1)).bytes;
  }

  private async read({ repository, uuid }: UploadKey, number: number): Promise<{ step: Step; bytes: Buffer }> {
    const data = await this.driver.get(layout.uploadStep(repository, uuid, number), 2 * SMALL);
    const end = data?.indexOf('\n') ?? -1;
    // Steps are not flushed: a power cut may have left one empty.
    if (!data || end === -1) throw unknown();
    const step = JSON.parse(data.toString('utf8', 0, end)) as Step;
    const bytes = data.subarray(end + 1);
    if (number === 1 && !step.segment && bytes.length !== step.offset) throw unknown();
    return { step, bytes };
  }

  /** Where the upload stands, after a check that it exists, is whole and belongs to the owner. */
  private async load(upload: UploadKey): Promise<State> {
    if (!UUID.test(upload.uuid)) throw unknown();
    const entries = await this.driver.list(layout.upload(upload.repository, upload.uuid));
    const numbers = entries.filter(({ name }) => STEP.test(name)).map(({ name }) => Number(name));
    const number = numbers.at(-1);
    // Without the first step there is no upload, whatever else is left of it.
    if (number === undefined || numbers[0] !== 0) throw unknown();
    const first = (await this.readStep(upload, 0)) as FirstStep;
    if (first.owner !== upload.owner) throw unknown();
    const last = number === 0 ? first : await this.readStep(upload, number);
    // Steps are not flushed: after a power cut they may promise bytes that are not there. Such an upload is lost.
    if (last.epoch !== this.driver.epoch && !(await this.isWhole(upload, number))) {
      await this.discard(upload);
      throw unknown();
    }
    return { number, first, last };
  }

  private async isWhole(upload: UploadKey, last: number): Promise<boolean> {
    let before = 0;
    for (let number = 1; number <= last; number++) {
      const { segment, offset } = await this.readStep(upload, number);
      if (segment) {
        const info = await this.driver.stat(layout.uploadSegment(upload.repository, upload.uuid, segment));
        if (info?.size !== offset - before) return false;
      }
      before = offset;
    }
    return true;
  }

  /** Hashes to go on with; undefined where this process does not have them: `finish` will then read the bytes again. */
  private hashesAfter(upload: UploadKey, { number, first }: State): Hashes | undefined {
    if (number === 0) return newHashes(first.algorithm);
    const running = this.running.get(upload.uuid);
    if (running?.number !== number) return undefined;
    return new Map([...running.hashes].map(([algorithm, hash]) => [algorithm, hash.copy()]));
  }

  /** @returns the canonical digest, or undefined where the content is not what `digest` says. */
  private async verify(
    upload: UploadKey,
    state: State,
    { bytes, segments }: Content,
    digest: Digest,
  ): Promise<Digest | undefined> {
    const known = this.hashesAfter(upload, state);
    if (known?.has(algorithmOf(digest))) return named(known, digest);
    if (digest.startsWith('sha256:') && state.last.sha256 && state.last.epoch === this.driver.epoch)
      return state.last.sha256 === hexOf(digest) ? digest : undefined;
    const hashes = newHashes(algorithmOf(digest));
    for (const hash of hashes.values()) hash.update(bytes);
    for (const key of segments) {
      const stream = await this.driver.read(key);
      if (!stream) throw unknown();
      for await (const chunk of stream) for (const hash of hashes.values()) hash.update(chunk);
    }
    if (segments.length > 0)
      this.onReread({ repository: upload.repository, bytes: state.last.offset, times: ++this.reread });
    return named(hashes, digest);
  }
}

/** SHA-256 always, since it names the stored file; another algorithm beside it. */
function newHashes(algorithm: Algorithm): Hashes {
  return new Map([...new Set<Algorithm>(['sha256', algorithm])].map(name => [name, createHash(name)]));
}

/** Ends the hashes. @returns the canonical digest of the content if it is the one that `digest` names. */
function named(hashes: Hashes, digest: Digest): Digest | undefined {
  const hex = new Map([...hashes].map(([algorithm, hash]) => [algorithm, hash.digest('hex')]));
  return hex.get(algorithmOf(digest)) === hexOf(digest) ? `sha256:${hex.get('sha256')!}` : undefined;
}

function unknown(): RegistryError {
  return new RegistryError('BLOB_UPLOAD_UNKNOWN');
}

function wrongSize(expected: number, received: number): RegistryError {
  return new RegistryError('SIZE_INVALID', { detail: { expected, received } });
}

function outOfOrder(offset: number): RegistryError {
  return new RegistryError('BLOB_UPLOAD_INVALID', {
    status: 416,
    message: `the upload stands at ${offset} bytes: send the next chunk from there`,
    detail: { offset },
  });
}
