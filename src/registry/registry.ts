import type { IncomingMessage, ServerResponse } from 'node:http';
import { andThen, type MaybeLater } from '../at-once.js';
import type { Identity } from '../auth/identity.js';
import type { Action } from '../auth/rights.js';
import { RegistryError } from '../errors.js';
import { answer, inPairs, readSmallRest } from './answer.js';
import { Exchange, type RegistryContext } from './exchange.js';
import { isKnownMethod, match, placeOf, repositoriesOf } from './routes.js';

/** What stands before every handler, of the registry and of the API. */
export interface Entrance {
  /** What stands before all paths as clients see them: empty, or a path without a slash at its end. */
  readonly prefix: string;
  /** Whether anything can be deleted (`storage.delete.enabled`). */
  readonly deletes: boolean;
  /** Why nothing can be changed at present, for the client; undefined when it can. */
  readonly readOnly: () => string | undefined;
  /** @param repositories that the request is about @throws RegistryError UNAUTHORIZED with the challenge */
  readonly authenticate: (request: IncomingMessage, repositories: readonly string[]) => MaybeLater<Identity>;
  /** What is answered where `authorise` says no. */
  readonly refusal: (
    identity: Identity,
    request: IncomingMessage,
    action: Action,
    target: { readonly repository: string; readonly scope: string },
  ) => RegistryError;
  /** Told of each answer that lets nobody in (401), forbids (403) or puts off (429). */
  readonly onRefusal?: (error: RegistryError, request: IncomingMessage) => void;
  /** Told of what is not the client's fault: errors of the storage and of this program. */
  readonly onFault: (error: unknown, request: IncomingMessage) => void;
}

interface RegistryOptions extends Entrance, RegistryContext {}

/** What a request has beside itself. */
interface Circumstances {
  /** Names and values by turns: what its answer carries beside what it says itself. */
  readonly headers?: readonly string[];
  /** Hears who asked, for the access log. */
  readonly onIdentity?: (request: IncomingMessage, identity: Identity) => void;
}

/** Serves one request whose path is the registry's. Never rejects, never throws. */
export type Registry = (
  request: IncomingMessage,
  response: ServerResponse,
  circumstances?: Circumstances,
) => MaybeLater<void>;

/** Nobody adds to one. */
const NO_QUERY = new URLSearchParams();

/** The one way in: who is asking, which route is it, may they, and only then the handler. */
export function createRegistry(options: RegistryOptions): Registry {
  const serve = (request: IncomingMessage, response: ServerResponse, carried: string[], told: Circumstances) => {
    const { method = '', url = '' } = request;
    if (!isKnownMethod(method)) throw new RegistryError('UNSUPPORTED', { headers: { Allow: '' } });
    const [target, query] = splitOnce(url, '?');
    const path = target.startsWith(options.prefix) ? target.slice(options.prefix.length) : '';
    const parameters = query === undefined ? NO_QUERY : new URLSearchParams(query);
    const place = placeOf(path);
    return andThen(options.authenticate(request, repositoriesOf(place, parameters)), identity => {
      told.onIdentity?.(request, identity);
      const found = match(method, place, { deletes: options.deletes, readOnly: options.readOnly() });
      if (!found) throw new RegistryError('UNSUPPORTED', { status: 404, message: 'no such endpoint' });
      const { action, handler, repository, reference } = found;
      if (!options.authorise(identity, action, repository))
        throw options.refusal(identity, request, action, { repository, scope: scopeOf(action, repository) });
      const asked = { repository, reference, query: parameters };
      return handler(new Exchange(request, response, carried, identity, options, asked));
    });
  };
  const refuse = async (error: unknown, request: IncomingMessage, response: ServerResponse, carried: string[]) => {
    tellRefusal(error, request, options);
    await readSmallRest(request);
    answer(error, request, response, options.onFault, carried);
  };
  return (request, response, circumstances = {}): MaybeLater<void> => {
    const carried = inPairs(
      { 'Docker-Distribution-API-Version': 'registry/2.0' },
      circumstances.headers ?? [],
    ) as string[];
    try {
      const served = serve(request, response, carried, circumstances);
      return served?.catch(error => refuse(error, request, response, carried));
    } catch (error) {
      return refuse(error, request, response, carried);
    }
  };
}

const REFUSALS: ReadonlySet<number> = new Set([401, 403, 429]);

/** To be told whatever becomes of the answer: also where nobody waits for it any more. */
export function tellRefusal(
  error: unknown,
  request: IncomingMessage,
  { onRefusal }: Pick<Entrance, 'onRefusal'>,
): void {
  if (error instanceof RegistryError && REFUSALS.has(error.status)) onRefusal?.(error, request);
}

/** What a token would have to be good for (distribution's token specification, "Resource Scope"). */
function scopeOf(action: Action, repository: string): string {
  if (repository === '') return action === 'catalog' ? 'registry:catalog:*' : '';
  return `repository:${repository}:${{ push: 'pull,push', delete: 'pull,delete' }[action as string] ?? 'pull'}`;
}

function splitOnce(text: string, separator: string): [string, string?] {
  const at = text.indexOf(separator);
  return at < 0 ? [text] : [text.slice(0, at), text.slice(at + 1)];
}
