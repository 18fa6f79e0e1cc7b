import { randomBytes } from 'node:crypto';
import http from 'node:http';
import https from 'node:https';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CopyObjectCommand,
  CreateMultipartUploadCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  type GetObjectCommandOutput,
  HeadObjectCommand,
  type HeadObjectCommandOutput,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  type ListObjectsV2CommandOutput,
  PutObjectCommand,
  S3Client,
  type S3ClientConfig,
  UploadPartCommand,
  UploadPartCopyCommand,
} from '@aws-sdk/client-s3';
import { getSignedUrl, S3RequestPresigner } from '@aws-sdk/s3-request-presigner';
import type { ByteRange } from '../../reference.js';
import { type Agents, closeAgents, keptAgents } from '../agents.js';
import { type ObjectInfo, StorageError } from '../driver.js';
import { PRIVATE } from '../format.js';
import type { Span } from '../redirect.js';
import { clientConfig } from './client-config.js';
import { isAbsent, isAnswered, isConflict, s3Failure } from './failure.js';
import type { S3Options } from './options.js';

/** In milliseconds. */
const IDLE = 30_000;

/** Where the service copies by itself, or joins, and may say nothing until it is done. */
const IDLE_COPYING = 300_000;

/** How often what meets another request is tried. */
const TRIES = 6;

/** An answer that took no longer (ms) tells the service's time. Another one does so roughly, and until there is a better one. */
const PROMPT = 2_000;

/** For how long the service takes a request to remove what others may write again (s). */
const TIMELY_S = 20;

/** Names the write that made an object: two of the same bytes have the same ETag, and a second may hold both. */
const WRITE = 'registry-secure-write';

/** What one request has told of an object. */
export interface Found {
  readonly info: ObjectInfo;
  readonly etag: string | undefined;
  /** Which write has made it; undefined where another program did. */
  readonly write: string | undefined;
}

export interface Part {
  readonly PartNumber: number;
  readonly ETag: string | undefined;
}

/** An object that is being made of parts. */
export interface Upload {
  readonly id: string;
  /** As `Found` will have it. */
  readonly write: string;
}

export interface Listed {
  readonly key: string;
  readonly modified: Date;
}

/**
 * A bucket, by the driver's keys: requests to the service, each with a time-out, tried again and counted. Whatever fails
 * for good is a StorageError.
 */
export class Bucket {
  readonly name: string;
  readonly endpoint: string;
  /** How many of each kind were sent, those that were sent again too. */
  readonly requests = new Map<string, number>();
  readonly #client: S3Client;
  /** For what takes the service long. */
  readonly #patient: S3Client;
  /** Whose requests expire, by the service's clock. */
  readonly #timely: S3Client;
  readonly #timelyS: number;
  readonly #prefix: string;
  readonly #written: { StorageClass?: never; ACL?: never; ServerSideEncryption?: never; SSEKMSKeyId?: string };
  readonly #agents: Agents;
  /** The service's clock less ours, in milliseconds, as its last answer tells. */
  #ahead = 0;
  #isHeard = false;

