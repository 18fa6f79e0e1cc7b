import { createHash } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { json, text } from 'node:stream/consumers';
import { OperatorError } from '../errors.js';
import type { ByteRange } from '../reference.js';
import { StorageError } from './driver.js';
import { HttpClient } from './object/http.js';
import { isDistrust, Requests, ServiceError, sizeOf, storageFailure, wayError } from './object/requests.js';
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
  type Upload,
  WRITE,
} from './object/store.js';
import { SwiftLogin } from './swift/login.js';
import type { SwiftOptions } from './swift/options.js';
import { inTurn } from './swift/turns.js';

/** As many as a manifest may name where nobody has said otherwise. */
const MOST_PARTS = 1000;

/** How many requests run at once on behalf of one call. */
const WIDTH = 8;

/** What a change of metadata has to say again. */
const KEPT = /^(?:x-object-meta-.*|x-object-manifest|x-delete-at|content-(?:type|encoding|disposition))$/;

const TYPE = { 'content-type': 'application/octet-stream' };

interface Sent {
  readonly body?: ReadonlyArray<Uint8Array | string>;
  readonly headers?: Readonly<Record<string, string>> | undefined;
  readonly query?: Readonly<Record<string, string | undefined>>;
}

/** A part of a large object, by its name in the container. */
interface Segment {
  readonly name: string;
  readonly size: number;
  readonly hash: string;
}

/**
 * The objects of a container of OpenStack Swift, as Distribution 2 laid them out: below `files/`, and what large ones are made of
 * below `segments/`. Swift decides nothing between two requests for an object, so those of this process take turns, and no
 * other may write.
 */
export class SwiftStore implements ObjectStore {
  readonly name = 'swift';
  readonly place: string;
  readonly solitary = true;
  readonly requests = new Requests(wayError);
  readonly #http: HttpClient;
  readonly #login: SwiftLogin;
  readonly #root: string;
  readonly #files: string;

  constructor(private readonly options: SwiftOptions) {
    const { root, container, authUrl, skipVerify } = options;
    this.place = `the container ${container} of ${authUrl}`;
    this.#http = new HttpClient({ skipVerify });
    this.#login = new SwiftLogin(this.#http, options);
    this.#root = root === '' ? '' : `${root}/`;
    this.#files = `${this.#root}files/`;
  }

  async prepare(): Promise<void> {
    await this.#attempt('look at the container', 'HEAD container', signal => this.#ask('HEAD', signal, ''));
  }

  close(): void {
    this.#http.close();
  }

  refusal(error: ServiceError): unknown {
    return refusalOf(this.options, error);
  }

  find(key: string): Promise<Found | undefined> {
    return this.#unlessAbsent(`look at ${key}`, 'HEAD', async signal =>
      foundOf(await this.#ask('HEAD', signal, this.#files + key)),
    );
  }

