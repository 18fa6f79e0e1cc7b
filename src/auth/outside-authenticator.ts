import type { IncomingMessage } from 'node:http';
import { OperatorError, RegistryError } from '../errors.js';
import type { Authentication } from './accounts.js';
import { authorizationOf } from './basic.js';
import type { Identity } from './identity.js';
import type { OutsideTokens } from './outside-tokens.js';
import type { Action } from './rights.js';

export interface OutsideAuthenticatorOptions {
  readonly service: string;
  /** Where clients get their tokens: an absolute URL. */
  readonly realm: (request: IncomingMessage) => string;
  readonly tokens: Pick<OutsideTokens, 'identify'>;
}

/** Who has no token may do nothing: so what is asked of them names the scope that their request takes. */
const NOBODY: Identity = { kind: 'anonymous', bounds: [] };

/** Says who sends a request where a token server of somebody else's knows the users: by its tokens alone. */
export class OutsideAuthenticator implements Authentication {
  /** @throws OperatorError for a name that no header can carry. */
  constructor(private readonly options: OutsideAuthenticatorOptions) {
    if (!/^[\x20\x21\x23-\x5b\x5d-\x7e]+$/.test(options.service))
      throw new OperatorError('auth.token.service holds characters that no challenge can carry', {
        fix: 'use letters, digits and -._:/, as the token server has it',
      });
  }

  /** @throws RegistryError UNAUTHORIZED with the challenge, for a token that does not count. */
  async authenticate(request: IncomingMessage): Promise<Identity> {
    const credentials = authorizationOf(request);
    if (typeof credentials === 'string') return this.#withoutToken(request);
    if (!('token' in credentials)) return NOBODY;
    const identity = await this.options.tokens.identify(credentials.token);
    if (!identity) throw this.#challenge(request, 'error="invalid_token"');
    return identity;
  }

  /** A token of a form that no token has, such as one that is too long, is a wrong one. */
  #withoutToken(request: IncomingMessage): Identity {
    if (/^bearer /i.test(request.headers.authorization ?? '')) throw this.#challenge(request, 'error="invalid_token"');
    return NOBODY;
  }

  /** The token server gives them. */
  async issueToken(): Promise<undefined> {
    return undefined;
  }

  /** As Distribution has it, whoever asks: clients come back with a token for the scope. */
  refusal(
    identity: Identity,
    request: IncomingMessage,
    action: Action,
    { scope }: { readonly scope: string },
  ): RegistryError {
    const asked = scope === '' ? [] : [`scope="${scope}"`];
    if (identity === NOBODY) return this.#challenge(request, ...asked);
    const { code, status, headers } = this.#challenge(request, ...asked, 'error="insufficient_scope"');
    return new RegistryError(code, { status, headers, message: `you have no right to ${action} here` });
  }

  unauthorized(request: IncomingMessage): RegistryError {
    return this.#challenge(request, 'error="invalid_token"');
  }

  #challenge(request: IncomingMessage, ...more: string[]): RegistryError {
    const { realm, service } = this.options;
    const challenge = [`Bearer realm="${realm(request)}"`, `service="${service}"`, ...more].join(',');
    return new RegistryError('UNAUTHORIZED', { headers: { 'WWW-Authenticate': challenge } });
  }
}