  constructor(readonly options: S3Options) {
    this.name = options.bucket;
    this.endpoint = options.endpoint ?? `the region ${options.region}`;
    this.#prefix = options.root === '' ? '' : `${options.root}/`;
    this.#agents = keptAgents(options);
    // Which version of Node it is to run on is no operator's business; the version of the SDK is pinned.
    process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED ??= 'true';
    this.#timelyS = options.timely ?? TIMELY_S;
    this.#client = this.#connect(IDLE);
    this.#patient = this.#connect(IDLE_COPYING);
    const presigner = new S3RequestPresigner({ ...this.#client.config });
    this.#timely = this.#connect(this.#timelyS * 1000, {
      // Each of its commands has a step of its own (`deleteInTime`), which would be kept for all.
      cacheMiddleware: false,
      signer: async () => ({
        sign: (request, signing) =>
          presigner.presign(request, { ...signing, expiresIn: this.#timelyS, signingDate: new Date(this.now()) }),
      }),
    });
    this.#written = {
      ...(options.storageClass && { StorageClass: options.storageClass as never }),
      ...(options.encrypt && { ServerSideEncryption: (options.keyId ? 'aws:kms' : 'AES256') as never }),
      ...(options.encrypt && options.keyId && { SSEKMSKeyId: options.keyId }),
    };
  }

  close(): void {
    for (const client of [this.#client, this.#patient, this.#timely]) client.destroy();
    closeAgents(this.#agents);
  }

  #connect(idle: number, more: Pick<S3ClientConfig, 'signer' | 'cacheMiddleware'> = {}): S3Client {
    const client = new S3Client({ ...clientConfig(this.options, this.#agents, idle), ...more });
    client.middlewareStack.add(
      (next, { commandName = '' }) =>
        async args => {
          this.#count(commandName.replace(/Command$/, ''));
          const asked = performance.now();
          const result = await next(args);
          const { date } = (result.response as { headers?: Record<string, string> }).headers ?? {};
          this.#hear(date, performance.now() - asked);
          return result;
        },
      { step: 'finalizeRequest', priority: 'low', name: 'countRequests' },
    );
    // With `cacheMiddleware` the first command of each kind is kept: not with its body, which is a whole part.
    client.middlewareStack.add(
      next => args =>
        next(args).finally(() => {
          delete (args.input as { Body?: unknown }).Body;
        }),
      { step: 'initialize', name: 'forgetBody' },
    );
    return client;
  }

  /** The time by the service's clock, which has whole seconds. */
  now(): number {
    return Date.now() + this.#ahead;
  }

  /** How far our clock lies behind the service's, in milliseconds. */
  get ahead(): number {
    return this.#ahead;
  }

  /**
   * Undefined when there is no such object. HEAD answers 404 also where the bucket is gone, and on one service where the key
   * was withdrawn; so it is asked again in a way that tells. For an object must not count as deleted then.
   */
  async find(key: string): Promise<Found | undefined> {
    const found = await this.peek(key);
    if (found) return found;
    const byte = await this.get(key, { range: { start: 0, end: 0 } });
    byte?.body.destroy();
    return byte;
  }

  /** The same for what may as well be missed. */
  async peek(key: string): Promise<Found | undefined> {
    const found = await this.#unlessAbsent(`look at ${key}`, () =>
      this.#client.send(new HeadObjectCommand(this.#at(key))),
    );
    if (!found) return undefined;
    checkTold(`look at ${key}`, found.ETag);
    return foundOf(found, sizeOf(found.ContentLength, key));
  }

  /** The object, or a range of it. @param etag where it must not be another by now */
  async get(
    key: string,
    { range, etag }: { range?: ByteRange | undefined; etag?: string | undefined } = {},
  ): Promise<(Found & { body: Readable }) | undefined> {
    const found = await this.#unlessAbsent(`read ${key}`, () =>
      this.#client.send(
        new GetObjectCommand({
          ...this.#at(key),
          ...(range && { Range: `bytes=${range.start}-${range.end}` }),
          ...(etag && { IfMatch: etag }),
        }),
      ),
    );
    if (!found) return undefined;
    const body = found.Body as Readable;
    try {
      checkTold(`read ${key}`, found.ETag);
      // What is in between may know nothing of ranges, and send all of it.
      if (range && range.start > 0 && !found.ContentRange?.startsWith(`bytes ${range.start}-`))
        throw new StorageError('unavailable', `read ${key}: another range came than was asked for`);
      const total = /\/(\d+)$/.exec(found.ContentRange ?? '')?.[1];
      const size = sizeOf(total === undefined ? found.ContentLength : Number(total), key);
      return { ...foundOf(found, size), body };
    } catch (error) {
      body.destroy();
      throw error;
    }
  }

  /** A URL by which whoever has it can read the object by GET. */
  async readUrl(key: string, { from, until }: Span): Promise<string> {
    return this.#attempt(`sign a URL of ${key}`, () =>
      getSignedUrl(this.#client, new GetObjectCommand(this.#at(key)), {
        expiresIn: (until.getTime() - from.getTime()) / 1000,
        signingDate: from,
      }),
    );
  }

  /** @param write as `Found` has it */
  async put(key: string, data: Uint8Array, write = newWrite()): Promise<void> {
    const { ETag } = await this.#attempt(`write ${key}`, () => this.#client.send(this.#putting(key, data, write)));
    checkTold(`write ${key}`, ETag);
  }

  /** @throws as the service does: when it is sent again because the first answer was lost, the object may be this one */
  async putIfAbsent(key: string, data: Uint8Array, write: string): Promise<void> {
    const command = this.#putting(key, data, write, { IfNoneMatch: '*' });
    const { ETag } = await unlessConflict(() => this.#client.send(command));
    checkTold(`create ${key}`, ETag);
  }

  async copy(from: string, key: string): Promise<void> {
    const { CopyObjectResult } = await this.#attempt(`copy ${from} to ${key}`, () =>
      this.#patient.send(
        new CopyObjectCommand({
          ...this.#at(key),
          ...this.#made(key),
          MetadataDirective: 'REPLACE',
          CopySource: this.#source(from),
        }),
      ),
    );
    checkTold(`copy ${from} to ${key}`, CopyObjectResult?.ETag);
  }

