import type { IncomingMessage } from 'node:http';
import type { MaybeLater } from '../at-once.js';
import { OperatorError, RegistryError } from '../errors.js';
import { authorizationHeader, authorizationOf } from './basic.js';
import { ANONYMOUS, type Identity, type User } from './identity.js';
import { LoginLimiter, networkOf } from './login-limiter.js';
import { type MachineTokens, presentedToken } from './machine-tokens.js';
import type { Realm, Realms, Remembered } from './realms.js';
import type { Action } from './rights.js';
import { type IssuedToken, SERVICE, type Tokens } from './tokens.js';

/** `open`: nobody is asked, everybody is anonymous. There is no default: who opens a registry says so. */
export type AuthenticatorOptions = 'open' | UserAuthentication;

interface UserAuthentication {
  readonly realms: Realms;
  /** Whether a request without credentials may go on as anonymous, for the policy to decide; never unless told. */
  readonly welcomesAnonymous?: () => boolean;
  /** One of its own unless told. */
  readonly limiter?: LoginLimiter;
  /** Tokens that were given for credentials. */
  readonly tokens?: Pick<Tokens, 'identify' | 'issue'>;
  /** What machines send in place of a password. */
  readonly machineTokens?: Pick<MachineTokens, 'identify'>;
  /** Where this client gets one: an absolute URL; undefined where none is known that it can trust. */
  readonly tokenRealm?: (request: IncomingMessage) => string | undefined;
  /** Of the client, where not of the socket: that of who sent it to a proxy. */
  readonly addressOf?: (request: IncomingMessage) => string | undefined;
}

/** By which header a connection has shown last whose it is. */
interface Known extends Remembered {
  readonly header: string;
}

/** Says who sends a request. Stands before every handler, before any of the body is read. */
export class Authenticator {
  readonly #users: UserAuthentication | undefined;
  readonly #limiter: LoginLimiter;
  /** By connection, on which a client sends the same header again and again: it need not be taken apart each time. */
  readonly #known = new WeakMap<object, Known>();

  /** @throws OperatorError for a realm that no header can carry. */
  constructor(options: AuthenticatorOptions) {
    this.#users = options === 'open' ? undefined : options;
    this.#limiter = this.#users?.limiter ?? new LoginLimiter();
    for (const { name } of this.#users?.realms.all ?? []) basicChallenge(name);
  }

  /**
   * By what a trusted proxy says, else by the Authorization header, else by the client's certificate.
   * @param repositories that the request is about; of none, a user of any realm will do. A user of another realm than theirs
   *   is nobody there.
   * @throws RegistryError UNAUTHORIZED with the one challenge: the same for no, malformed and wrong credentials and for an
   *   unknown user; with status 400 for several headers that say who it is. TOOMANYREQUESTS after too many of those, and as
   *   the source; UNAVAILABLE as the source.
   */
  authenticate(request: IncomingMessage, repositories: readonly string[] = []): MaybeLater<Identity> {
    const users = this.#users;
    if (!users) return ANONYMOUS;
    return this.#recall(users, request) ?? this.#identify(users, request, repositories);
  }

  /** Who that is by credentials that are known, where nothing else can say who it is. */
  #recall({ realms }: UserAuthentication, request: IncomingMessage): User | undefined {
    const known = this.#known.get(request.socket);
    if (!known || realms.hears('proxy') || known.header !== authorizationHeader(request)) return undefined;
    return known.still() ? known.user : undefined;
  }

