import { randomBytes } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { decodeProtectedHeader, errors, type JWTPayload, jwtVerify, SignJWT } from 'jose';
import type { Identity } from './identity.js';
import type { LoginAttempt, OidcUser } from './oidc.js';
import type { TokenKeys } from './tokens.js';

/** Both cookies are of this very host, for TLS alone, and out of the reach of scripts (RFC 6265bis, "__Host-"). */
const SESSION = '__Host-registry-session';
const LOGIN = '__Host-registry-login';
const ALGORITHM = 'HS256';
/** So that neither can pass for the other, or for a token of the registry. */
const SESSION_TYPE = 'registry-session+jwt';
const LOGIN_TYPE = 'registry-login+jwt';
/** How long a login may take at the provider, in seconds. */
const LOGIN_LIFE = 600;
/** Browsers keep no longer cookie than 4096 bytes. */
const MOST_GROUPS_TEXT = 2000;

interface SessionsOptions {
  /** In seconds; the keys must be known for longer. */
  readonly life: number;
  /** Whether a session was ended before its time. */
  readonly hasEnded: (id: string) => Promise<boolean>;
  readonly end: (id: string) => Promise<void>;
  /** Whether the user still is one, the same as then, and may be logged in. @param since when the account was made */
  readonly counts: (user: string, since: string) => Promise<boolean>;
}

/** What a login that has begun must remember. */
export interface PendingLogin extends LoginAttempt {
  /** A path of this host, to go to in the end. */
  readonly next: string;
}

interface Claims {
  readonly id: string;
  readonly name: string;
  readonly since: string;
  readonly groups: readonly string[];
}

/**
 * Sessions of browsers, which the cookie holds itself, signed: so every process that serves the same data knows them. It
 * says who somebody is, and nothing of what they may do.
 */
export class Sessions {
  constructor(
    private readonly keys: TokenKeys,
    private readonly options: SessionsOptions,
  ) {}

  /** @param since when the account was made: a later one by this name is somebody else's @returns Set-Cookie */
  async begin({ name, groups }: OidcUser, since: string): Promise<string> {
    const { life } = this.options;
    const kept: string[] = [];
    for (const group of groups)
      if (Buffer.byteLength(JSON.stringify([...kept, group])) <= MOST_GROUPS_TEXT) kept.push(group);
    const end = Date.now() + life * 1000;
    const id = `${end.toString(36).padStart(9, '0')}-${randomBytes(16).toString('hex')}`;
    // A session of one page at a time is no link away from another site: not even by a link does a browser send it from there.
    const claims = { sub: name, since, groups: kept, jti: id };
    return cookie(SESSION, await this.#sign(claims, SESSION_TYPE, life), 'Strict', life);
  }

  /** Whose session it is; undefined where there is none that counts. */
  async identify(request: IncomingMessage): Promise<Identity | undefined> {
    const claims = await this.#claimsOf(request);
    if (!claims || (await this.options.hasEnded(claims.id)) || !(await this.options.counts(claims.name, claims.since)))
      return undefined;
    return { kind: 'user', name: claims.name, via: 'session', groups: claims.groups };
  }

  /** Ends the session of a request in every process, if it has one. @returns Set-Cookie that takes the cookie away */
  async end(request: IncomingMessage): Promise<string> {
    const claims = await this.#claimsOf(request);
    if (claims) await this.options.end(claims.id);
    return cookie(SESSION, '', 'Strict', 0);
  }

  /** @returns Set-Cookie. The browser comes back from another site, by a link: so that it is `Lax` */
  async remember(pending: PendingLogin): Promise<string> {
    return cookie(LOGIN, await this.#sign({ ...pending }, LOGIN_TYPE, LOGIN_LIFE), 'Lax', LOGIN_LIFE);
  }

  /** The login that this browser has begun; undefined for none, or one that took too long. */
  async remembered(request: IncomingMessage): Promise<PendingLogin | undefined> {
    const { state, nonce, verifier, next } = (await this.#verify(cookieOf(request, LOGIN), LOGIN_TYPE)) ?? {};
    return isText(state) && isText(nonce) && isText(verifier) && isText(next)
      ? { state, nonce, verifier, next }
      : undefined;
  }

  /** @returns Set-Cookie that takes the cookie of a login away: it is good for one try */
  forgetLogin(): string {
    return cookie(LOGIN, '', 'Lax', 0);
  }

  async #claimsOf(request: IncomingMessage): Promise<Claims | undefined> {
    const { sub, since, jti, groups } = (await this.#verify(cookieOf(request, SESSION), SESSION_TYPE)) ?? {};
    if (sub === undefined || !isText(since) || !/^[0-9a-z]{9}-[0-9a-f]{32}$/.test(jti ?? '') || !Array.isArray(groups))
      return undefined;
    return { id: jti!, name: sub, since, groups: groups.filter(isText) };
  }

  async #sign(claims: JWTPayload, type: string, life: number): Promise<string> {
    const { id, secret } = await this.keys.current();
    return new SignJWT(claims)
      .setProtectedHeader({ alg: ALGORITHM, typ: type, kid: id })
      .setIssuedAt()
      .setExpirationTime(`${life}s`)
      .sign(secret);
  }

  async #verify(token: string | undefined, typ: string): Promise<JWTPayload | undefined> {
    if (token === undefined) return undefined;
    try {
      const { kid } = decodeProtectedHeader(token);
      const key = typeof kid === 'string' ? await this.keys.find(kid) : undefined;
      if (!key) return undefined;
      return (await jwtVerify(token, key.secret, { algorithms: [ALGORITHM], typ, requiredClaims: ['exp'] })).payload;
    } catch (error) {
      if (error instanceof errors.JOSEError || error instanceof TypeError) return undefined;
      throw error;
    }
  }
}

const isText = (value: unknown): value is string => typeof value === 'string';

function cookie(name: string, value: string, site: 'Strict' | 'Lax', life: number): string {
  return `${name}=${value}; Path=/; Max-Age=${life}; Secure; HttpOnly; SameSite=${site}`;
}

/** The one cookie of this name: of two nobody can say which counts. */
function cookieOf({ headers }: IncomingMessage, name: string): string | undefined {
  const found = (headers.cookie ?? '')
    .split(';')
    .map(pair => pair.trim())
    .filter(pair => pair.startsWith(`${name}=`));
  return found.length === 1 ? found[0]!.slice(name.length + 1) : undefined;
}
