import type { IncomingMessage } from 'node:http';
import { OperatorError, RegistryError } from '../errors.js';
import { authorizationOf } from './basic.js';
import type { CredentialSource } from './credentials.js';
import { ANONYMOUS, type Identity } from './identity.js';
import { LoginLimiter, networkOf } from './login-limiter.js';
import type { Action } from './rights.js';
import { type IssuedToken, SERVICE, type Tokens } from './tokens.js';

/** `open`: nobody is asked, everybody is anonymous. There is no default: who opens a registry says so. */
export type AuthenticatorOptions = 'open' | UserAuthentication;

interface UserAuthentication {
  readonly realm: string;
  readonly source: CredentialSource;
  /** Whether a request without credentials may go on as anonymous, for the policy to decide; never unless told. */
  readonly welcomesAnonymous?: () => boolean;
  /** One of its own unless told. */
  readonly limiter?: LoginLimiter;
  /** Tokens that were given for credentials. */
  readonly tokens?: Pick<Tokens, 'identify' | 'issue'>;
  /** Where this client gets one: an absolute URL; undefined where none is known that it can trust. */
  readonly tokenRealm?: (request: IncomingMessage) => string | undefined;
}

/** Says who sends a request. Stands before every handler, before any of the body is read. */
export class Authenticator {
  readonly #users: UserAuthentication | undefined;
  readonly #basic: string;
  readonly #limiter: LoginLimiter;

  /** @throws OperatorError for a realm that no header can carry. */
  constructor(options: AuthenticatorOptions) {
    this.#users = options === 'open' ? undefined : options;
    this.#limiter = this.#users?.limiter ?? new LoginLimiter();
    this.#basic = options === 'open' ? '' : basicChallenge(options.realm);
  }

  /**
   * @throws RegistryError UNAUTHORIZED with the one challenge: the same for no, malformed and wrong credentials and for an
   *   unknown user; with status 400 for several Authorization headers. TOOMANYREQUESTS after too many of those, and as the
   *   source; UNAVAILABLE as the source.
   */
  async authenticate(request: IncomingMessage): Promise<Identity> {
    const users = this.#users;
    if (!users) return ANONYMOUS;
    const credentials = authorizationOf(request);
    if (credentials === 'none' && users.welcomesAnonymous?.()) return ANONYMOUS;
    if (typeof credentials === 'string') throw this.#unauthorized(request);
    if ('token' in credentials) {
      const identity = await users.tokens?.identify(credentials.token);
      if (identity) return identity;
      throw this.#unauthorized(request, 'error="invalid_token"');
    }
    const { user, password } = credentials;
    if (!users.source.remembers(user, password)) await this.#login(users.source, request, user, password);
    return { kind: 'user', name: user, via: 'password' };
  }

  /** A token for who has authenticated; undefined where there are none. */
  async issueToken(identity: Identity): Promise<IssuedToken | undefined> {
    return this.#users?.tokens?.issue(identity);
  }

  async #login(source: CredentialSource, request: IncomingMessage, user: string, password: string): Promise<void> {
    const network = networkOf(request.socket.remoteAddress);
    this.#limiter.admit(user, network);
    if (await source.verify(user, password, network)) return this.#limiter.succeeded(user, network);
    this.#limiter.failed(user, network);
    throw this.#unauthorized(request);
  }

  /**
   * The answer to who may not do it: somebody who has not said who they are may try again with credentials.
   * @param scope what it takes, such as `repository:team/app:pull,push`
   */
  refusal({ kind }: Identity, request: IncomingMessage, action: Action, scope: string): RegistryError {
    // Of the usual message docker shows no word but the code.
    if (kind !== 'anonymous' || !this.#users)
      return new RegistryError('DENIED', { message: `you have no right to ${action} here` });
    // With a token for nobody in its hand a client must hear that another one is needed.
    const insufficient = request.headers.authorization === undefined ? [] : ['error="insufficient_scope"'];
    return this.#unauthorized(request, ...(scope === '' ? [] : [`scope="${scope}"`]), ...insufficient);
  }

  /**
   * One challenge, for docker takes the first one it knows. With Basic it never asks without a password; so where anybody
   * may be anonymous, it is Bearer, whose tokens nobody needs a password for.
   */
  #unauthorized(request: IncomingMessage, ...more: string[]): RegistryError {
    const { welcomesAnonymous, tokenRealm } = this.#users!;
    const realm = welcomesAnonymous?.() ? tokenRealm?.(request) : undefined;
    const bearer = [`Bearer realm="${realm}"`, `service="${SERVICE}"`, ...more].join(',');
    return new RegistryError('UNAUTHORIZED', {
      headers: { 'WWW-Authenticate': realm === undefined ? this.#basic : bearer },
    });
  }
}

/** RFC 7617 §2.1. The realm is a quoted string (RFC 9110 §5.6.4), beyond ASCII in UTF-8. */
function basicChallenge(realm: string): string {
  if (/[\x00-\x1f\x7f]/.test(realm))
    throw new OperatorError('the realm of auth.htpasswd.realm holds control characters', {
      fix: 'use one line of plain text',
    });
  // Node writes one byte for each character of a header.
  const quoted = Buffer.from(realm.replaceAll(/["\\]/g, '\\$&')).toString('latin1');
  return `Basic realm="${quoted}", charset="UTF-8"`;
}
