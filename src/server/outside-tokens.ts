import type { IncomingMessage } from 'node:http';
import { OutsideAuthenticator } from '../auth/outside-authenticator.js';
import { OutsideTokens } from '../auth/outside-tokens.js';
import type { AuthenticationOptions } from './authentication.js';

/** Where users are known to a token server of somebody else's (`auth.token`). */
export interface OutsideUsers {
  /** What is read again while the registry runs. */
  readonly files: readonly string[];
  /** @param tokenRealm as for `Authenticator` */
  authenticator(tokenRealm: (request: IncomingMessage) => string | undefined): OutsideAuthenticator;
}

/** Undefined where none is configured. @throws OperatorError */
export async function openOutsideTokens({ config, watch }: AuthenticationOptions): Promise<OutsideUsers | undefined> {
  const { token } = config.auth;
  if (!token) return undefined;
  // The schema has made sure of these.
  const { realm = '', issuer = '', service = '', rootcertbundle, jwks, signingalgorithms: algorithms } = token;
  const files = [rootcertbundle, jwks].filter(file => file !== undefined);
  let tokens: OutsideTokens | undefined;
  watch(files, 'keys of the token server', async () => {
    if (!tokens) throw new Error('not read yet');
    await tokens.reload();
  });
  const opened = await OutsideTokens.open({ issuer, service, algorithms, files: { rootcertbundle, jwks } });
  tokens = opened;
  return {
    files,
    authenticator: tokenRealm =>
      new OutsideAuthenticator({
        service,
        tokens: opened,
        // Only to a host that is known to be this registry's: whoever sends another one in Host gets the configured realm.
        realm: request => {
          const own = token.autoredirect ? tokenRealm(request) : undefined;
          return own === undefined ? realm : new URL(token.autoredirectpath, own).href;
        },
      }),
  };
}
