import { createHash } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { ByteRange } from '../reference.js';
import { StorageError } from './driver.js';
import { type Requests, ServiceError, sizeOf } from './object/requests.js';
import {
  type Body,
  bodyOf,
  bytesOf,
  type Found,
  type ListOptions,
  newWrite,
  type ObjectStore,
  PAGE_SIZE,
  type Page,
  type Part,
  type Piece,
  type PutOptions,
  type Upload,
  WRITE,
} from './object/store.js';
import { checkTold, SwiftClient, TYPE } from './swift/client.js';
import { swiftRefusal } from './swift/failure.js';
import { LargeObjects, type Segment } from './swift/large.js';
import type { SwiftOptions } from './swift/options.js';
import { SwiftSigner } from './swift/signer.js';
import { beside, inTurn } from './swift/turns.js';

/** What a change of metadata has to say again. */
const KEPT = /^(?:x-object-meta-.*|x-object-manifest|x-delete-at|content-(?:type|encoding|disposition))$/;

/**
 * The objects of a container of OpenStack Swift, as Distribution 2 laid them out: below `files/`, and what large ones are made of
 * below `segments/`. Swift decides nothing between two requests for an object, so those of this process take turns, and no
 * other may write.
 */
export class SwiftStore implements ObjectStore {
  readonly name = 'swift';
  readonly place: string;
  readonly solitary = true;
  readonly requests: Requests;
  readonly signer: SwiftSigner;
  readonly #client: SwiftClient;
  readonly #large: LargeObjects;
  readonly #files: string;

  constructor(private readonly options: SwiftOptions) {
    const { container, authUrl } = options;
    const root = options.root === '' ? '' : `${options.root}/`;
    this.place = `the container ${container} of ${authUrl}`;
    this.#client = new SwiftClient(options);
    this.requests = this.#client.requests;
    this.#large = new LargeObjects(this.#client, container, root);
    this.#files = `${root}files/`;
    this.signer = new SwiftSigner(this.#client, options, key => this.#files + key);
  }

  async prepare(): Promise<void> {
    await this.#client.requests.attempt('look at the container', 'HEAD container', signal =>
      this.#client.ask('HEAD', signal, ''),
    );
  }

  close(): void {
    this.#client.close();
  }

  refusal(error: ServiceError): unknown {
    return swiftRefusal(this.options, error);
  }

  find(key: string): Promise<Found | undefined> {
    return beside(this.#urlOf(key), () => this.#find(key));
  }

  get(key: string, { range }: { range?: ByteRange | undefined } = {}): Promise<Body | undefined> {
    const headers = range && { range: `bytes=${range.start}-${range.end}` };
    const read = () =>
      this.#client.unlessAbsent(`read ${key}`, 'GET', async signal => {
        const answer = await this.#client.send('GET', signal, this.#files + key, { headers });
        const contentRange = answer.headers['content-range'];
        return bodyOf(key, answer, { range, contentRange }, total => foundOf(answer, total));
      });
    return beside(this.#urlOf(key), read);
  }

  put(key: string, data: Uint8Array, { write, over }: PutOptions): Promise<boolean> {
    return this.#inTurn(key, async () => {
      if (over && (await this.#find(key))?.etag !== (over === 'nothing' ? undefined : over.etag)) return false;
      await this.#write(this.#files + key, data, { [`x-object-meta-${WRITE}`]: write });
      return true;
    });
  }

