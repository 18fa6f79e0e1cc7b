import { createHash, type Hash, randomBytes, randomUUID } from 'node:crypto';
import { finished, type Readable } from 'node:stream';
import { RegistryError, systemCode } from '../errors.js';
import { growingCache } from '../growing-cache.js';
import { type Algorithm, algorithmOf, type Digest, hexOf } from '../reference.js';
import type { StorageDriver } from '../storage/driver.js';
import type { Blobs } from './blobs.js';
import { layout } from './layout.js';
import type { Quotas } from './quotas.js';
import type { UploadCap } from './upload-cap.js';

/**
 * An upload is a folder of numbered steps. Step 0 says whose it is; each later one adds a segment: bytes that are
 * already stored. A step is made by create-if-absent, so of two writers in any two processes exactly one gets it, and
 * the other's bytes vanish: they can never interleave. Nothing else holds the offset. Any process can serve the next
 * request; the running hash is all that stays in memory, and where it is gone the bytes are read again.
 */
interface Step {
  /** How many bytes there are after this step. */
  readonly offset: number;
  /** SHA-256 in hex of all of them, where the writer knew it. */
  readonly sha256?: string;
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

interface State {
  readonly number: number;
  readonly first: FirstStep;
  readonly last: Step;
}

type Hashes = ReadonlyMap<Algorithm, Hash>;

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

export class Uploads {
  /** The hashes of all bytes up to one step. They are never updated in here: writers work on copies. */
  private readonly running = growingCache<string, { number: number; hashes: Hashes }>(1000);

  /** Steps, which never change, by upload and number. Whether they are still there the storage tells. */
  private readonly known = growingCache<string, Step>(1000);

  constructor(
    private readonly driver: StorageDriver,
    private readonly blobs: Blobs,
    private readonly quotas: Quotas,
    private readonly cap: UploadCap,
  ) {}

