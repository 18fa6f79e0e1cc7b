import { type ClientRequest, type IncomingMessage, Agent as PlainAgent, request as plainRequest } from 'node:http';
import { Agent, type RequestOptions, request } from 'node:https';
import { isIP } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { LRUCache } from 'lru-cache';
import { OperatorError, systemCode } from '../errors.js';
import { mistrust } from '../trust/fetch.js';

export interface RegistryLogin {
  readonly user: string;
  readonly password: string;
}

export interface ClientOptions {
  /** HOST[:PORT] as it stands in image references. */
  readonly host: string;
  /** Authorities in PEM. */
  readonly ca: readonly (string | Buffer)[];
  /** Undefined: nobody. */
  readonly login: RegistryLogin | undefined;
  /** Speaks HTTP without TLS. */
  readonly plain?: boolean;
  /** How long nothing may move on a connection (ms). */
  readonly patience?: number;
  /** How often what may be tried again is tried in all. */
  readonly tries?: number;
}

export interface Asking {
  readonly headers?: Readonly<Record<string, string | number>>;
  /** What it takes at a token server (distribution's token specification, "Resource Scope"). */
  readonly scope: string;
  /** Sends the body, if there is one, once the request is on its way. */
  readonly send?: (asked: ClientRequest) => Promise<void>;
}

const PATIENCE = 60_000;
const TRIES = 6;
/** The wait before the first further try, and the longest (ms). */
const FIRST_WAIT = 500;
const LONGEST_WAIT = 30_000;
/** A registry is asked over this many connections at most. */
const CONNECTIONS = 16;
const REDIRECTS = 5;
/** No list and no manifest is larger (bytes). */
const LARGEST = 32 * 1024 * 1024;
/** Tokens that do not say so are good for so long (s; distribution's token specification, "Token Response Fields"). */
const USUAL_LIFE = 60;

/** Tokens that are kept, one for each repository. */
const TOKENS = 500;

/** What a network does now and then. Who is not trusted, or has no such name, will not be the next time either. */
const PASSING = new Set(
  'ECONNRESET EPIPE ETIMEDOUT ECONNREFUSED EHOSTUNREACH ENETUNREACH EAI_AGAIN ECONNABORTED'.split(' '),
);

/** The answer was none that can be used: with the status, where one came. */
export class Unanswered extends OperatorError {
  constructor(
    readonly status: number | undefined,
    what: string,
    options: { fix?: string; cause?: unknown } = {},
  ) {
    super(what, options);
  }

  /** Whether the same request may be answered another time. */
  get isPassing(): boolean {
    if (this.status !== undefined) return this.status === 408 || this.status === 429 || this.status >= 500;
    return this.cause === undefined || PASSING.has(systemCode(this.cause) ?? '');
  }
}

/** HTTP to one registry, with whatever login it wants. */
export class RegistryClient {
  readonly host: string;
  readonly #base: string;
  readonly #agent: Agent | PlainAgent;
  readonly #tries: number;
  readonly #tokens = new LRUCache<string, { readonly header: string; readonly until: number }>({ max: TOKENS });
  /** What the registry wants to hear of who asks. */
  #challenge: Challenge | undefined;

  constructor(private readonly options: ClientOptions) {
    const { host, ca, plain = false, patience = PATIENCE, tries = TRIES } = options;
    this.host = host;
    this.#base = `${plain ? 'http' : 'https'}://${host}`;
    this.#tries = tries;
    const settings = { keepAlive: true, maxSockets: CONNECTIONS, timeout: patience, scheduling: 'fifo' as const };
    this.#agent = plain ? new PlainAgent(settings) : new Agent({ ...settings, ca: [...ca] });
  }

  close(): void {
    this.#agent.destroy();
  }

