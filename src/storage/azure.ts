import { createHash } from 'node:crypto';
import https from 'node:https';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  type BlobClient,
  type BlobRequestConditions,
  BlobServiceClient,
  type BlockBlobClient,
  type ContainerClient,
  newPipeline,
  type RequestPolicyFactory,
  StorageSharedKeyCredential,
} from '@azure/storage-blob';
import type { ByteRange } from '../reference.js';
import { DelegatedKey } from './azure/delegation.js';
import { azureError, azureRefusal } from './azure/failure.js';
import { AzureLogin } from './azure/identity.js';
import type { AzureOptions } from './azure/options.js';
import { AzureSigner } from './azure/signer.js';
import { StorageError } from './driver.js';
import { ObjectReader } from './object/reader.js';
import { Requests, ServiceError, sizeOf, unreadable } from './object/requests.js';
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
  type PutOptions,
  type Upload,
  WRITE,
} from './object/store.js';

/** Where `registry:2` has its blobs: it wrote the slash at the start of a path into their names. */
const TREE = 'docker/registry/v2/';

/** How often a copy that goes on behind the answer is asked after, and for how long (ms). */
const POLL = 250;
const COPY_PATIENCE = 300_000;

const HEADERS = { blobContentType: 'application/octet-stream' };

const ABSENT: BlobRequestConditions = { ifNoneMatch: '*' };

/** The blobs of a container of Azure Blob Storage: block blobs where they are ours, any kind where they are read. */
export class AzureStore implements ObjectStore {
  readonly name = 'azure';
  readonly place: string;
  readonly solitary = false;
  readonly requests = new Requests(azureError);
  readonly signer: AzureSigner;
  readonly #container: ContainerClient;
  readonly #agent: https.Agent | undefined;
  #prefix: string;

  constructor(private readonly options: AzureOptions) {
    const { serviceUrl, container, login, root, account, authority } = options;
    this.place = `the container ${container} at ${serviceUrl}`;
    this.#prefix = root === '' ? '' : `${root}/`;
    this.#agent = options.skipVerify ? new https.Agent({ keepAlive: true, rejectUnauthorized: false }) : undefined;
    const credential =
      'key' in login ? new StorageSharedKeyCredential(account, login.key) : new AzureLogin(login, authority);
    const pipeline = newPipeline(credential, { retryOptions: { maxTries: 1 } });
    pipeline.factories.push(this.#onTheWay());
    const service = new BlobServiceClient(serviceUrl, pipeline);
    this.#container = service.getContainerClient(container);
    const signing = credential instanceof AzureLogin ? this.#delegatedBy(service) : credential;
    this.signer = new AzureSigner(options, signing, key => ({
      name: `${this.#prefix}${key}`,
      url: this.#blob(key).url,
    }));
  }

  async prepare(): Promise<void> {
    if (this.#prefix !== '') return;
    const isAt = async (prefix: string) => {
      const { objects } = await this.#list(`${prefix}${TREE}`, { most: 1 });
      return objects.length > 0;
    };
    if (!(await isAt('')) && (await isAt('/'))) this.#prefix = '/';
  }

  close(): void {
    this.#agent?.destroy();
  }

  refusal(error: ServiceError): unknown {
    return azureRefusal(this.options, error);
  }

  find(key: string): Promise<Found | undefined> {
    return this.#unlessAbsent(`look at ${key}`, 'GetBlobProperties', async abortSignal =>
      foundOf(await this.#blob(key).getProperties({ abortSignal })),
    );
  }

  get(key: string, { range }: { range?: ByteRange | undefined } = {}): Promise<Body | undefined> {
    return this.#unlessAbsent(`read ${key}`, 'GetBlob', async abortSignal => {
      const [from, count] = range ? [range.start, range.end - range.start + 1] : [];
      const answer = await this.#blob(key).download(from, count, { abortSignal, maxRetryRequests: 0 });
      const body = answer.readableStreamBody as Readable;
      return bodyOf(key, body, { range, contentRange: answer.contentRange }, total => foundOf(answer, total));
    });
  }

