import type { IncomingMessage } from 'node:http';
import { z } from 'zod';
import { OidcError, type OidcProvider } from '../auth/oidc.js';
import type { Sessions } from '../auth/sessions.js';
import { RegistryError } from '../errors.js';
import { claimOidcAccount } from '../store/oidc-accounts.js';
import { type Call, type Route, route } from './route.js';

/** Logins at an OpenID Connect provider, where one is configured. */
export interface OidcLogins {
  readonly provider: OidcProvider;
  readonly sessions: Sessions;
  /** Whether there is a user of this name who has a password. @throws RegistryError UNAVAILABLE where that cannot be told */
  readonly isKnown: (user: string) => Promise<boolean>;
  /** Where the provider sends browsers back to; undefined for a host that is not known to be this registry's. */
  readonly callbackOf: (request: IncomingMessage) => string | undefined;
}

/** A path of this host, and no more: `//host` and `/\host` are others. */
const localPath = z
  .string()
  .max(512)
  .regex(/^\/(?![/\\])[\x21-\x5b\x5d-\x7e]*$/, { error: 'is no path of this registry' });

export const SESSION: readonly Route[] = [
  route({
    method: 'GET',
    path: '/session/login',
    id: 'beginLogin',
    about: 'For browsers: leads to the OpenID Connect provider, and from there back.',
    access: 'anybody',
    query: z.strictObject({
      next: localPath.optional().describe('A path of this registry to go to in the end; `/api/v1/whoami` unless told.'),
    }),
    status: 303,
    errors: [404],
    gives: { Location: 'Of the provider.', 'Set-Cookie': 'What the login must come back with.' },
    handler: async call => {
      const { provider, sessions } = loginsOf(call);
      const { url, attempt } = await answered(() => provider.begin(callbackOf(call)));
      const next = call.query.next ?? call.path.replace(/session\/login$/, 'whoami');
      return { headers: { Location: url, 'Set-Cookie': await sessions.remember({ ...attempt, next }) } };
    },
  }),
  route({
    method: 'GET',
    path: '/session/callback',
    id: 'finishLogin',
    changes: 'session.begin',
    about:
      'For browsers that come from the provider: begins a session, in a cookie. The first login makes the account, which administrators can disable.',
    access: 'anybody',
    // The provider may add what it likes.
    query: z.looseObject({ state: z.string().optional(), code: z.string().optional() }),
    status: 200,
    page: true,
    errors: [403, 404],
    gives: { Refresh: 'Where to go on.', 'Set-Cookie': 'The session.' },
    handler: async call => {
      const { provider, sessions, isKnown } = loginsOf(call);
      const { request, services } = call;
      const pending = await sessions.remembered(request);
      if (!pending) throw refused('no login has begun in this browser, or it took too long: log in again');
      const query = request.url!.slice(request.url!.indexOf('?') + 1);
      const user = await answered(() => provider.finish(callbackOf(call), query, pending));
      // Whoever may choose a name at the provider must not become a user of ours by it.
      if (await isKnown(user.name)) throw refused('there is a user of this name who has a password here');
      const account = await claimOidcAccount(services.driver, user);
      if (!account)
        throw refused('this name was somebody else’s at the first login: an administrator can remove that account');
      return {
        page: 'Logged in.\n',
        what: { user: user.name },
        // Not a redirect: the browser is on its way from another site until a page of this one sends it on, and before
        // that it would not show a cookie that is `Strict`.
        headers: {
          Refresh: `0; url=${pending.next}`,
          'Set-Cookie': [await sessions.begin(user, account.created), sessions.forgetLogin()],
        },
      };
    },
  }),
  route({
    method: 'DELETE',
    path: '/session',
    id: 'endSession',
    changes: 'session.end',
    about: 'Ends the session, in every process at once. Without one it does nothing.',
    access: 'anybody',
    status: 204,
    errors: [403, 404],
    gives: { 'Set-Cookie': 'Takes the cookie away.' },
    handler: async call => {
      const { sessions } = loginsOf(call);
      const identity = await sessions.identify(call.request);
      const headers = { 'Set-Cookie': await sessions.end(call.request) };
      return identity?.kind === 'user' ? { headers, what: { user: identity.name } } : { headers };
    },
  }),
];

function loginsOf({ services }: Pick<Call, 'services'>): OidcLogins {
  if (services.oidc) return services.oidc;
  throw new RegistryError('NOT_FOUND', { message: 'no provider of logins is configured (auth.oidc)' });
}

function callbackOf({ services, request }: Pick<Call, 'services' | 'request'>): string {
  const callback = services.oidc!.callbackOf(request);
  if (callback === undefined)
    throw new RegistryError('INVALID', { message: 'the registry is not known by this host: use one of its names' });
  return callback;
}

function refused(message: string, cause?: unknown): RegistryError {
  return new RegistryError('DENIED', { message, cause });
}

async function answered<T>(task: () => Promise<T>): Promise<T> {
  return task().catch(error => {
    if (!(error instanceof OidcError)) throw error;
    if (error.kind === 'refused') throw refused(error.message, error);
    throw new RegistryError('UNAVAILABLE', { message: error.message, headers: { 'Retry-After': '10' }, cause: error });
  });
}