  renew(key: string, found: Found): Promise<boolean> {
    return this.#ifStill(key, found, async () => {
      // A change of metadata sets the time, and replaces all there is: even what a dynamic large object is made of.
      const headers = { ...TYPE, ...found.metadata };
      await this.#client.requests.attempt(`renew ${key}`, 'POST', signal =>
        this.#client.ask('POST', signal, this.#files + key, { headers }),
      );
    });
  }

  remove(key: string, found: Pick<Found, 'etag'>): Promise<boolean> {
    return this.#ifStill(key, found, () => this.#delete(key));
  }

  drop(key: string): Promise<void> {
    return this.#inTurn(key, () => this.#delete(key));
  }

  async list(prefix: string, options: ListOptions = {}): Promise<Page> {
    const { after, token, delimiter, most = this.options.pageSize ?? PAGE_SIZE } = options;
    const from = `${this.#files}${prefix}`;
    const marker = token ?? (after === undefined ? undefined : `${from}${after}`);
    const listed = await this.#client.list({ prefix: from, delimiter, marker, limit: String(most) });
    const own = (name: string) => name.slice(this.#files.length);
    const last = listed.at(-1);
    return {
      objects: listed.flatMap(({ name, last_modified: at }) =>
        name === undefined ? [] : [{ key: own(name), modified: new Date(`${at}Z`) }],
      ),
      folders: listed.flatMap(({ subdir }) => (subdir === undefined ? [] : [own(subdir).slice(0, -1)])),
      next: listed.length < most ? undefined : (last!.name ?? last!.subdir),
    };
  }

  startUpload(key: string): Upload {
    return { key, id: newWrite() };
  }

  async uploadPart({ id }: Upload, number: number, data: Uint8Array): Promise<Part> {
    return { number, size: data.length, tag: await this.#write(this.#large.segmentName(id, number), data) };
  }

  async completeUpload({ key, id }: Upload, parts: readonly Part[]): Promise<void> {
    const segments = parts
      .toSorted((one, other) => one.number - other.number)
      .map(({ number, size, tag }) => ({ name: this.#large.segmentName(id, number), size, hash: tag }));
    await this.#inTurn(key, () => this.#replace(key, () => this.#large.writeManifest(this.#files + key, id, segments)));
  }

  /** A manifest whose answer was lost may stand: it goes first. */
  async abortUpload({ key, id }: Upload, parts: readonly Part[]): Promise<void> {
    await this.#inTurn(key, async () => {
      if ((await this.#find(key))?.write === id) await this.#client.remove([this.#files + key]);
    });
    await this.#client.remove(parts.map(({ number }) => this.#large.segmentName(id, number)));
  }

  async copy(from: string, key: string): Promise<void> {
    const found = await this.find(from);
    if (!found) throw new StorageError('unavailable', `copy ${from}: it is gone`);
    await this.join([{ key: from, size: found.info.size }], key);
  }

  /** What is copied has segments of its own, so that each of the two can be removed. The service copies them by itself. */
  async join(pieces: readonly Piece[], key: string): Promise<void> {
    const sources: Segment[] = [];
    for (const piece of pieces) sources.push(...(await this.#large.segmentsOf(this.#files + piece.key, piece.size)));
    if (await this.#keeps(key, sources)) return;
    const id = newWrite();
    const whole = sources.length === 1 && pieces.length === 1;
    const made = whole ? [] : await this.#large.copySegments(sources, id);
    await this.#inTurn(key, () =>
      this.#replace(key, async () => {
        if (whole) await this.#client.copy(sources[0]!.name, this.#files + key, id);
        else await this.#large.writeManifest(this.#files + key, id, made);
      }),
    ).catch(async error => {
      if (await this.#isRefused(key, id, error).catch(() => false))
        await this.#client.remove(made.map(({ name }) => name)).catch(() => undefined);
      throw error;
    });
  }

  /** Whether the object is made of the same bytes already: then it is renewed, so that pulls keep the segments they read. */
  async #keeps(key: string, sources: readonly Segment[]): Promise<boolean> {
    const found = await this.find(key);
    if (found?.info.size !== sources.reduce((sum, { size }) => sum + size, 0)) return false;
    const there = await this.#large.segmentsOf(this.#files + key, found.info.size);
    const isSame =
      there.length === sources.length &&
      there.every(({ size, hash }, index) => size === sources[index]!.size && hash === sources[index]!.hash);
    return isSame && this.renew(key, found);
  }

  /** Whether what a write was to name is needed by nobody. Without an answer it may stand, or come to stand. */
  async #isRefused(key: string, write: string, error: unknown): Promise<boolean> {
    const { cause } = error as StorageError;
    const { status = 0 } = cause instanceof ServiceError ? cause : {};
    return status >= 400 && status < 500 && status !== 408 && (await this.find(key))?.write !== write;
  }

  /** For who has the turn. */
  #find(key: string): Promise<Found | undefined> {
    return this.#client.unlessAbsent(`look at ${key}`, 'HEAD', async signal =>
      foundOf(await this.#client.ask('HEAD', signal, this.#files + key)),
    );
  }

  /** Puts another object in the place of one; what only the old one needed goes then. */
  async #replace(key: string, write: () => Promise<void>): Promise<void> {
    const old = await this.#large.madeOf(this.#files + key);
    await write();
    await this.#client.remove(old.map(({ name }) => name)).catch(() => undefined);
  }

  /** The object first: nobody sees one that lacks a part. */
  async #delete(key: string): Promise<void> {
    const segments = await this.#large.madeOf(this.#files + key);
    await this.#client.remove([this.#files + key]);
    await this.#client.remove(segments.map(({ name }) => name));
  }

  /** @returns the MD5 of what was written, which the service has checked */
  async #write(name: string, data: Uint8Array, headers: Record<string, string> = {}): Promise<string> {
    const hash = createHash('md5').update(data).digest('hex');
    const sent = { body: [data], headers: { ...TYPE, etag: hash, ...headers } };
    await this.#client.requests.attempt(
      `write ${name}`,
      'PUT',
      signal => this.#client.ask('PUT', signal, name, sent),
      data.length,
    );
    return hash;
  }

  #ifStill(key: string, found: Pick<Found, 'etag'>, action: () => Promise<void>): Promise<boolean> {
    return this.#inTurn(key, async () => {
      if ((await this.#find(key))?.etag !== found.etag) return false;
      await action();
      return true;
    });
  }

  #inTurn<T>(key: string, action: () => Promise<T>): Promise<T> {
    return inTurn(this.#urlOf(key), action);
  }

  #urlOf(key: string): string {
    const { authUrl, container } = this.options;
    return `${authUrl} ${container} ${this.#files}${key}`;
  }
}

function foundOf(answer: IncomingMessage, length = answer.headers['content-length']): Found {
  checkTold(answer);
  const { headers } = answer;
  const time = String(headers['x-timestamp']);
  const size = sizeOf(length);
  const write = headers[`x-object-meta-${WRITE}`] as string | undefined;
  return {
    info: { size, modified: new Date(Math.floor(Number(time) * 1000)), version: time },
    etag: time,
    bytes: bytesOf(write, size, time),
    write,
    metadata: Object.fromEntries(Object.entries(headers).filter(([name]) => KEPT.test(name))) as Record<string, string>,
  };
}
