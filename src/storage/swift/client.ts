import type { IncomingMessage } from 'node:http';
import { text } from 'node:stream/consumers';
import { HttpClient } from '../object/http.js';
import { Requests, ServiceError, unreadable, wayError } from '../object/requests.js';
import { WRITE } from '../object/store.js';
import { SwiftLogin } from './login.js';
import type { SwiftOptions } from './options.js';

/** How many requests run at once on behalf of one call. */
export const WIDTH = 8;

export const TYPE = { 'content-type': 'application/octet-stream' };

interface Sent {
  readonly body?: ReadonlyArray<Uint8Array | string>;
  readonly headers?: Readonly<Record<string, string>> | undefined;
  readonly query?: Readonly<Record<string, string | undefined>>;
}

/** A line of a list: an object, or what several begin with. */
export interface Listed {
  readonly name?: string;
  readonly subdir?: string;
  readonly bytes?: number;
  readonly hash?: string;
  readonly last_modified?: string;
}

/** Requests to a container and its objects, with a token that is got again where it has ended. */
export class SwiftClient {
  readonly requests = new Requests(wayError);
  readonly #http: HttpClient;
  readonly #login: SwiftLogin;
  #storage = '';

  constructor(private readonly options: SwiftOptions) {
    this.#http = new HttpClient({ skipVerify: options.skipVerify });
    this.#login = new SwiftLogin(this.#http, options);
  }

  close(): void {
    this.#http.close();
  }

  /** The URL of the account, as the last login has told it. */
  get storage(): string {
    return this.#storage;
  }

  /** @param name of an object; empty for the container */
  urlOf(name: string): URL {
    return new URL(`${this.#storage}/${encodePath(this.options.container)}${name && `/${encodePath(name)}`}`);
  }

  list(query: Sent['query']): Promise<Listed[]> {
    return this.requests.attempt(`list ${query?.prefix}`, 'LIST', async signal => {
      const answer = await this.send('GET', signal, '', { query: { ...query, format: 'json' } });
      return answer.statusCode === 204 ? [] : rowsIn<Listed>(await text(answer));
    });
  }

  /** Has the service copy an object within the container. @param write names this write, in the metadata */
  async copy(from: string, to: string, write: string): Promise<void> {
    const headers = {
      'x-copy-from': encodePath(`${this.options.container}/${from}`),
      'x-fresh-metadata': 'true',
      [`x-object-meta-${WRITE}`]: write,
      ...TYPE,
    };
    await this.requests.attempt(`copy ${from} to ${to}`, 'COPY', signal =>
      this.ask('PUT', signal, to, { headers, body: [] }),
    );
  }

  /** Removes those of the objects that are there. */
  async remove(names: readonly string[]): Promise<void> {
    for (let at = 0; at < names.length; at += WIDTH) {
      const removals = names
        .slice(at, at + WIDTH)
        .map(name => this.unlessAbsent(`remove ${name}`, 'DELETE', signal => this.ask('DELETE', signal, name)));
      await Promise.all(removals);
    }
  }

  /** The headers of an answer whose body does not count. */
  async ask(method: string, signal: AbortSignal, name: string, sent: Sent = {}): Promise<IncomingMessage> {
    const answer = await this.send(method, signal, name, sent);
    await text(answer);
    return answer;
  }

  /** What the service answers to GET of a URL without a token. @throws ServiceError where it fails */
  async statusOf(url: URL, signal: AbortSignal): Promise<number> {
    const answer = await this.#http.send({ method: 'GET', url, headers: {}, signal });
    await text(answer);
    const status = answer.statusCode!;
    if (status === 429 || status >= 500)
      throw new ServiceError({ status, code: answer.statusMessage ?? '', message: '' });
    return status;
  }

  /** @throws ServiceError where it is no success */
  async send(method: string, signal: AbortSignal, name: string, sent: Sent): Promise<IncomingMessage> {
    let session = await this.#login.session(signal);
    for (let isFirst = true; ; isFirst = false) {
      this.#storage = session.storage;
      const url = this.urlOf(name);
      for (const [key, value] of Object.entries(sent.query ?? {}))
        if (value !== undefined) url.searchParams.set(key, value);
      const headers = { ...sent.headers, 'x-auth-token': session.token };
      const answer = await this.#http.send({ method, url, headers, body: sent.body, signal });
      this.requests.hear(answer.headers.date);
      const status = answer.statusCode!;
      // What changes something is never answered with a mere 200.
      const isDone = status < 300 && (status !== 200 || method === 'GET' || method === 'HEAD');
      if (isDone) return answer;
      const message = (await text(answer)).replaceAll(/<[^>]*>/g, ' ').slice(0, 300);
      if (status < 300) throw unreadable(`HTTP ${status}: ${message}`);
      if (status !== 401 || !isFirst) {
        const seconds = Number(answer.headers['retry-after']);
        const retryAfter = seconds > 0 ? seconds * 1000 : undefined;
        throw new ServiceError({ status, code: answer.statusMessage ?? '', message, retryAfter });
      }
      session = await this.#login.session(signal, session);
    }
  }

  unlessAbsent<T>(action: string, kind: string, send: (signal: AbortSignal) => Promise<T>): Promise<T | undefined> {
    return this.requests.unless(({ status }) => status === 404, undefined, action, kind, send);
  }
}

/** @throws ServiceError where what was asked for an object has answered without one */
export function checkTold({ headers }: IncomingMessage): void {
  if (Number.isNaN(Number(headers['x-timestamp']))) throw unreadable('the answer does not tell of an object');
}

/** @throws ServiceError where an answer is no array of JSON */
export function rowsIn<T>(answer: string): T[] {
  try {
    const told = JSON.parse(answer) as unknown;
    if (Array.isArray(told)) return told as T[];
  } catch {
    // It has broken off, or is a page of something in between.
  }
  throw unreadable(`the answer is no list: ${answer}`);
}

function encodePath(path: string): string {
  return path.split('/').map(encodeURIComponent).join('/');
}