  put(key: string, data: Uint8Array, { write, over }: PutOptions): Promise<boolean> {
    const put = (conditions: BlobRequestConditions): Promise<boolean> =>
      this.requests.unless(
        isAnother,
        false,
        `write ${key}`,
        'PutBlob',
        async abortSignal => {
          await this.#blockBlob(key).upload(data as Buffer, data.length, {
            abortSignal,
            blobHTTPHeaders: HEADERS,
            conditions,
            metadata: { [WRITE]: write },
          });
          return true;
        },
        data.length,
      );
    if (over === 'nothing') return put(ABSENT);
    const digest = async () => createHash('sha256').update(data).digest('hex');
    return this.#replacing(key, digest, isGone => put(over ? (isGone ? ABSENT : { ifMatch: over.etag }) : {}));
  }

  renew(key: string, { etag, metadata = {} }: Found): Promise<boolean> {
    return this.requests.unless(isAnother, false, `renew ${key}`, 'SetBlobMetadata', async abortSignal => {
      const told = await this.#blob(key).setMetadata({ ...metadata }, { abortSignal, conditions: { ifMatch: etag } });
      if (told.etag === undefined) throw unreadable('the answer does not tell of a blob');
      return true;
    });
  }

  async remove(key: string, { etag }: Pick<Found, 'etag'>): Promise<boolean> {
    return this.requests.unless(isAnother, false, `remove ${key}`, 'DeleteBlob', async (abortSignal, before) => {
      try {
        await this.#blob(key).delete({ abortSignal, conditions: { ifMatch: etag } });
        return true;
      } catch (error) {
        // Then an answer was lost, and it was this one that has removed it.
        if (before > 0 && isAbsent(azureError(error))) return true;
        throw error;
      }
    });
  }

  drop(key: string): Promise<void> {
    return this.requests.unless(isAbsent, undefined, `remove ${key}`, 'DeleteBlob', async abortSignal => {
      await this.#blob(key).delete({ abortSignal });
    });
  }

  async list(prefix: string, options: ListOptions = {}): Promise<Page> {
    const { objects, folders, next } = await this.#list(`${this.#prefix}${prefix}`, options);
    const own = (name: string) => name.slice(this.#prefix.length);
    return { objects: objects.map(one => ({ ...one, key: own(one.key) })), folders: folders.map(own), next };
  }

  startUpload(key: string): Upload {
    return { key, id: newWrite() };
  }

  async uploadPart({ key, id }: Upload, number: number, data: Uint8Array): Promise<Part> {
    // All ids of a blob have to be of one length.
    const tag = Buffer.from(`${id}-${String(number).padStart(6, '0')}`).toString('base64');
    await this.requests.attempt(
      `write part ${number} of ${key}`,
      'PutBlock',
      abortSignal => this.#blockBlob(key).stageBlock(tag, data as Buffer, data.length, { abortSignal }),
      data.length,
    );
    return { number, size: data.length, tag };
  }

  /** To be asked twice does no harm: the blocks are those of the blob then. */
  async completeUpload({ key, id }: Upload, parts: readonly Part[]): Promise<void> {
    const blocks = parts.toSorted((one, other) => one.number - other.number).map(({ tag }) => tag);
    await this.requests.attempt(`complete ${key}`, 'PutBlockList', abortSignal =>
      this.#blockBlob(key).commitBlockList(blocks, {
        abortSignal,
        blobHTTPHeaders: HEADERS,
        metadata: { [WRITE]: id },
      }),
    );
  }

  /** Blocks go when a blob is written in their place; else they would stay, and be paid for, for a week. */
  async abortUpload({ key, id }: Upload): Promise<void> {
    await this.put(key, Buffer.alloc(0), { write: id });
    await this.drop(key);
  }

  async copy(from: string, key: string): Promise<void> {
    const digest = async () => {
      const known = await this.#digest(from);
      if (known === undefined) throw new StorageError('unavailable', `copy ${from}: it is gone`);
      return known;
    };
    const [source, there] = await Promise.all([this.find(from), this.find(key)]);
    // A copy that fails on the way leaves nothing of what it was to replace.
    if (source && source.info.size === there?.info.size && (await this.#keeps(key, digest))) return;
    const options = { metadata: { [WRITE]: newWrite() }, intervalInMs: POLL };
    await this.#replacing(key, digest, async () => {
      const isDone = await this.requests.attempt(`copy ${from} to ${key}`, 'CopyBlob', async abortSignal => {
        const copying = await this.#blob(key).beginCopyFromURL(this.#blob(from).url, { ...options, abortSignal });
        return copying.isDone();
      });
      if (!isDone) await this.#copied(key);
      return true;
    });
  }

  /** Waits until a copy that the service has begun is done. */
  async #copied(key: string): Promise<void> {
    for (const until = performance.now() + COPY_PATIENCE; ; await sleep(POLL)) {
      const { copyStatus } = await this.requests.attempt(`look at ${key}`, 'GetBlobProperties', abortSignal =>
        this.#blob(key).getProperties({ abortSignal }),
      );
      if (copyStatus === 'success') return;
      if (copyStatus !== 'pending' || performance.now() > until)
        throw new StorageError('unavailable', `copy to ${key}: it is ${copyStatus ?? 'replaced'}`);
    }
  }

  #blob(key: string): BlobClient {
    return this.#container.getBlobClient(`${this.#prefix}${key}`);
  }

  #blockBlob(key: string): BlockBlobClient {
    return this.#container.getBlockBlobClient(`${this.#prefix}${key}`);
  }

  async #list(prefix: string, { token, delimiter, most = this.options.pageSize ?? PAGE_SIZE }: ListOptions) {
    const page = await this.requests.attempt(`list ${prefix}`, 'ListBlobs', async abortSignal => {
      const settings = { maxPageSize: most, ...(token !== undefined && { continuationToken: token }) };
      const pages = delimiter
        ? this.#container.listBlobsByHierarchy(delimiter, { prefix, abortSignal }).byPage(settings)
        : this.#container.listBlobsFlat({ prefix, abortSignal }).byPage(settings);
      // The client takes for granted that any answer of success is a list.
      const { value } = await pages.next().catch(error => {
        throw error instanceof TypeError ? unreadable('the answer is no list of blobs') : error;
      });
      return value as { continuationToken?: string; segment: Segment };
    });
    const { blobItems, blobPrefixes = [] } = page.segment;
    return {
      objects: blobItems.map(({ name, properties: { lastModified, etag } }) => ({
        key: name,
        modified: lastModified,
        // Lists have it without the quotes of a header.
        etag: `"${etag.replaceAll('"', '')}"`,
      })),
      folders: blobPrefixes.map(({ name }) => name.slice(0, -1)),
      next: page.continuationToken || undefined,
    };
  }

  /**
   * A blob of another kind cannot be replaced by one of ours in one step. `registry:2` has left such ones, all named by their
   * content: the same bytes stay, and others are no good ones that could be lost.
   * @param write is told whether what was there has gone
   */
  async #replacing(
    key: string,
    digest: () => Promise<string>,
    write: (isGone: boolean) => Promise<boolean>,
  ): Promise<boolean> {
    try {
      return await write(false);
    } catch (error) {
      const { cause } = error as StorageError;
      if (!(cause instanceof ServiceError && cause.code === 'InvalidBlobType')) throw error;
      if (await this.#keeps(key, digest)) return true;
      const found = await this.find(key);
      if (found) await this.remove(key, found);
      return write(true);
    }
  }

  /** Renews the blob if its bytes are of this digest. */
  async #keeps(key: string, digest: () => Promise<string>): Promise<boolean> {
    const [there, wanted] = await Promise.all([this.#digest(key), digest()]);
    if (there !== wanted) return false;
    for (let found = await this.find(key); found; found = await this.find(key))
      if (await this.renew(key, found)) return true;
    return false;
  }

  /** Of the bytes of a blob, by way of this machine: the service knows none of large ones. */
  async #digest(key: string): Promise<string | undefined> {
    const found = await this.get(key);
    if (!found) return undefined;
    const hash = createHash('sha256');
    for await (const chunk of new ObjectReader(this, key, found, 0, found.info.size)) hash.update(chunk);
    return hash.digest('hex');
  }

  #unlessAbsent<T>(action: string, kind: string, send: (signal: AbortSignal) => Promise<T>): Promise<T | undefined> {
    return this.requests.unless(isAbsent, undefined, action, kind, send);
  }

  #delegatedBy(service: BlobServiceClient): DelegatedKey {
    return new DelegatedKey(
      (from, until) =>
        this.requests.send('GetUserDelegationKey', abortSignal =>
          service.getUserDelegationKey(from, until, { abortSignal }),
        ),
      () => this.requests.ahead,
    );
  }

  #onTheWay(): RequestPolicyFactory {
    return {
      create: next => ({
        sendRequest: async request => {
          if (this.#agent) request.agent = this.#agent;
          // The service refuses a body that was cut or changed on the way; `upload` has no option for that.
          const { body, headers } = request;
          if (body instanceof Uint8Array) headers.set('content-md5', createHash('md5').update(body).digest('base64'));
          const answer = await next.sendRequest(request);
          this.requests.hear(answer.headers.get('date'));
          return answer;
        },
      }),
    };
  }
}

