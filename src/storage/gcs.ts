import { createHash } from 'node:crypto';
import { text } from 'node:stream/consumers';
import { Storage } from '@google-cloud/storage';
import type { ByteRange } from '../reference.js';
import { answerOf, gcsError, gcsRefusal } from './gcs/failure.js';
import type { GcsOptions } from './gcs/options.js';
import { GcsSigner, type SigningAccount } from './gcs/signer.js';
import { HttpClient } from './object/http.js';
import { Requests, ServiceError, sizeOf, unreadable } from './object/requests.js';
import {
  type Body,
  bodyOf,
  type Found,
  type ListOptions,
  newWrite,
  type ObjectStore,
  PAGE_SIZE,
  type Page,
  type Part,
  type Piece,
  type PutOptions,
  TEMPORARY,
  temporaryKey,
  type Upload,
  WRITE,
} from './object/store.js';

/** How many objects the service joins at once. */
const MOST_JOINED = 32;

/** Changes with each renewal: to write the metadata that an object has already may count as no change. */
const RENEWED = 'registrysecurerenewed';

const FIELDS = 'size,generation,metageneration,updated,metadata';

/** Headers of an answer. */
type Told = Readonly<Record<string, string | undefined>>;

interface Content {
  readonly body?: ReadonlyArray<Uint8Array | string>;
  readonly headers?: Readonly<Record<string, string>> | undefined;
}

type Query = Readonly<Record<string, string | number | undefined>>;

interface Resource {
  readonly name?: string | undefined;
  readonly size?: string | undefined;
  readonly generation?: string | undefined;
  readonly metageneration?: string | undefined;
  readonly updated?: string | undefined;
  readonly metadata?: Record<string, string> | undefined;
}

/** A page of a list. */
interface Listing {
  readonly kind?: string;
  readonly items?: readonly Resource[];
  readonly prefixes?: readonly string[];
  readonly nextPageToken?: string;
}

/**
 * The objects of a bucket of Google Cloud Storage, by its JSON API. Google's client logs in; its own methods hide what is
 * needed here: the service's clock, a time-out for each attempt, which attempt it is, and that a body has broken off.
 */
export class GcsStore implements ObjectStore {
  readonly name = 'gcs';
  readonly place: string;
  readonly solitary = false;
  readonly requests = new Requests(gcsError);
  readonly signer: GcsSigner;
  readonly #storage: Storage;
  readonly #http = new HttpClient();
  readonly #prefix: string;

