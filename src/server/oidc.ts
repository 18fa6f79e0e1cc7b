import { readFile } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import type { OidcLogins } from '../api/session.js';
import { OidcProvider } from '../auth/oidc.js';
import { Sessions } from '../auth/sessions.js';
import type { Config } from '../config/schema.js';
import { OperatorError, systemCode } from '../errors.js';
import { readPem } from '../pki/inspect.js';
import type { StorageDriver } from '../storage/driver.js';
import { Accounts } from '../store/accounts.js';
import { endSession, hasEnded } from '../store/ended-sessions.js';
import { findOidcAccount } from '../store/oidc-accounts.js';
import { TokenKeys } from '../store/token-keys.js';

/**
 * @param realmOf where the client gets tokens, as `tokenRealm` says: below what it knows the registry by
 * @param isKnown whether there is a user of this name who has a password: nobody else may be called so
 */
type OpenOidc = (
  driver: StorageDriver,
  realmOf: (request: IncomingMessage) => string | undefined,
  isKnown: (user: string) => Promise<boolean>,
) => OidcLogins;

/** Logins at the configured provider; undefined where there is none. Asks it for nothing yet: it may be down. @throws OperatorError */
export async function openOidc({ auth }: Config): Promise<OpenOidc | undefined> {
  const { oidc } = auth;
  if (!oidc) return undefined;
  const { clientsecretfile, rootcertbundle } = oidc;
  const provider = new OidcProvider({
    // The schema has made sure of these.
    issuer: oidc.issuer!,
    clientId: oidc.clientid!,
    clientSecret: clientsecretfile === undefined ? undefined : await secretIn(clientsecretfile),
    scopes: oidc.scopes,
    usernameClaim: oidc.usernameclaim,
    groupsClaim: oidc.groupsclaim,
    ca: rootcertbundle === undefined ? undefined : await authoritiesIn(rootcertbundle),
  });
  return (driver, realmOf, isKnown) => {
    const accounts = new Accounts(driver);
    const sessions = new Sessions(new TokenKeys(driver), {
      life: oidc.sessionlife / 1000,
      hasEnded: id => hasEnded(driver, id),
      end: id => endSession(driver, id),
      counts: async (user, since) =>
        (await findOidcAccount(driver, user))?.created === since &&
        (await accounts.isActive(user)) &&
        !(await isKnown(user)),
    });
    return {
      provider,
      sessions,
      isKnown,
      callbackOf: request => realmOf(request)?.replace(/\/token$/, '/api/v1/session/callback'),
    };
  };
}

/** For the operator, of a provider beside users whom nobody can look up by name; undefined where all can be. */
export function namesakesOf({ auth }: { readonly auth: Pick<Config['auth'], 'realms' | 'oidc'> }): string | undefined {
  const hidden = auth.realms.filter(({ sources }) =>
    sources.some(({ certificate, proxy, ldap }) => certificate || proxy || (ldap && ldap.binddn === undefined)),
  );
  if (!auth.oidc || hidden.length === 0) return undefined;
  const names = hidden.map(({ name }) => JSON.stringify(name)).join(', ');
  return (
    `users of the realm ${names} cannot be looked up by name (certificates, proxies, directories without binddn): who is ` +
    'called like one of them at the provider of auth.oidc is that user in the policy; take a claim that nobody chooses ' +
    'for themselves (usernameclaim)'
  );
}

async function secretIn(file: string): Promise<string> {
  const text = await readFile(file, 'utf8').catch(error => {
    throw new OperatorError(`${file} (auth.oidc.clientsecretfile) cannot be read (${systemCode(error)})`, {
      fix: 'give it to the user that runs this, with mode 0600',
      cause: error,
    });
  });
  return text.trim();
}

async function authoritiesIn(file: string): Promise<string> {
  try {
    return (await readPem(file)).toString('latin1');
  } catch (error) {
    if (!(error instanceof OperatorError)) throw error;
    throw new OperatorError(`auth.oidc.rootcertbundle: ${error.message}`, {
      ...(error.fix !== undefined && { fix: error.fix }),
      cause: error,
    });
  }
}