  async #identify(
    users: UserAuthentication,
    request: IncomingMessage,
    repositories: readonly string[],
  ): Promise<Identity> {
    const { realms, tokens } = users;
    const wanted = realms.of(repositories);
    const sent = realms.shown('proxy', request, wanted);
    if (sent) return sent;
    const credentials = authorizationOf(request);
    if (credentials === 'none') {
      const shown = realms.shown('certificate', request, wanted);
      if (shown) return shown;
      if (users.welcomesAnonymous?.()) return ANONYMOUS;
    }
    if (typeof credentials === 'string') throw this.#unauthorized(request, wanted);
    if ('token' in credentials) {
      const identity = await tokens?.identify(credentials.token, request);
      if (!identity) throw this.#unauthorized(request, wanted, 'error="invalid_token"');
      return identity.kind === 'user' ? realms.within(identity, wanted) : identity;
    }
    const { user, password } = credentials;
    const machine = await this.#machine(request, user, password, wanted);
    if (machine) return realms.within(machine, wanted);
    const known =
      (await realms.remembered(user, password, wanted)) ?? (await this.#login(realms, request, user, password, wanted));
    const remembered = realms.remembering(user, password);
    const header = authorizationHeader(request);
    if (remembered && typeof header === 'string') this.#known.set(request.socket, { ...remembered, header });
    return realms.within(known, wanted);
  }

  /**
   * Whose token a machine has sent; undefined for what can only be a password. Costs no hashing that is slow by design, so
   * that a right one passes whatever others have guessed: who guesses has 190 bits to guess.
   */
  async #machine(
    request: IncomingMessage,
    user: string,
    password: string,
    wanted: readonly Realm[],
  ): Promise<User | undefined> {
    const { machineTokens } = this.#users!;
    const presented = machineTokens && presentedToken(password);
    if (!presented) return undefined;
    const known = await machineTokens.identify(user, presented);
    if (known) return known;
    const network = this.#networkOf(request);
    this.#limiter.admit(user, network);
    this.#limiter.failed(user, network);
    throw this.#unauthorized(request, wanted);
  }

  /** A token for who has authenticated; undefined where there are none. */
  async issueToken(identity: Identity): Promise<IssuedToken | undefined> {
    return this.#users?.tokens?.issue(identity);
  }

  async #login(
    realms: Realms,
    request: IncomingMessage,
    user: string,
    password: string,
    wanted: readonly Realm[],
  ): Promise<User> {
    const network = this.#networkOf(request);
    this.#limiter.admit(user, network);
    const { user: known, refused, fault } = await realms.login(user, password, network, wanted);
    if (known) {
      this.#limiter.succeeded(user, network);
      return known;
    }
    // Even where it could not be checked everywhere, or a server that is down would let guesses at another one go free.
    if (refused) this.#limiter.failed(user, network);
    if (fault) throw fault;
    throw this.#unauthorized(request, wanted);
  }

  #networkOf(request: IncomingMessage): string {
    return networkOf(this.#users?.addressOf?.(request) ?? request.socket.remoteAddress);
  }

  /** The answer to who has not said rightly who they are. @param repositories as for `authenticate` */
  unauthorized(request: IncomingMessage, repositories: readonly string[] = []): RegistryError {
    return this.#unauthorized(request, this.#users!.realms.of(repositories));
  }

  /**
   * The answer to who may not do it: somebody who has not said who they are may try again with credentials.
   * @param scope what it takes, such as `repository:team/app:pull,push`
   */
  refusal(
    { kind }: Identity,
    request: IncomingMessage,
    action: Action,
    { repository, scope }: { readonly repository: string; readonly scope: string },
  ): RegistryError {
    // Of the usual message docker shows no word but the code.
    if (kind !== 'anonymous' || !this.#users)
      return new RegistryError('DENIED', { message: `you have no right to ${action} here` });
    // With a token for nobody in its hand a client must hear that another one is needed.
    const insufficient = request.headers.authorization === undefined ? [] : ['error="insufficient_scope"'];
    const realms = this.#users.realms.of(repository === '' ? [] : [repository]);
    return this.#unauthorized(request, realms, ...(scope === '' ? [] : [`scope="${scope}"`]), ...insufficient);
  }

  /**
   * One challenge, for docker takes the first one it knows. With Basic it never asks without a password; so where anybody
   * may be anonymous, it is Bearer, whose tokens nobody needs a password for.
   */
  #unauthorized(request: IncomingMessage, realms: readonly Realm[], ...more: string[]): RegistryError {
    const { welcomesAnonymous, tokenRealm } = this.#users!;
    const realm = welcomesAnonymous?.() ? tokenRealm?.(request) : undefined;
    const bearer = [`Bearer realm="${realm}"`, `service="${SERVICE}"`, ...more].join(',');
    // Of several realms the last is the one for everything else.
    return new RegistryError('UNAUTHORIZED', {
      headers: { 'WWW-Authenticate': realm === undefined ? basicChallenge(realms.at(-1)!.name) : bearer },
    });
  }
}

/** RFC 7617 §2.1. The realm is a quoted string (RFC 9110 §5.6.4), beyond ASCII in UTF-8. */
function basicChallenge(realm: string): string {
  if (/[\x00-\x1f\x7f]/.test(realm))
    throw new OperatorError('the name of a realm holds control characters', {
      fix: 'use one line of plain text',
    });
  // Node writes one byte for each character of a header.
  const quoted = Buffer.from(realm.replaceAll(/["\\]/g, '\\$&')).toString('latin1');
  return `Basic realm="${quoted}", charset="UTF-8"`;
}