interface Segment {
  readonly blobItems: ReadonlyArray<{
    readonly name: string;
    readonly properties: { readonly lastModified: Date; readonly etag: string };
  }>;
  readonly blobPrefixes?: ReadonlyArray<{ readonly name: string }>;
}

interface Told {
  readonly contentLength?: number | undefined;
  readonly lastModified?: Date | undefined;
  readonly etag?: string | undefined;
  readonly blobType?: string | undefined;
  readonly metadata?: Record<string, string> | undefined;
  readonly copyStatus?: string | undefined;
}

/**
 * Undefined for what a copy that failed or was given up has left under the name: it has no bytes, and can be pushed again.
 * @throws StorageError while a copy goes on
 */
function foundOf(told: Told, length: number | string | undefined = told.contentLength): Found | undefined {
  const { lastModified = new Date(0), etag, blobType, metadata = {}, copyStatus } = told;
  // Any page may have an ETag.
  if (etag === undefined || blobType === undefined) throw unreadable('the answer does not tell of a blob');
  if (copyStatus === 'pending') throw new StorageError('unavailable', 'the object is still being copied');
  if (copyStatus !== undefined && copyStatus !== 'success') return undefined;
  const size = sizeOf(length);
  // HTTP dates have no fractions: what happened is no later than this.
  const modified = new Date(Math.floor(lastModified.getTime() / 1000) * 1000 + 999);
  const { [WRITE]: write } = metadata;
  return { info: { size, modified, version: etag }, etag, bytes: bytesOf(write, size, etag), write, metadata };
}

/** An answer to HEAD without a body names the code in a header, too: so a container that is gone is told from a blob. */
function isAbsent({ status, code }: ServiceError): boolean {
  return status === 404 && code === 'BlobNotFound';
}

/** The condition of a request did not hold. That somebody has leased the blob is a 412, too. */
function isAnother(error: ServiceError): boolean {
  return ['ConditionNotMet', 'BlobAlreadyExists'].includes(error.code) || isAbsent(error);
}
