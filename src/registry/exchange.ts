import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http';
import type { Readable } from 'node:stream';
import type { MaybeLater } from '../at-once.js';
import type { Identity } from '../auth/identity.js';
import type { Authorise } from '../auth/policy.js';
import type { Action } from '../auth/rights.js';
import { RegistryError } from '../errors.js';
import type { Digest } from '../reference.js';
import type { Store } from '../store/store.js';
import { inPairs } from './answer.js';

export type Handler = (exchange: Exchange) => MaybeLater<void>;

export interface RegistryLimits {
  /** Bytes of the largest manifest that is taken. The specification asks for at least 4 MiB. */
  readonly manifestBytes: number;
  /** Most entries of one page of the catalog. */
  readonly catalogEntries: number;
  /** Most entries of one page of tags. */
  readonly tagEntries: number;
}

/** Of the original, for tags and the catalog. */
const DEFAULT_ENTRIES = 100;

/** What a request has changed, once it is so. */
export interface Change {
  readonly type: 'push' | 'tag.move' | 'delete';
  readonly repository: string;
  /** Of the manifest or blob; undefined where a tag or a repository was deleted. */
  readonly digest?: Digest;
  readonly tags?: readonly string[];
  /** What the tag pointed at before. */
  readonly before?: Digest;
  /** What was deleted. */
  readonly kind?: 'tag' | 'manifest' | 'blob' | 'repository';
}

/** What every request of one registry shares. */
export interface RegistryContext {
  readonly store: Store;
  readonly limits: RegistryLimits;
  /** What stands before the registry's paths as clients see them: empty, or a path without a slash at its end. */
  readonly prefix: string;
  readonly authorise: Authorise;
  /** A token for who has authenticated; undefined where there are none. */
  readonly issueToken: (identity: Identity) => Promise<unknown>;
  /** Told of each change; the answer waits for it. */
  readonly onChange?: (change: Change, request: IncomingMessage) => Promise<void>;
}

/** Where the request leads: made by the route table. */
interface Target {
  /** Empty for the routes that belong to no repository. */
  readonly repository: string;
  /** The last part of the path: a tag, a digest or an upload's UUID, not yet checked. */
  readonly reference: string;
  readonly query: URLSearchParams;
}

/** One request that was let in, and its answer. Uses nothing but what `node:http` gives, so it runs under any framework. */
export class Exchange {
  readonly store: Store;
  readonly limits: RegistryLimits;
  readonly repository: string;
  readonly reference: string;
  readonly query: URLSearchParams;

  constructor(
    readonly request: IncomingMessage,
    readonly response: ServerResponse,
    private readonly carried: readonly string[],
    private readonly identity: Identity,
    private readonly context: RegistryContext,
    { repository, reference, query }: Target,
  ) {
    this.store = context.store;
    this.limits = context.limits;
    this.repository = repository;
    this.reference = reference;
    this.query = query;
  }

  /** The principal, for sessions and records. Nobody can be called so: a user's name is never empty. */
  get principal(): string {
    return this.identity.kind === 'user' ? this.identity.name : '';
  }

  /** A token for who asks. @throws RegistryError with status 404 where there are none */
  async issueToken(): Promise<unknown> {
    const issued = await this.context.issueToken(this.identity);
    if (issued === undefined) throw new RegistryError('UNSUPPORTED', { status: 404, message: 'no such endpoint' });
    return issued;
  }

  /** To be called by the handler that has made the change. */
  async changed(change: Omit<Change, 'repository'>): Promise<void> {
    await this.context.onChange?.({ repository: this.repository, ...change }, this.request);
  }

  may(action: Action, repository: string): boolean {
    return this.context.authorise(this.identity, action, repository);
  }

  header(name: string): string | undefined {
    const value = this.request.headers[name];
    return Array.isArray(value) ? value.join(', ') : value;
  }