  /** Starts an upload of unknown content. @returns its UUID. @throws RegistryError TOOMANYREQUESTS */
  async start(repository: string, owner: string, algorithm: Algorithm = 'sha256'): Promise<string> {
    const uuid = randomUUID();
    const first: FirstStep = { offset: 0, epoch: this.driver.epoch, owner, algorithm };
    const now = Buffer.from(new Date().toISOString());
    await this.cap.enter(owner);
    try {
      await this.driver.create(layout.uploadStartedAt(repository, uuid), now, { durable: false });
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
    const writer = await this.driver.createSegment(layout.uploadSegment(upload.repository, upload.uuid, segment));
    let kept = false;
    try {
      const { received, cut } = await receive(body, chunk => {
        for (const hash of hashes?.values() ?? []) hash.update(chunk);
        return writer.write(chunk);
      });
      if (!cut && length !== undefined && received !== length) throw wrongSize(length, received);
      if (received > 0) {
        await writer.close();
        const offset = last.offset + received;
        const sha256 = hashes?.get('sha256')?.copy().digest('hex');
        const next: Step = { offset, segment, epoch: this.driver.epoch, ...(sha256 && { sha256 }) };
        kept = await this.createStep(upload, number + 1, next);
        if (!kept) throw outOfOrder(await this.offset(upload));
        // Another request may have ended the upload meanwhile: then this step has only made its folder again.
        if (!(await this.driver.stat(layout.uploadStep(upload.repository, upload.uuid, 0)))) {
          kept = false;
          await this.discard(upload);
          throw unknown();
        }
        if (hashes) this.running.set(upload.uuid, { number: number + 1, hashes });
      }
      if (cut) throw cut;
      return last.offset + received;
    } finally {
      if (!kept) await writer.abort();
    }
  }

  /**
   * Makes the blob of all that arrived, if it is what the digest says, durably, and ends the upload either way.
   * @throws RegistryError DIGEST_INVALID, BLOB_UPLOAD_UNKNOWN, DENIED
   */
  async finish(upload: UploadKey, digest: Digest): Promise<void> {
    const state = await this.load(upload);
    const steps = await this.steps(upload, state.number);
    const segments = steps.flatMap(({ segment }) =>
      segment ? layout.uploadSegment(upload.repository, upload.uuid, segment) : [],
    );
    const canonical = await this.verify(upload, state, segments, digest);
    if (!canonical) {
      await this.discard(upload);
      throw new RegistryError('DIGEST_INVALID', { detail: { digest } });
    }
    try {
      await this.commit(upload.repository, { canonical, digest, size: state.last.offset }, segments);
    } catch (error) {
      if (error instanceof RegistryError) await this.discard(upload);
      throw error;
    }
    await this.discard(upload);
  }

  private async commit(
    repository: string,
    { canonical, digest, size }: { canonical: Digest; digest: Digest; size: number },
    segments: readonly string[],
  ): Promise<void> {
    try {
      await this.quotas.within(repository, canonical, size, async () => {
        await this.driver.assemble(segments, layout.blob(canonical));
        await this.blobs.link(repository, canonical, digest);
      });
    } catch (error) {
      if (error instanceof RegistryError) throw error;
      // Another request has ended the upload, or deleted the repository with all its uploads.
      const left = await Promise.all(segments.map(key => this.driver.stat(key)));
      throw left.includes(undefined) ? unknown() : error;
    }
  }

  /**
   * A whole blob in one request. It has no steps, since nobody could resume it.
   * @throws RegistryError DIGEST_INVALID, SIZE_INVALID, DENIED, BLOB_UPLOAD_UNKNOWN
   */
  async whole(repository: string, digest: Digest, body: Readable, length?: number): Promise<void> {
    const uuid = randomUUID();
    const hashes = newHashes(algorithmOf(digest));
    const segment = layout.uploadSegment(repository, uuid, '1');
    const writer = await this.driver.createSegment(segment);
    try {
      const { received, cut } = await receive(body, chunk => {
        for (const hash of hashes.values()) hash.update(chunk);
        return writer.write(chunk);
      });
      if (cut) throw cut;
      await writer.close();
      if (length !== undefined && received !== length) throw wrongSize(length, received);
      const canonical = named(hashes, digest);
      if (!canonical) throw new RegistryError('DIGEST_INVALID', { detail: { digest } });
      await this.commit(repository, { canonical, digest, size: received }, [segment]);
    } finally {
      await writer.abort();
      await this.discard({ repository, uuid });
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
    if (owner !== undefined) this.cap.leave(owner, uuid);
    // The first step goes first. Without it there is no upload, and a crash leaves none that has lost its bytes.
    await this.driver.removeAll(layout.uploadSteps(repository, uuid), { durable: false });
    await this.driver.removeAll(layout.upload(repository, uuid), { durable: false });
  }

  private async createStep({ repository, uuid }: UploadKey, number: number, step: Step): Promise<boolean> {
    const data = Buffer.from(JSON.stringify(step));
    const created = await this.driver.create(layout.uploadStep(repository, uuid, number), data, { durable: false });
    if (created) this.known.set(`${uuid}/${number}`, step);
    return created;
  }

  private async readStep({ repository, uuid }: UploadKey, number: number): Promise<Step> {
    const known = this.known.get(`${uuid}/${number}`);
    if (known) return known;
    const data = await this.driver.get(layout.uploadStep(repository, uuid, number), 64 * 1024);
    // Steps are not flushed: a power cut may have left one empty.
    if (!data || data.length === 0) throw unknown();
    const step = JSON.parse(data.toString('utf8')) as Step;
    this.known.set(`${uuid}/${number}`, step);
    return step;
  }

  private steps(upload: UploadKey, last: number): Promise<Step[]> {
    return Promise.all(Array.from({ length: last + 1 }, (_, number) => this.readStep(upload, number)));
  }

  /** Where the upload stands, after a check that it exists, is whole and belongs to the owner. */
  private async load(upload: UploadKey): Promise<State> {
    if (!UUID.test(upload.uuid)) throw unknown();
    const entries = await this.driver.list(layout.uploadSteps(upload.repository, upload.uuid));
    const number = Number(entries.at(-1)?.name ?? Number.NaN);
    // Without the first step there is no upload, whatever else is left of it.
    if (!Number.isSafeInteger(number) || Number(entries[0]!.name) !== 0) throw unknown();
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
    for (const { segment, offset } of await this.steps(upload, last)) {
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
    segments: readonly string[],
    digest: Digest,
  ): Promise<Digest | undefined> {
    const known = this.hashesAfter(upload, state);
    if (known?.has(algorithmOf(digest))) return named(known, digest);
    if (digest.startsWith('sha256:') && state.last.sha256 && state.last.epoch === this.driver.epoch)
      return state.last.sha256 === hexOf(digest) ? digest : undefined;
    const hashes = newHashes(algorithmOf(digest));
    for (const key of segments) {
      const stream = await this.driver.read(key);
      if (!stream) throw unknown();
      for await (const chunk of stream) for (const hash of hashes.values()) hash.update(chunk);
    }
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

/**
 * Passes a body on, chunk by chunk, which costs half of what an asynchronous iteration does. A body that is given up is
 * left paused, its connection open for the answer. `cut` is set, not thrown, where the client left: what came before is
 * still good.
 */
async function receive(
  body: Readable,
  take: (chunk: Buffer) => Promise<void> | undefined,
): Promise<{ received: number; cut?: Error }> {
  let received = 0;
  let taken: Promise<void> | undefined;
  const cut = await new Promise<Error | undefined>((resolve, reject) => {
    const leave = finished(body, { writable: false }, error => {
      stop();
      resolve(error ?? undefined);
    });
    const stop = () => {
      leave();
      body.off('data', pass).pause();
    };
    const fail = (error: unknown) => {
      stop();
      reject(error);
    };
    const pass = (chunk: Buffer) => {
      received += chunk.length;
      try {
        taken = take(chunk);
      } catch (error) {
        fail(error);
        return;
      }
      if (!taken) return;
      body.pause();
      taken.then(() => body.resume(), fail);
    };
    body.on('data', pass);
  });
  await taken;
  if (cut && !isClientGone(cut)) throw cut;
  return cut ? { received, cut } : { received };
}

/** Whether an error says that the request was cut off, and not that the storage failed. */
export function isClientGone(error: unknown): boolean {
  const code = systemCode(error);
  return code === 'ECONNRESET' || code === 'ERR_STREAM_PREMATURE_CLOSE' || code === 'ABORT_ERR';
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