  /**
   * An answer with one of the statuses wanted, its body unread; for the others, the body has been read. What may pass is
   * tried again, with growing waits.
   * @param once for what must not be sent twice unseen, such as a body that has been read
   * @throws Unanswered
   */
  async ask(
    method: string,
    path: string,
    wanted: readonly number[],
    asking: Asking,
    { once = false }: { once?: boolean } = {},
  ): Promise<IncomingMessage> {
    for (let tried = 1; ; tried++)
      try {
        return await this.#withLogin(method, path, wanted, asking);
      } catch (error) {
        if (!(error instanceof Unanswered) || !error.isPassing || once || tried >= this.#tries) throw error;
        await this.pauseAfter(tried, error);
      }
  }

  /** As `ask`, for a small answer that is read whole. */
  async read(
    method: string,
    path: string,
    wanted: readonly number[],
    asking: Asking,
  ): Promise<{ readonly status: number; readonly headers: IncomingMessage['headers']; readonly data: Buffer }> {
    for (let tried = 1; ; tried++)
      try {
        const answer = await this.ask(method, path, wanted, asking, { once: true });
        return { status: answer.statusCode!, headers: answer.headers, data: await bodyOf(answer, LARGEST) };
      } catch (error) {
        // A body that breaks off is as if nothing had come.
        const failure = error instanceof OperatorError ? error : this.#failed(error as Error);
        if (!(failure instanceof Unanswered) || !failure.isPassing || tried >= this.#tries) throw failure;
        await this.pauseAfter(tried, failure);
      }
  }

  /** The wait after a try that has failed; what the registry asks for, where it does. */
  async pauseAfter(tried: number, { cause }: Unanswered): Promise<void> {
    const { retryAfter } = (cause ?? {}) as { retryAfter?: number };
    const usual = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** (tried - 1)) * (0.5 + Math.random());
    await pause(retryAfter === undefined ? usual : Math.min(LONGEST_WAIT, retryAfter * 1000));
  }

  /** The absolute URL of what the registry names. @throws OperatorError for what is none, or leads out of TLS */
  #urlOf(path: string): URL {
    if (!URL.canParse(path, this.#base))
      throw new OperatorError(`${this.host} names ${JSON.stringify(path.slice(0, 100))}, which is no URL`);
    const url = new URL(path, this.#base);
    if (url.protocol === 'https:' || this.options.plain) return url;
    const base = new URL(this.#base);
    // Behind a proxy that ends TLS it may not know how it is reached.
    if (url.protocol === 'http:' && url.hostname === base.hostname) return new URL(url.pathname + url.search, base);
    throw new OperatorError(`${this.host} sends clients to ${url.origin}, which has no TLS`);
  }

  async #withLogin(method: string, path: string, wanted: readonly number[], asking: Asking): Promise<IncomingMessage> {
    // Nothing is sent along with a body before it is known how the registry wants to be asked.
    if (asking.send && !this.#challenge) await this.#learn(asking.scope);
    for (let again = false; ; again = true) {
      const url = this.#urlOf(path);
      const answer = await this.#send(method, url, await this.#headersFor(url, asking.scope, asking.headers), asking);
      const status = answer.statusCode!;
      if (wanted.includes(status)) return answer;
      const challenge = status === 401 ? parseChallenge(answer.headers['www-authenticate']) : undefined;
      const text = await messageOf(answer);
      if (challenge && !again && !asking.send) {
        this.#challenge = challenge;
        this.#tokens.delete(asking.scope);
        continue;
      }
      throw this.#refused(method, path, status, text, answer.headers['retry-after']);
    }
  }

  /** Asks for nothing, to learn what the registry wants. */
  async #learn(scope: string): Promise<void> {
    const answer = await this.#send('GET', new URL('/v2/', this.#base), {}, { scope });
    await messageOf(answer);
    this.#challenge = parseChallenge(answer.headers['www-authenticate']) ?? NONE;
  }

  async #headersFor(
    url: URL,
    scope: string,
    more: Asking['headers'] = {},
  ): Promise<Readonly<Record<string, string | number>>> {
    // Who the client is goes to the registry alone, and not to where it may send us for an upload.
    if (url.origin !== new URL(this.#base).origin || !this.#challenge || this.#challenge === NONE) return { ...more };
    const { login } = this.options;
    if (this.#challenge.scheme === 'basic') return login ? { ...more, Authorization: basic(login) } : { ...more };
    return { ...more, Authorization: await this.#token(this.#challenge, scope) };
  }

  /** distribution's token specification, "Requesting a Token". */
  async #token({ realm, service }: Challenge, scope: string): Promise<string> {
    const known = this.#tokens.get(scope);
    if (known && known.until > performance.now()) return known.header;
    const { login, host } = this.options;
    let url: URL;
    try {
      url = new URL(realm);
    } catch {
      throw new OperatorError(`${host} sends clients for a token to ${JSON.stringify(realm)}, which is no URL`);
    }
    // A registry must not be able to have a login sent to whomever it likes, nor in the clear.
    if (login && !mayHearLogin(url, host, this.options.plain === true))
      throw new OperatorError(`${host} wants its login to be sent to ${url.origin}, which has nothing to do with it`, {
        fix: 'copy without a login, or ask whoever runs the registry',
      });
    if (service !== undefined) url.searchParams.set('service', service);
    for (const one of scope.split(' ').filter(Boolean)) url.searchParams.append('scope', one);
    const answer = await this.#send('GET', url, login ? { Authorization: basic(login) } : {}, { scope });
    const body = await bodyOf(answer, LARGEST).catch(() => Buffer.alloc(0));
    if (answer.statusCode !== 200)
      throw this.#refused('GET', url.pathname, answer.statusCode!, textIn(body), answer.headers['retry-after']);
    const { token, access_token, expires_in } = (json(body) ?? {}) as Record<string, unknown>;
    const given = token ?? access_token;
    if (typeof given !== 'string' || /[^\x21-\x7e]/.test(given))
      throw new OperatorError(`${url.origin} answers without a token`);
    const life = typeof expires_in === 'number' && expires_in > 0 ? expires_in : USUAL_LIFE;
    const header = `Bearer ${given}`;
    // Not to its last second: a request may take a while.
    this.#tokens.set(scope, { header, until: performance.now() + life * 500 });
    return header;
  }

  async #send(
    method: string,
    url: URL,
    headers: Readonly<Record<string, string | number>>,
    { send }: Asking,
    redirects = 0,
  ): Promise<IncomingMessage> {
    const answer = await this.#exchange(method, url, headers, send);
    const status = answer.statusCode!;
    const location = answer.headers.location;
    if (![301, 302, 303, 307, 308].includes(status) || location === undefined || !/^(?:GET|HEAD)$/.test(method))
      return answer;
    answer.resume();
    if (!URL.canParse(location, url.href)) throw new Unanswered(status, `${this.host} sends clients to what is no URL`);
    const next = new URL(location, url);
    if (redirects === REDIRECTS) throw new Unanswered(status, `${this.host} sends clients round in a circle`);
    if (next.protocol !== 'https:' && next.protocol !== url.protocol)
      throw new Unanswered(status, `${this.host} sends clients to ${next.origin}, which has no TLS`);
    const { Authorization: _, ...others } = headers;
    return this.#send(method, next, next.origin === url.origin ? headers : others, {} as Asking, redirects + 1);
  }

  #exchange(
    method: string,
    url: URL,
    headers: Readonly<Record<string, string | number>>,
    send: Asking['send'],
  ): Promise<IncomingMessage> {
    const { ca, plain = false, patience = PATIENCE } = this.options;
    const hostname = url.hostname.replace(/^\[(.*)\]$/, '$1');
    const own = url.origin === new URL(this.#base).origin;
    const common: RequestOptions = {
      method,
      host: hostname,
      port: url.port === '' ? undefined : Number(url.port),
      path: `${url.pathname}${url.search}`,
      headers: { Host: url.host, 'User-Agent': 'registry-secure', ...headers },
      timeout: patience,
      agent: own ? this.#agent : false,
    };
    return new Promise<IncomingMessage>((resolve, reject) => {
      const asked =
        url.protocol === 'http:'
          ? plainRequest(common)
          : request({ ...common, ca: [...ca], ...(isIP(hostname) === 0 && { servername: hostname }) });
      asked.once('timeout', () => {
        const error = new Error(`nothing has moved for ${patience / 1000} s`);
        asked.destroy(Object.assign(error, { code: 'ETIMEDOUT' }));
      });
      let answered = false;
      asked.once('error', error => {
        if (!answered) reject(this.#failed(error, plain));
      });
      asked.once('response', answer => {
        answered = true;
        // Whoever is refused need not send the rest.
        if (send && answer.statusCode! >= 300) answer.once('end', () => asked.writableEnded || asked.destroy());
        resolve(answer);
      });
      if (!send) asked.end();
      else
        send(asked).then(
          () => asked.end(),
          error => {
            asked.destroy();
            if (!answered) reject(error);
          },
        );
    });
  }

  #failed(cause: Error, plain = this.options.plain === true): Unanswered {
    const { message, fix } = plain
      ? { message: `${this.host} cannot be reached: ${cause.message}`, fix: undefined }
      : mistrust(this.host, cause);
    return new Unanswered(undefined, message, { ...(fix !== undefined && { fix }), cause });
  }

  #refused(method: string, path: string, status: number, text: string, retryAfter: string | undefined): Unanswered {
    const what = text === '' ? `answers ${status} to ${method} ${path.replace(/\?.*/, '')}` : `says: ${text}`;
    const seconds = Number(retryAfter);
    const cause = { retryAfter: Number.isFinite(seconds) ? seconds : undefined };
    if (status === 401 || status === 403)
      return new Unanswered(status, `${this.host} ${what}`, {
        fix: this.options.login
          ? `see whether ${JSON.stringify(this.options.login.user)} has the right to do that`
          : `log in first, such as by: docker login ${this.host}`,
        cause,
      });
    return new Unanswered(status, `${this.host} ${what}`, { cause });
  }
}

interface Challenge {
  readonly scheme: 'basic' | 'bearer';
  readonly realm: string;
  readonly service: string | undefined;
}

/** The registry asks nobody who they are. */
const NONE: Challenge = { scheme: 'basic', realm: '', service: undefined };

/** The first challenge that can be met (RFC 9110 §11.6.1; distribution's token specification). */
function parseChallenge(header: string | undefined): Challenge | undefined {
  const [, scheme = '', rest = ''] = /^\s*(basic|bearer)\s+(.*)$/is.exec(header ?? '') ?? [];
  if (scheme === '') return undefined;
  const parameter = (name: string) => new RegExp(`(?:^|[\\s,])${name}="([^"]*)"`, 'i').exec(rest)?.[1];
  return {
    scheme: scheme.toLowerCase() as Challenge['scheme'],
    realm: parameter('realm') ?? '',
    service: parameter('service'),
  };
}

/** The registry's own host, or one of the same domain, as auth.docker.io is for registry-1.docker.io. */
function mayHearLogin(url: URL, host: string, plain: boolean): boolean {
  if (url.protocol !== 'https:' && !(plain && url.protocol === 'http:')) return false;
  const own = new URL(`https://${host}`).hostname;
  if (url.hostname === own) return true;
  const domain = (name: string) => name.split('.').slice(-2).join('.');
  return isIP(own.replace(/^\[(.*)\]$/, '$1')) === 0 && own.includes('.') && domain(own) === domain(url.hostname);
}

function basic({ user, password }: RegistryLogin): string {
  return `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`;
}

async function bodyOf(answer: IncomingMessage, limit: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > limit) throw new OperatorError(`an answer is larger than ${limit} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, size);
}

async function messageOf(answer: IncomingMessage): Promise<string> {
  return textIn(await bodyOf(answer, LARGEST).catch(() => Buffer.alloc(0)));
}

/** What an error body says (distribution-spec, "Error Codes"), in one short line. */
function textIn(data: Buffer): string {
  const errors = (json(data) as { errors?: ReadonlyArray<{ code?: unknown; message?: unknown }> } | undefined)?.errors;
  const [{ code = '', message = '' } = {}] = Array.isArray(errors) ? errors : [];
  // Proxies and the like say it without JSON, or by a whole page.
  const plain = data.length <= 200 && !data.includes('<') ? data.toString('utf8') : '';
  return `${message || code || plain}`
    .replaceAll(/[^\x20-\x7e]+/g, ' ')
    .trim()
    .slice(0, 200);
}

function json(data: Buffer): unknown {
  try {
    return JSON.parse(data.toString('utf8'));
  } catch {
    return undefined;
  }
}