  /** Only for what nobody else writes: a request that was sent again because it had no answer may come late. */
  async delete(key: string): Promise<void> {
    await this.#attempt(`remove ${key}`, () => this.#client.send(new DeleteObjectCommand(this.#at(key))));
  }

  /**
   * As `delete`, for what may be written again as soon as this is over, well or not: by then the service has answered each
   * request, or refuses it.
   */
  async deleteInTime(key: string): Promise<void> {
    let expired = 0;
    const command = new DeleteObjectCommand(this.#at(key));
    command.middlewareStack.add(
      next => async args => {
        // The time in a signature has whole seconds.
        const expires = performance.now() + (this.#timelyS + 1) * 1000;
        try {
          return await next(args);
        } catch (error) {
          if (!isAnswered(error)) expired = expires;
          throw error;
        }
      },
      { step: 'finalizeRequest', priority: 'low', name: 'noteUnanswered' },
    );
    try {
      await this.#attempt(`remove ${key}`, () => this.#timely.send(command));
    } finally {
      await sleep(Math.max(0, expired - performance.now()));
    }
  }

  /**
   * Removes an object within so many seconds or never: the service itself refuses the request once it has expired, however
   * long the network has held it back.
   */
  async deleteWithin(seconds: number, key: string): Promise<void> {
    await this.#attempt(`remove ${key}`, async () => {
      const url = await getSignedUrl(this.#client, new DeleteObjectCommand(this.#at(key)), {
        expiresIn: seconds,
        signingDate: new Date(this.now()),
      });
      this.#count('DeleteObject');
      const status = await this.#sendDelete(url, seconds * 1000);
      if (status >= 300 && status !== 404)
        throw Object.assign(new Error(`the object store answers ${status}`), { $metadata: { httpStatusCode: status } });
    });
  }

  /** A page of the children of a folder, or with no `delimiter` of all below it, from after `after`. */
  async list(
    prefix: string,
    {
      after,
      token,
      delimiter,
      most,
    }: {
      after?: string | undefined;
      token?: string | undefined;
      delimiter?: '/' | undefined;
      most?: number | undefined;
    } = {},
  ): Promise<{ objects: Listed[]; folders: string[]; next: string | undefined }> {
    const page: ListObjectsV2CommandOutput = await this.#attempt(`list ${prefix}`, () =>
      this.#client.send(
        new ListObjectsV2Command({
          Bucket: this.name,
          Prefix: `${this.#prefix}${prefix}`,
          ...(delimiter && { Delimiter: delimiter }),
          ...(after !== undefined && { StartAfter: `${this.#prefix}${prefix}${after}` }),
          ...(token !== undefined && { ContinuationToken: token }),
          ...(most !== undefined && { MaxKeys: most }),
        }),
      ),
    );
    if (page.Name === undefined && page.IsTruncated === undefined)
      throw new StorageError('unavailable', `list ${prefix}: the answer is no list of objects`);
    return {
      objects: (page.Contents ?? []).map(({ Key, LastModified }) => ({
        key: Key!.slice(this.#prefix.length),
        modified: LastModified!,
      })),
      folders: (page.CommonPrefixes ?? []).map(({ Prefix }) => Prefix!.slice(this.#prefix.length, -1)),
      next: page.IsTruncated ? page.NextContinuationToken : undefined,
    };
  }

  async startUpload(key: string): Promise<Upload> {
    const write = newWrite();
    const { UploadId } = await this.#attempt(`begin ${key}`, () =>
      this.#client.send(new CreateMultipartUploadCommand({ ...this.#at(key), ...this.#made(key, write) })),
    );
    checkTold(`begin ${key}`, UploadId);
    return { id: UploadId, write };
  }

  async uploadPart(key: string, id: string, number: number, data: Uint8Array): Promise<Part> {
    const { ETag } = await this.#attempt(`write part ${number} of ${key}`, () =>
      this.#client.send(
        new UploadPartCommand({ ...this.#at(key), UploadId: id, PartNumber: number, Body: data as Buffer }),
      ),
    );
    checkTold(`write part ${number} of ${key}`, ETag);
    return { PartNumber: number, ETag };
  }

  async copyPart(key: string, id: string, number: number, from: string, range: ByteRange): Promise<Part> {
    const { CopyPartResult } = await this.#attempt(`copy a part of ${from} to ${key}`, () =>
      this.#patient.send(
        new UploadPartCopyCommand({
          ...this.#at(key),
          UploadId: id,
          PartNumber: number,
          CopySource: this.#source(from),
          CopySourceRange: `bytes=${range.start}-${range.end}`,
        }),
      ),
    );
    checkTold(`copy a part of ${from} to ${key}`, CopyPartResult?.ETag);
    return { PartNumber: number, ETag: CopyPartResult.ETag };
  }

  /**
   * @returns whether the object is there then: who was asked more than once, or does not tell of it, may be still at it
   * @throws as the service does: when it is sent again because the first answer was lost, the upload may be gone
   */
  async completeUpload(key: string, id: string, parts: readonly Part[]): Promise<boolean> {
    const { $metadata, ETag } = await this.#patient.send(
      new CompleteMultipartUploadCommand({
        ...this.#at(key),
        UploadId: id,
        MultipartUpload: { Parts: parts.toSorted((one, other) => one.PartNumber - other.PartNumber) },
      }),
    );
    return ETag !== undefined && ($metadata.attempts ?? 1) === 1;
  }

  async abortUpload(key: string, id: string): Promise<void> {
    await this.#attempt(`give up ${key}`, () =>
      this.#client.send(new AbortMultipartUploadCommand({ ...this.#at(key), UploadId: id })),
    );
  }

  /** Those that were begun and neither completed nor given up. */
  async unfinishedUploads(prefix: string): Promise<Array<{ key: string; id: string; started: Date }>> {
    const { Uploads = [] } = await this.#attempt('list unfinished uploads', () =>
      this.#client.send(new ListMultipartUploadsCommand({ Bucket: this.name, Prefix: `${this.#prefix}${prefix}` })),
    );
    return Uploads.flatMap(({ Key, UploadId, Initiated }) =>
      Key && UploadId && Initiated ? [{ key: Key.slice(this.#prefix.length), id: UploadId, started: Initiated }] : [],
    );
  }

  #at(key: string): { Bucket: string; Key: string } {
    return { Bucket: this.name, Key: `${this.#prefix}${key}` };
  }

  #putting(key: string, data: Uint8Array, write: string, condition: { IfNoneMatch?: '*' } = {}): PutObjectCommand {
    return new PutObjectCommand({ ...this.#at(key), ...this.#made(key, write), ...condition, Body: data });
  }

  #made(key: string, write = newWrite()) {
    // Keys of tokens and the like are nobody's else, whoever may read the images.
    const acl = this.options.acl && !key.startsWith(`${PRIVATE}/`) && { ACL: this.options.acl as never };
    return { ...this.#written, ...acl, ContentType: 'application/octet-stream', Metadata: { [WRITE]: write } };
  }

  #source(key: string): string {
    return [this.name, ...`${this.#prefix}${key}`.split('/')].map(encodeURIComponent).join('/');
  }

  #count(kind: string): void {
    this.requests.set(kind, (this.requests.get(kind) ?? 0) + 1);
  }

  /** @param took how long (ms) the answer has taken: when in that time it says what time it is, is not known */
  #hear(date: string | undefined, took: number): void {
    const told = Date.parse(date ?? '') + 500;
    const now = Date.now();
    if (Number.isNaN(told) || (took > PROMPT && this.#isHeard)) return;
    this.#isHeard = true;
    this.#ahead = took > PROMPT && told < now ? Math.min(0, told - (now - took)) : told - now;
  }

  async #attempt<T>(action: string, request: () => Promise<T>): Promise<T> {
    try {
      return await unlessConflict(request);
    } catch (error) {
      throw s3Failure(action, error);
    }
  }

  async #unlessAbsent<T>(action: string, request: () => Promise<T>): Promise<T | undefined> {
    try {
      return await request();
    } catch (error) {
      if (isAbsent(error)) return undefined;
      throw s3Failure(action, error);
    }
  }

  #sendDelete(url: string, timeout: number): Promise<number> {
    const secure = url.startsWith('https:');
    const agent = secure ? this.#agents.https : this.#agents.http;
    return new Promise((resolve, reject) => {
      const request = (secure ? https : http).request(url, { method: 'DELETE', agent, timeout }, response => {
        response.resume();
        response.once('end', () => resolve(response.statusCode ?? 0)).once('error', reject);
      });
      request.once('timeout', () => request.destroy(new Error('no answer in time')));
      request.once('error', reject);
      request.end();
    });
  }
}

