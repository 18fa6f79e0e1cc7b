import type { Configuration } from 'openid-client';
import { OperatorError, systemCode } from '../errors.js';
import { newName } from './htpasswd-edit.js';
import { httpsFetch } from './https-fetch.js';

export interface OidcOptions {
  /** An URL of https. */
  readonly issuer: string;
  readonly clientId: string;
  readonly clientSecret: string | undefined;
  readonly scopes: readonly string[];
  readonly usernameClaim: string;
  readonly groupsClaim: string;
  /** PEM: the authorities that vouch for the provider; undefined: those that Node trusts. */
  readonly ca: string | undefined;
}

/** What a login that has begun must come back with (OpenID Connect Core 1.0 section 3.1; RFC 7636). */
export interface LoginAttempt {
  readonly state: string;
  readonly nonce: string;
  readonly verifier: string;
}

export interface OidcUser {
  readonly issuer: string;
  /** Who it is at the provider, whatever they are called. */
  readonly subject: string;
  readonly name: string;
  readonly groups: readonly string[];
}

/** Why nobody was logged in, for the person who tried. `unavailable`: the provider's fault, and worth another try. */
export class OidcError extends Error {
  override readonly name = 'OidcError';
  constructor(
    readonly kind: 'unavailable' | 'refused',
    message: string,
    options?: { cause: unknown },
  ) {
    super(message, options);
  }
}

/** For each request to the provider, in seconds. */
const PATIENCE = 10;
/** How far its clock may be from ours, in seconds. */
const TOLERANCE = 30;
/** How long what the provider says of itself counts, in milliseconds. */
const FRESH = 3_600_000;
const MOST_GROUPS = 1000;

/** Logs people in at an OpenID Connect provider: authorization code, PKCE, state and nonce, and a signature that is checked. */
export class OidcProvider {
  #found: { readonly at: number; readonly configuration: Promise<Configuration> } | undefined;

  constructor(private readonly options: OidcOptions) {}

  /** @param callback where the provider is to send the browser back to @returns where to send it now @throws OidcError */
  async begin(callback: string): Promise<{ url: string; attempt: LoginAttempt }> {
    const client = await library();
    const configuration = await this.#configuration();
    const attempt = {
      state: client.randomState(),
      nonce: client.randomNonce(),
      verifier: client.randomPKCECodeVerifier(),
    };
    const url = client.buildAuthorizationUrl(configuration, {
      redirect_uri: callback,
      scope: ['openid', ...this.options.scopes.filter(scope => scope !== 'openid')].join(' '),
      code_challenge: await client.calculatePKCECodeChallenge(attempt.verifier),
      code_challenge_method: 'S256',
      state: attempt.state,
      nonce: attempt.nonce,
    });
    return { url: url.href, attempt };
  }

  /**
   * @param callback as for `begin` @param query what the browser has come back with
   * @throws OidcError
   */
  async finish(callback: string, query: string, attempt: LoginAttempt): Promise<OidcUser> {
    const client = await library();
    const configuration = await this.#configuration();
    const back = new URL(callback);
    back.search = query;
    try {
      const tokens = await client.authorizationCodeGrant(configuration, back, {
        pkceCodeVerifier: attempt.verifier,
        expectedState: attempt.state,
        expectedNonce: attempt.nonce,
        idTokenExpected: true,
      });
      const claims = tokens.claims()!;
      const { usernameClaim, groupsClaim } = this.options;
      // Some providers say no more than who it is, and the rest where it is asked for.
      const more =
        usernameClaim in claims && groupsClaim in claims
          ? {}
          : configuration.serverMetadata().userinfo_endpoint === undefined
            ? {}
            : await client.fetchUserInfo(configuration, tokens.access_token, claims.sub);
      return this.#userOf({ ...more, ...claims });
    } catch (error) {
      if (error instanceof OidcError) throw error;
      throw told(error);
    }
  }

  #userOf(claims: Readonly<Record<string, unknown>>): OidcUser {
    const { issuer, usernameClaim, groupsClaim } = this.options;
    const name = claims[usernameClaim];
    if (typeof name !== 'string')
      throw new OidcError('refused', `the provider names nobody: it sends no claim ${usernameClaim}`);
    if (usernameClaim === 'email' && claims.email_verified !== true)
      throw new OidcError('refused', 'the provider has not verified your address');
    const groups = claims[groupsClaim];
    const list = (Array.isArray(groups) ? groups : [groups]).filter(group => typeof group === 'string');
    try {
      return {
        issuer,
        subject: String(claims.sub),
        name: newName(name),
        groups: list.slice(0, MOST_GROUPS).map(group => group.normalize('NFC')),
      };
    } catch (error) {
      if (!(error instanceof OperatorError)) throw error;
      throw new OidcError('refused', error.message);
    }
  }

  async #configuration(): Promise<Configuration> {
    const now = performance.now();
    if (!this.#found || now - this.#found.at > FRESH) {
      const found = { at: now, configuration: this.#discover() };
      this.#found = found;
      // The next login tries again.
      found.configuration.catch(() => {
        if (this.#found === found) this.#found = undefined;
      });
    }
    return this.#found.configuration;
  }

  async #discover(): Promise<Configuration> {
    const client = await library();
    const { issuer, clientId, clientSecret, ca } = this.options;
    try {
      return await client.discovery(
        new URL(issuer),
        clientId,
        { [client.clockTolerance]: TOLERANCE, ...(clientSecret !== undefined && { client_secret: clientSecret }) },
        clientSecret === undefined ? client.None() : client.ClientSecretBasic(clientSecret),
        {
          [client.customFetch]: httpsFetch(ca) as never,
          timeout: PATIENCE,
          // TLS says who has sent the token; the signature says so as well.
          execute: [client.enableNonRepudiationChecks],
        },
      );
    } catch (cause) {
      throw new OidcError('unavailable', 'the provider of logins does not answer as one', { cause });
    }
  }
}

/** Only who has configured a provider pays for it. */
const library = () => import('openid-client');

/** Codes of the library for a provider that does not answer as one. */
const UNANSWERED = new Set(['OAUTH_TIMEOUT', 'OAUTH_ABORT', 'OAUTH_RESPONSE_IS_NOT_CONFORM']);

/** What the provider refuses is the caller's to know, and no more. */
function told(cause: unknown): OidcError {
  const { error } = cause as { error?: unknown };
  if (typeof error === 'string') {
    const why = /^[\w.-]{1,64}$/.test(error) ? error : 'for no known reason';
    return new OidcError('refused', `the provider refuses: ${why}`, { cause });
  }
  const code = systemCode(cause) ?? systemCode((cause as Error).cause) ?? '';
  if (UNANSWERED.has(code) || (code !== '' && !code.startsWith('OAUTH_')))
    return new OidcError('unavailable', 'the provider of logins does not answer', { cause });
  return new OidcError('refused', 'what the provider has sent proves nothing: log in again', { cause });
}