  /** A path of this repository, for Location: never with a host, so that it is right behind any proxy. */
  path(rest: string): string {
    return `${this.context.prefix}/v2/${this.repository}/${rest}`;
  }

  /** The length that the request declares, or undefined where it is chunked. */
  get contentLength(): number | undefined {
    const header = this.header('content-length');
    return header === undefined ? undefined : Number(header);
  }

  /** Not to be destroyed: that would end the connection, on which an error is yet to be answered. */
  get body(): Readable {
    return this.request;
  }

  /** A small body as a whole. @throws RegistryError as `smallBody` */
  smallBody(limit: number): Promise<Buffer> {
    return smallBody(this.request, limit);
  }

  /** The head of an answer, in one piece with what every answer carries. @param length of the body; undefined for none said */
  head(status: number, headers: OutgoingHttpHeaders, length?: number): void {
    const pairs = inPairs(headers, this.carried);
    // Not in a copy of `headers`: to make one is slow.
    if (length !== undefined) pairs.push('Content-Length', length);
    this.response.writeHead(status, pairs);
  }

  /** An answer without a body. */
  empty(status: number, headers: OutgoingHttpHeaders = {}): void {
    // A 204 must not have the header, and that of a 304 would be the length of what is not sent (RFC 9110 §8.6).
    this.head(status, headers, status === 204 || status === 304 ? undefined : 0);
    this.response.end();
  }

  /** An answer of known bytes, which for HEAD are counted but not sent. */
  bytes(status: number, data: Buffer, headers: OutgoingHttpHeaders): void {
    this.head(status, headers, data.length);
    this.response.end(this.request.method === 'HEAD' ? undefined : data);
  }

  json(status: number, value: unknown, headers: OutgoingHttpHeaders = {}): void {
    this.bytes(status, Buffer.from(JSON.stringify(value)), { 'Content-Type': 'application/json', ...headers });
  }

  /**
   * `n` and `last` of a paged list (distribution-spec, "Listing Tags").
   * @param most an `n` above it is cut down to it
   * @param usual how many entries a page has when the client does not say
   * @throws RegistryError with status 400 for an `n` that is not a whole number
   */
  page(most: number, usual = DEFAULT_ENTRIES): { limit: number; after: string } {
    const text = this.query.get('n');
    const after = this.query.get('last') ?? '';
    if (text === null) return { limit: Math.min(usual, most), after };
    if (!/^\d+$/.test(text))
      throw new RegistryError('UNSUPPORTED', {
        status: 400,
        message: 'n is not a whole number',
        detail: { n: text.slice(0, 64) },
      });
    return { limit: Math.min(Number(text), most), after };
  }

  get catalogPath(): string {
    return `${this.context.prefix}/v2/_catalog`;
  }
}

/** A small body as a whole. @throws RegistryError SIZE_INVALID with status 413 as soon as it is over the limit. */
export async function smallBody(request: IncomingMessage, limit: number): Promise<Buffer> {
  const tooLarge = () =>
    new RegistryError('SIZE_INVALID', { status: 413, message: `the body is over the limit of ${limit} bytes` });
  if (Number(request.headers['content-length'] ?? 0) > limit) throw tooLarge();
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request.iterator({ destroyOnReturn: false })) {
    size += chunk.length;
    if (size > limit) throw tooLarge();
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, size);
}

/**
 * The Link header of a page that more entries follow (RFC 8288); nothing for the last page.
 * @param path as the client sees it
 * @param last the last entry of this page, or undefined where no more follow
 * @param filter further parameters, which the next page needs too
 */
export function nextPage(
  path: string,
  limit: number,
  last: string | undefined,
  filter: Readonly<Record<string, string>> = {},
): OutgoingHttpHeaders {
  if (last === undefined) return {};
  const query = new URLSearchParams({ ...filter, n: String(limit), last });
  return { Link: `<${path}?${query}>; rel="next"` };
}
