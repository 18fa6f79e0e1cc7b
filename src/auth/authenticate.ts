import type { IncomingMessage } from 'node:http';
import { OperatorError, RegistryError } from '../errors.js';
import { authorizationOf } from './basic.js';
import type { CredentialSource } from './credentials.js';
import { ANONYMOUS, type Identity } from './identity.js';
import { LoginLimiter, networkOf } from './login-limiter.js';

/** `open`: nobody is asked, everybody is anonymous. There is no default: who opens a registry says so. */
export type AuthenticatorOptions =
  | 'open'
  | {
      readonly realm: string;
      readonly source: CredentialSource;
      /** Whether a request without credentials may go on as anonymous, for the policy to decide; never unless told. */
      readonly welcomesAnonymous?: () => boolean;
    };

/** Says who sends a request. Stands before every handler, before any of the body is read. */
export class Authenticator {
  readonly #source: CredentialSource | undefined;
  readonly #challenge: Readonly<Record<string, string>> | undefined;
  readonly #welcomesAnonymous: () => boolean;
  readonly #limiter = new LoginLimiter();

  /** @throws OperatorError for a realm that no header can carry. */
  constructor(options: AuthenticatorOptions) {
    const { source, realm, welcomesAnonymous = () => false } = options === 'open' ? {} : options;
    this.#source = source;
    this.#challenge = realm === undefined ? undefined : { 'WWW-Authenticate': basicChallenge(realm) };
    this.#welcomesAnonymous = welcomesAnonymous;
  }

  /**
   * @throws RegistryError UNAUTHORIZED with the one challenge: the same for no, malformed and wrong credentials and for an
   *   unknown user; with status 400 for several Authorization headers. TOOMANYREQUESTS after too many of those, and as the
   *   source; UNAVAILABLE as the source.
   */
  async authenticate(request: IncomingMessage): Promise<Identity> {
    if (!this.#source) return ANONYMOUS;
    const credentials = authorizationOf(request);
    if (credentials === 'none' && this.#welcomesAnonymous()) return ANONYMOUS;
    if (typeof credentials === 'string') throw this.#unauthorized();
    const { user, password } = credentials;
    if (!this.#source.remembers(user, password))
      await this.#login(this.#source, user, password, networkOf(request.socket.remoteAddress));
    return { kind: 'user', name: user };
  }

  async #login(source: CredentialSource, user: string, password: string, network: string): Promise<void> {
    this.#limiter.admit(user, network);
    if (await source.verify(user, password, network)) return this.#limiter.succeeded(user, network);
    this.#limiter.failed(user, network);
    throw this.#unauthorized();
  }

  /** The answer to who may not do it: somebody who has not said who they are may try again with credentials. */
  refusal({ kind }: Identity): RegistryError {
    return kind === 'anonymous' && this.#challenge ? this.#unauthorized() : new RegistryError('DENIED');
  }

  #unauthorized(): RegistryError {
    return new RegistryError('UNAUTHORIZED', { headers: this.#challenge ?? {} });
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