/** @param told what a service tells of all that it has: an answer without it is a page of something in between, whatever its status */
function checkTold(action: string, told: string | undefined): asserts told is string {
  if (told === undefined) throw new StorageError('unavailable', `${action}: the answer does not tell of an object`);
}

/** What is between may leave it out; and what is taken for empty would be taken for corrupt. */
function sizeOf(told: number | undefined, key: string): number {
  if (told === undefined) throw new StorageError('unavailable', `read ${key}: the answer does not say how long it is`);
  return told;
}

function foundOf(found: HeadObjectCommandOutput | GetObjectCommandOutput, size: number): Found {
  const { ETag, LastModified = new Date(0), Metadata } = found;
  const write = Metadata?.[WRITE];
  const version = `${ETag}:${write ?? ''}:${LastModified.getTime()}`;
  return { info: { size, modified: endOfSecond(LastModified), version }, etag: ETag, write };
}

/** The SDK tries again what failed on the way, but not what met another request. */
async function unlessConflict<T>(request: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await request();
    } catch (error) {
      if (!isConflict(error) || tries === TRIES) throw error;
      await sleep(Math.random() * 20 * 2 ** tries);
    }
  }
}

export function newWrite(): string {
  return randomBytes(8).toString('hex');
}

/** HTTP dates have no fractions: what happened is no later than this. */
export function endOfSecond(date: Date): Date {
  return date.getTime() % 1000 === 0 ? new Date(date.getTime() + 999) : date;
}