  constructor(private readonly options: GcsOptions) {
    const { bucket, root, endpoint, keyFile, credentials } = options;
    this.place = `the bucket ${bucket} in Google Cloud Storage`;
    this.#prefix = root === '' ? '' : `${root}/`;
    this.#storage = new Storage({
      ...(endpoint !== undefined && { apiEndpoint: endpoint }),
      ...(keyFile !== undefined && { keyFilename: keyFile }),
      ...(credentials && { credentials }),
    });
    this.signer = new GcsSigner(
      this.#storage.apiEndpoint,
      () => this.#account(),
      key => `/${bucket}/${this.#prefix}${key}`,
    );
  }

  async prepare(): Promise<void> {}

  close(): void {
    this.#http.close();
  }

  refusal(error: ServiceError): unknown {
    return gcsRefusal(this.options, error);
  }

  find(key: string): Promise<Found | undefined> {
    return this.requests.unless(isAbsent, undefined, `look at ${key}`, 'GetObject', async signal =>
      foundOf(await this.#ask('GET', signal, this.#at(key), { fields: FIELDS })),
    );
  }

  get(
    key: string,
    { range, bytes }: { range?: ByteRange | undefined; bytes?: string | undefined } = {},
  ): Promise<Body | undefined> {
    const headers = range && { range: `bytes=${range.start}-${range.end}` };
    const query = { alt: 'media', generation: bytes };
    return this.requests.unless(isAbsent, undefined, `read ${key}`, 'Download', async signal => {
      const { told, data } = await this.#send('GET', signal, this.#at(key), query, { headers });
      return bodyOf(key, data, { range, contentRange: told['content-range'] }, total =>
        foundOf({
          size: total ?? told['content-length'],
          generation: told['x-goog-generation'],
          metageneration: told['x-goog-metageneration'],
          updated: told['last-modified'],
        }),
      );
    });
  }

  put(key: string, data: Uint8Array, { write, over }: PutOptions): Promise<boolean> {
    const generation = over === 'nothing' ? 0 : over && versionOf(over).generation;
    const boundary = newWrite() + newWrite();
    const about = {
      name: `${this.#prefix}${key}`,
      contentType: 'application/octet-stream',
      metadata: { [WRITE]: write },
      // The service refuses a body that was cut or changed on the way.
      md5Hash: createHash('md5').update(data).digest('base64'),
    };
    const head = (type: string) => `--${boundary}\r\ncontent-type: ${type}\r\n\r\n`;
    const body = [
      `${head('application/json')}${JSON.stringify(about)}\r\n${head('application/octet-stream')}`,
      data,
      `\r\n--${boundary}--\r\n`,
    ];
    const query = { uploadType: 'multipart', fields: 'generation', ifGenerationMatch: generation };
    const headers = { 'content-type': `multipart/related; boundary=${boundary}` };
    const send = async (signal: AbortSignal) => {
      const { data } = await this.#send('POST', signal, `/upload${this.#objects}`, query, { body, headers });
      checkMade(resourceIn(await text(data)));
      return true;
    };
    return this.requests.unless(
      ({ status }) => over !== undefined && status === 412,
      false,
      `write ${key}`,
      'InsertObject',
      send,
      data.length,
    );
  }

  renew(key: string, found: Found): Promise<boolean> {
    const { generation, metageneration } = versionOf(found);
    const query = { ifGenerationMatch: generation, ifMetagenerationMatch: metageneration, fields: 'generation' };
    return this.requests.unless(isAnother, false, `renew ${key}`, 'PatchObject', async signal => {
      checkMade(await this.#ask('PATCH', signal, this.#at(key), query, { metadata: { [RENEWED]: newWrite() } }));
      return true;
    });
  }

  remove(key: string, found: Pick<Found, 'etag'>): Promise<boolean> {
    const { generation, metageneration } = versionOf(found);
    const query = { generation, ifMetagenerationMatch: metageneration };
    return this.requests.unless(isAnother, false, `remove ${key}`, 'DeleteObject', async (signal, before) => {
      try {
        await this.#ask('DELETE', signal, this.#at(key), query);
        return true;
      } catch (error) {
        // Then an answer was lost, and it was this one that has removed it.
        if (before > 0 && error instanceof ServiceError && isAbsent(error)) return true;
        throw error;
      }
    });
  }

  drop(key: string): Promise<void> {
    return this.requests.unless(isAbsent, undefined, `remove ${key}`, 'DeleteObject', async signal => {
      await this.#ask('DELETE', signal, this.#at(key));
    });
  }

  async list(prefix: string, options: ListOptions = {}): Promise<Page> {
    const { after, token, delimiter, most = this.options.pageSize ?? PAGE_SIZE } = options;
    const from = `${this.#prefix}${prefix}`;
    const query = {
      prefix: from,
      maxResults: most,
      delimiter,
      pageToken: token,
      startOffset: after === undefined ? undefined : `${from}${after}`,
      fields: 'kind,items(name,updated,generation,metageneration),prefixes,nextPageToken',
    };
    const page = await this.requests.attempt(`list ${prefix}`, 'ListObjects', async signal => {
      const told = (await this.#ask('GET', signal, this.#objects, query)) as Listing;
      if (told.kind !== 'storage#objects') throw unreadable('the answer is no list of objects');
      return told;
    });
    return {
      objects: (page.items ?? []).map(({ name, updated, generation, metageneration }) => ({
        key: name!.slice(this.#prefix.length),
        modified: new Date(updated!),
        etag: `${generation}/${metageneration}`,
      })),
      folders: (page.prefixes ?? []).map(name => name.slice(this.#prefix.length, -1)),
      next: page.nextPageToken || undefined,
    };
  }

  startUpload(key: string): Upload {
    return { key, id: newWrite() };
  }

  async uploadPart({ id }: Upload, number: number, data: Uint8Array): Promise<Part> {
    const tag = `${TEMPORARY}${id}/${number}`;
    await this.put(tag, data, { write: id });
    return { number, size: data.length, tag };
  }

  async completeUpload(upload: Upload, parts: readonly Part[]): Promise<void> {
    const inOrder = parts.toSorted((one, other) => one.number - other.number);
    await this.join(
      inOrder.map(({ tag, size }) => ({ key: tag, size })),
      upload.key,
    );
    await this.abortUpload(upload, parts).catch(() => undefined);
  }

  async abortUpload(_: Upload, parts: readonly Part[]): Promise<void> {
    for (const { tag } of parts) await this.drop(tag);
  }

  async copy(from: string, key: string): Promise<void> {
    const path = `${this.#at(from)}/rewriteTo${this.#at(key).slice('/storage/v1'.length)}`;
    for (let token: string | undefined, done = false; !done; ) {
      const answer = await this.requests.attempt(`copy ${from} to ${key}`, 'RewriteObject', async signal => {
        const told = await this.#ask('POST', signal, path, { rewriteToken: token }, made());
        const state = told as { rewriteToken?: string; done?: boolean };
        if (!state.done && state.rewriteToken === undefined) throw unreadable('the answer does not tell how far it is');
        return state;
      });
      ({ rewriteToken: token, done = false } = answer);
    }
  }

  async join(pieces: readonly Piece[], key: string): Promise<void> {
    if (pieces.length <= MOST_JOINED) return this.#compose(pieces, key);
    const between: Piece[] = [];
    try {
      for (let at = 0; at < pieces.length; at += MOST_JOINED) {
        const group = pieces.slice(at, at + MOST_JOINED);
        const one = { key: temporaryKey(), size: group.reduce((sum, { size }) => sum + size, 0) };
        between.push(one);
        await this.#compose(group, one.key);
      }
      await this.join(between, key);
    } finally {
      for (const one of between) await this.drop(one.key).catch(() => undefined);
    }
  }

  async #compose(pieces: readonly Piece[], key: string): Promise<void> {
    const sourceObjects = pieces.map(piece => ({ name: `${this.#prefix}${piece.key}` }));
    const json = { sourceObjects, destination: made() };
    await this.requests.attempt(`join ${key}`, 'ComposeObject', async signal =>
      checkMade(await this.#ask('POST', signal, `${this.#at(key)}/compose`, {}, json)),
    );
  }

  get #objects(): string {
    return `/storage/v1/b/${encodeURIComponent(this.options.bucket)}/o`;
  }

  #at(key: string): string {
    return `${this.#objects}/${encodeURIComponent(`${this.#prefix}${key}`)}`;
  }

  async #account(): Promise<SigningAccount | undefined> {
    const { email, key } = (await this.#storage.authClient.getClient()) as Partial<SigningAccount>;
    return email === undefined || key === undefined ? undefined : { email, key };
  }

  /** A request whose body and answer are JSON. */
  async #ask(method: string, signal: AbortSignal, path: string, query: Query = {}, json?: object): Promise<Resource> {
    const content = json && { body: [JSON.stringify(json)], headers: { 'content-type': 'application/json' } };
    const { data } = await this.#send(method, signal, path, query, content);
    const answer = await text(data);
    return method === 'DELETE' && answer === '' ? {} : resourceIn(answer);
  }

  /** @throws ServiceError where it is no success */
  async #send(method: string, signal: AbortSignal, path: string, query: Query, { body, headers }: Content = {}) {
    const url = new URL(`${this.#storage.apiEndpoint}${path}`);
    for (const [name, value] of Object.entries(query))
      if (value !== undefined) url.searchParams.set(name, String(value));
    const { userAgent = 'registry-secure' } = this.options;
    const client = await this.#storage.authClient.getClient();
    // A token that the key of a service account signs by itself: none has to be asked for.
    if ('useJWTAccessWithScope' in client) client.useJWTAccessWithScope = true;
    const login = await client.getRequestHeaders(url.href);
    const all = { ...login, 'user-agent': userAgent, ...headers };
    const answer = await this.#http.send({ method, url, headers: all, body, signal });
    const told = answer.headers as Told;
    this.requests.hear(told.date);
    const status = answer.statusCode!;
    if (status >= 300) throw answerOf(status, await text(answer), told['retry-after']);
    return { told, data: answer };
  }
}

function made() {
  return { contentType: 'application/octet-stream', metadata: { [WRITE]: newWrite() } };
}

/** What an answer in JSON tells. @throws ServiceError where it is none, or an error although it calls itself a success */
function resourceIn(answer: string): Resource {
  try {
    const told = JSON.parse(answer) as Resource & { error?: unknown };
    if (told.error === undefined) return told;
  } catch {
    // It has broken off, or is a page of something in between.
  }
  throw unreadable(`the answer cannot be read: ${answer}`);
}

function checkMade({ generation }: Resource): void {
  if (generation === undefined) throw unreadable('the answer does not tell of an object');
}

function foundOf(resource: Resource): Found {
  checkMade(resource);
  const { size, generation, metageneration, updated, metadata } = resource;
  const etag = `${generation}/${metageneration}`;
  // A download tells the time in whole seconds: what happened is no later than this.
  const modified = new Date(Math.floor(Date.parse(updated!) / 1000) * 1000 + 999);
  return {
    info: { size: sizeOf(size), modified, version: etag },
    etag,
    bytes: String(generation),
    write: metadata?.[WRITE],
  };
}

function versionOf({ etag }: Pick<Found, 'etag'>): { generation: string; metageneration: string } {
  const [generation, metageneration] = etag.split('/');
  return { generation: generation!, metageneration: metageneration! };
}

function isAbsent({ status, message }: ServiceError): boolean {
  return status === 404 && !/bucket does not exist/i.test(message);
}

function isAnother(error: ServiceError): boolean {
  return error.status === 412 || isAbsent(error);
}