  get(key: string, { range }: { range?: ByteRange | undefined } = {}): Promise<Body | undefined> {
    return this.#unlessAbsent(`read ${key}`, 'GET', async signal => {
      const headers = range && { range: `bytes=${range.start}-${range.end}` };
      const answer = await this.#send('GET', signal, this.#files + key, { headers });
      const contentRange = answer.headers['content-range'];
      return bodyOf(key, answer, { range, contentRange }, total => foundOf(answer, total));
    });
  }

  put(key: string, data: Uint8Array, options: { write: string; ifAbsent?: boolean }): Promise<boolean> {
    const { write, ifAbsent = false } = options;
    return this.#inTurn(key, async () => {
      if (ifAbsent && (await this.find(key))) return false;
      await this.#write(this.#files + key, data, { [`x-object-meta-${WRITE}`]: write });
      return true;
    });
  }

  renew(key: string, found: Found): Promise<boolean> {
    return this.#ifStill(key, found, async () => {
      // A change of metadata sets the time, and replaces all there is: even what a dynamic large object is made of.
      const headers = { ...TYPE, ...found.metadata };
      await this.#attempt(`renew ${key}`, 'POST', signal => this.#ask('POST', signal, this.#files + key, { headers }));
    });
  }

  remove(key: string, found: Found): Promise<boolean> {
    return this.#ifStill(key, found, () => this.#delete(key));
  }

  drop(key: string): Promise<void> {
    return this.#inTurn(key, () => this.#delete(key));
  }

  async list(prefix: string, options: ListOptions = {}): Promise<Page> {
    const { after, token, delimiter, most = this.options.pageSize ?? PAGE_SIZE } = options;
    const from = `${this.#files}${prefix}`;
    const marker = token ?? (after === undefined ? undefined : `${from}${after}`);
    const listed = await this.#list({ prefix: from, delimiter, marker, limit: String(most) });
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
    return { number, size: data.length, tag: await this.#write(this.#segment(id, number), data) };
  }

  async completeUpload({ key, id }: Upload, parts: readonly Part[]): Promise<void> {
    const segments = parts
      .toSorted((one, other) => one.number - other.number)
      .map(({ number, size, tag }) => ({ name: this.#segment(id, number), size, hash: tag }));
    await this.#inTurn(key, () => this.#replace(key, () => this.#writeManifest(this.#files + key, id, segments)));
  }

  /** A manifest whose answer was lost may stand: it goes first. */
  async abortUpload({ key, id }: Upload, parts: readonly Part[]): Promise<void> {
    await this.#inTurn(key, async () => {
      if ((await this.find(key))?.write === id) await this.#deleteNames([this.#files + key]);
    });
    await this.#deleteNames(parts.map(({ number }) => this.#segment(id, number)));
  }

  async copy(from: string, key: string): Promise<void> {
    const found = await this.find(from);
    if (!found) throw new StorageError('unavailable', `copy ${from}: it is gone`);
    await this.join([{ key: from, size: found.info.size }], key);
  }

  /** What is copied has segments of its own, so that each of the two can be removed. The service copies them by itself. */
  async join(pieces: readonly Piece[], key: string): Promise<void> {
    const sources: Segment[] = [];
    for (const piece of pieces) sources.push(...(await this.#segmentsOf(piece)));
    if (await this.#keeps(key, sources)) return;
    const id = newWrite();
    const whole = sources.length === 1 && pieces.length === 1;
    const made = whole ? [] : await this.#copySegments(sources, id);
    await this.#inTurn(key, () =>
      this.#replace(key, async () => {
        if (whole) await this.#copyObject(sources[0]!.name, this.#files + key, id);
        else await this.#writeManifest(this.#files + key, id, made);
      }),
    ).catch(async error => {
      if (await this.#isRefused(key, id, error).catch(() => false))
        await this.#deleteNames(made.map(({ name }) => name)).catch(() => undefined);
      throw error;
    });
  }

  /** Whether the object is made of the same bytes already: then it is renewed, so that pulls keep the segments they read. */
  async #keeps(key: string, sources: readonly Segment[]): Promise<boolean> {
    const found = await this.find(key);
    if (found?.info.size !== sources.reduce((sum, { size }) => sum + size, 0)) return false;
    const there = await this.#segmentsOf({ key, size: found.info.size });
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

  async #copySegments(sources: readonly Segment[], id: string): Promise<Segment[]> {
    const made: Segment[] = sources.map(({ size, hash }, index) => ({
      name: this.#segment(id, index + 1),
      size,
      hash,
    }));
    const waiting = sources.entries();
    const lane = async () => {
      for (const [index, { name }] of waiting) await this.#copyObject(name, made[index]!.name, id);
    };
    const lanes = await Promise.allSettled(Array.from({ length: Math.min(WIDTH, sources.length) }, lane));
    const failed = lanes.find(result => result.status === 'rejected');
    if (!failed) return made;
    await this.#deleteNames(made.map(({ name }) => name)).catch(() => undefined);
    throw failed.reason;
  }

  async #copyObject(from: string, to: string, write: string): Promise<void> {
    const headers = {
      'x-copy-from': encodePath(`${this.options.container}/${from}`),
      'x-fresh-metadata': 'true',
      [`x-object-meta-${WRITE}`]: write,
      ...TYPE,
    };
    await this.#attempt(`copy ${from} to ${to}`, 'COPY', signal => this.#ask('PUT', signal, to, { headers, body: [] }));
  }

  /** Puts another object in the place of one; what only the old one needed goes then. */
  async #replace(key: string, write: () => Promise<void>): Promise<void> {
    const old = await this.#largeSegments(key);
    await write();
    await this.#deleteNames(old.map(({ name }) => name)).catch(() => undefined);
  }

  /** The object first: nobody sees one that lacks a part. */
  async #delete(key: string): Promise<void> {
    const segments = await this.#largeSegments(key);
    await this.#deleteNames([this.#files + key]);
    await this.#deleteNames(segments.map(({ name }) => name));
  }

  async #deleteNames(names: readonly string[]): Promise<void> {
    for (let at = 0; at < names.length; at += WIDTH) {
      const removals = names
        .slice(at, at + WIDTH)
        .map(name => this.#unlessAbsent(`remove ${name}`, 'DELETE', signal => this.#ask('DELETE', signal, name)));
      await Promise.all(removals);
    }
  }

  async #segmentsOf({ key, size }: Piece): Promise<Segment[]> {
    const segments = await this.#largeSegments(key);
    if (segments.length > 0) return segments.filter(({ name }) => !name.endsWith('/manifest'));
    const answer = await this.#attempt(`look at ${key}`, 'HEAD', signal =>
      this.#ask('HEAD', signal, this.#files + key),
    );
    return [{ name: this.#files + key, size, hash: hashOf(answer) }];
  }

  /** What a large object is made of, with the manifests between; nothing for any other, and none. */
  async #largeSegments(key: string): Promise<Segment[]> {
    const name = this.#files + key;
    const head = await this.#unlessAbsent(`look at ${key}`, 'HEAD', signal => this.#ask('HEAD', signal, name));
    if (head?.headers['x-static-large-object']) return this.#manifest(name);
    // Such as Distribution has made: whatever is below a name.
    const dynamic = head?.headers['x-object-manifest'];
    if (typeof dynamic !== 'string') return [];
    const path = decodeURIComponent(dynamic);
    return this.#listAll(path.slice(path.indexOf('/') + 1));
  }

  async #manifest(name: string): Promise<Segment[]> {
    const query = { 'multipart-manifest': 'get' };
    const listed = await this.#attempt(`read the manifest of ${name}`, 'GET', async signal => {
      const answer = await this.#send('GET', signal, name, { query });
      return (await json(answer)) as Array<{ name: string; bytes: number; hash: string; sub_slo?: boolean }>;
    });
    const segments: Segment[] = [];
    for (const { name: path, bytes, hash, sub_slo: isManifest } of listed) {
      const part = path.slice(this.options.container.length + 2);
      if (isManifest) segments.push(...(await this.#manifest(part)));
      segments.push({ name: part, size: bytes, hash });
    }
    return segments;
  }

  /** One that names no more parts than it may: manifests between name the rest. */
  async #writeManifest(name: string, id: string, segments: readonly Segment[]): Promise<void> {
    let named = segments;
    if (segments.length > MOST_PARTS) {
      const between: Segment[] = [];
      for (let at = 0; at < segments.length; at += MOST_PARTS) {
        const group = segments.slice(at, at + MOST_PARTS);
        const one = `${this.#segment(id, at + 1)}/manifest`;
        await this.#writeManifest(one, id, group);
        const answer = await this.#attempt(`look at ${one}`, 'HEAD', signal => this.#ask('HEAD', signal, one));
        between.push({ name: one, size: group.reduce((sum, { size }) => sum + size, 0), hash: hashOf(answer) });
      }
      named = between;
    }
    const { container } = this.options;
    const body = [
      JSON.stringify(
        named.map(({ name, size, hash }) => ({ path: `/${container}/${name}`, size_bytes: size, etag: hash })),
      ),
    ];
    const headers = { ...TYPE, [`x-object-meta-${WRITE}`]: id };
    const query = { 'multipart-manifest': 'put' };
    await this.#attempt(`complete ${name}`, 'PUT manifest', signal =>
      this.#ask('PUT', signal, name, { body, headers, query }),
    );
  }

  /** @returns the MD5 of what was written, which the service has checked */
  async #write(name: string, data: Uint8Array, headers: Record<string, string> = {}): Promise<string> {
    const hash = createHash('md5').update(data).digest('hex');
    const sent = { body: [data], headers: { ...TYPE, etag: hash, ...headers } };
    await this.#attempt(`write ${name}`, 'PUT', signal => this.#ask('PUT', signal, name, sent), data.length);
    return hash;
  }

  #segment(id: string, number: number): string {
    return `${this.#root}segments/${id.slice(0, 3)}/${id.slice(3)}/${String(number).padStart(16, '0')}`;
  }

  async #listAll(prefix: string): Promise<Segment[]> {
    const segments: Segment[] = [];
    for (let marker: string | undefined; ; ) {
      const listed = await this.#list({ prefix, marker, limit: String(PAGE_SIZE) });
      for (const { name, bytes, hash } of listed) segments.push({ name: name!, size: bytes!, hash: hash! });
      if (listed.length < PAGE_SIZE) return segments;
      marker = listed.at(-1)!.name;
    }
  }

  #list(query: Sent['query']): Promise<Listed[]> {
    return this.#attempt(`list ${query?.prefix}`, 'LIST', async signal => {
      const answer = await this.#send('GET', signal, '', { query: { ...query, format: 'json' } });
      return answer.statusCode === 204 ? [] : ((await json(answer)) as Listed[]);
    });
  }

  #ifStill(key: string, found: Found, action: () => Promise<void>): Promise<boolean> {
    return this.#inTurn(key, async () => {
      if ((await this.find(key))?.etag !== found.etag) return false;
      await action();
      return true;
    });
  }

  #inTurn<T>(key: string, action: () => Promise<T>): Promise<T> {
    const { authUrl, container } = this.options;
    return inTurn(`${authUrl} ${container} ${this.#files}${key}`, action);
  }

  /** The headers of an answer whose body does not count. */
  async #ask(method: string, signal: AbortSignal, name: string, sent: Sent = {}): Promise<IncomingMessage> {
    const answer = await this.#send(method, signal, name, sent);
    await text(answer);
    return answer;
  }

  /** @param name of an object; empty for the container. @throws ServiceError where it is no success */
  async #send(method: string, signal: AbortSignal, name: string, sent: Sent): Promise<IncomingMessage> {
    let session = await this.#login.session(signal);
    for (let isFirst = true; ; isFirst = false) {
      const url = new URL(`${session.storage}/${encodePath(this.options.container)}${name && `/${encodePath(name)}`}`);
      for (const [key, value] of Object.entries(sent.query ?? {}))
        if (value !== undefined) url.searchParams.set(key, value);
      const headers = { ...sent.headers, 'x-auth-token': session.token };
      const answer = await this.#http.send({ method, url, headers, body: sent.body, signal });
      this.requests.hear(answer.headers.date);
      const status = answer.statusCode!;
      if (status < 300) return answer;
      const message = (await text(answer)).replaceAll(/<[^>]*>/g, ' ').slice(0, 300);
      if (status !== 401 || !isFirst) {
        const seconds = Number(answer.headers['retry-after']);
        const retryAfter = seconds > 0 ? seconds * 1000 : undefined;
        throw new ServiceError({ status, code: answer.statusMessage ?? '', message, retryAfter });
      }
      session = await this.#login.session(signal, session);
    }
  }

  async #unlessAbsent<T>(
    action: string,
    kind: string,
    send: (signal: AbortSignal) => Promise<T>,
  ): Promise<T | undefined> {
    try {
      return await this.requests.send(kind, send);
    } catch (error) {
      if (error instanceof ServiceError && error.status === 404) return undefined;
      throw storageFailure(action, error);
    }
  }

  async #attempt<T>(action: string, kind: string, send: (signal: AbortSignal) => Promise<T>, bytes = 0): Promise<T> {
    try {
      return await this.requests.send(kind, send, bytes);
    } catch (error) {
      throw storageFailure(action, error);
    }
  }
}

interface Listed {
  readonly name?: string;
  readonly subdir?: string;
  readonly bytes?: number;
  readonly hash?: string;
  readonly last_modified?: string;
}

function foundOf({ headers }: IncomingMessage, length: string | undefined = headers['content-length']): Found {
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

function hashOf({ headers }: IncomingMessage): string {
  return String(headers.etag).replaceAll('"', '');
}

function encodePath(path: string): string {
  return path.split('/').map(encodeURIComponent).join('/');
}

/** Why a container cannot be opened, and the way out. */
function refusalOf({ container, authUrl }: SwiftOptions, error: ServiceError): OperatorError {
  const { status, code, message } = error;
  const refuse = (what: string, fix: string) => new OperatorError(what, { fix, cause: error });
  if (status === 404)
    return refuse(
      `there is no container ${container} in the account that ${authUrl} gives`,
      `make it (openstack container create ${container}), or check storage.swift.container and tenant`,
    );
  if (status === 401 || status === 403)
    return refuse(
      `the object store refuses access to the container ${container} (HTTP ${status})`,
      'give this user a role that may read and write it; where it is to read only: REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED=true',
    );
  if (isDistrust(code))
    return refuse(
      `the certificate of ${authUrl}, or of the object store, is not trusted (${code})`,
      'name its authority: NODE_EXTRA_CA_CERTS=FILE',
    );
  if (status === undefined)
    return refuse(
      `${authUrl}, or the object store, cannot be reached (${code || message})`,
      'check storage.swift.authurl and the network',
    );
  return refuse(
    `the container ${container} cannot be used: ${message || code} (HTTP ${status})`,
    'check storage.swift.* and the service',
  );
}
