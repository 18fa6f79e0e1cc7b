import type { IncomingMessage, ServerResponse } from 'node:http';
import { finished } from 'node:stream';
import type { Identity } from '../auth/identity.js';
import type { Action } from '../auth/rights.js';
import { RegistryError } from '../errors.js';
import { StorageError } from '../storage/driver.js';
import { isClientGone } from '../store/uploads.js';
import { Exchange, type RegistryContext } from './exchange.js';
import { isKnownMethod, match, repositoriesOf } from './routes.js';

export interface RegistryOptions extends RegistryContext {
  /** Whether anything can be deleted (`storage.delete.enabled`). */
  readonly deletes: boolean;
  /** Why nothing can be changed at present, for the client; undefined when it can. */
  readonly readOnly: () => string | undefined;
  /** @param repositories that the request is about @throws RegistryError UNAUTHORIZED with the challenge */
  readonly authenticate: (request: IncomingMessage, repositories: readonly string[]) => Promise<Identity>;
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

/** Serves one request whose path is the registry's. Never rejects. `onIdentity` hears who asked, for the access log. */
export type Registry = (
  request: IncomingMessage,
  response: ServerResponse,
  onIdentity?: (identity: Identity) => void,
) => Promise<void>;

/** The one way in: who is asking, which route is it, may they, and only then the handler. */
export function createRegistry(options: RegistryOptions): Registry {
  return async (request, response, onIdentity) => {
    response.setHeader('Docker-Distribution-API-Version', 'registry/2.0');
    try {
      const { method = '', url = '' } = request;
      if (!isKnownMethod(method)) throw new RegistryError('UNSUPPORTED', { headers: { Allow: '' } });
      const [target, query = ''] = splitOnce(url, '?');
      const path = target.startsWith(options.prefix) ? target.slice(options.prefix.length) : '';
      const parameters = new URLSearchParams(query);
      const identity = await options.authenticate(request, repositoriesOf(path, parameters));
      onIdentity?.(identity);
      const rules = { deletes: options.deletes, readOnly: options.readOnly() };
      const found = match(method, path, rules);
      if (!found) throw new RegistryError('UNSUPPORTED', { status: 404, message: 'no such endpoint' });
      const { action, handler, repository, reference } = found;
      if (!options.authorise(identity, action, repository))
        throw options.refusal(identity, request, action, { repository, scope: scopeOf(action, repository) });
      const asked = { repository, reference, query: parameters };
      await handler(new Exchange(request, response, identity, options, asked));
    } catch (error) {
      // Also where nobody waits for the answer any more.
      if (error instanceof RegistryError && REFUSALS.has(error.status)) options.onRefusal?.(error, request);
      await readSmallRest(request);
      answer(error, request, response, options.onFault);
    }
  };
}

const REFUSALS: ReadonlySet<number> = new Set([401, 403, 429]);

/** What a token would have to be good for (distribution's token specification, "Resource Scope"). */
function scopeOf(action: Action, repository: string): string {
  if (repository === '') return action === 'catalog' ? 'registry:catalog:*' : '';
  return `repository:${repository}:${{ push: 'pull,push', delete: 'pull,delete' }[action as string] ?? 'pull'}`;
}

function splitOnce(text: string, separator: string): [string, string?] {
  const at = text.indexOf(separator);
  return at < 0 ? [text] : [text.slice(0, at), text.slice(at + 1)];
}

/** A manifest of most images. In bytes. */
const SMALL = 64 * 1024;

/**
 * Reads away a small body before a refusal: containerd waits for ever when the answer to its manifest comes before it has
 * sent it. A large body is not waited for, nor one that the client holds back until it is asked for it.
 */
async function readSmallRest(request: IncomingMessage): Promise<void> {
  const { 'content-length': length, expect } = request.headers;
  if (length === undefined || Number(length) > SMALL || expect !== undefined) return;
  if (request.complete || request.destroyed) return;
  await new Promise(resolve => finished(request.resume(), resolve));
}

/** The one place where an error becomes an answer. */
function answer(
  error: unknown,
  request: IncomingMessage,
  response: ServerResponse,
  onFault: RegistryOptions['onFault'],
): void {
  if (response.destroyed || request.socket.destroyed || isClientGone(error)) {
    response.destroy();
    return;
  }
  const known = error instanceof RegistryError ? error : fault(error);
  // One without a cause was told of where it was found out, once and not for each request.
  if (known.status >= 500 && (known !== error || known.cause !== undefined)) onFault(error, request);
  if (response.headersSent) {
    // The status is out already: only a broken connection can still say that the body is not whole.
    response.destroy();
    return;
  }
  const body = Buffer.from(JSON.stringify(known));
  // Whatever else the client sends is not worth reading; the listener lets it see the answer before it closes.
  const unread = hasBody(request) && !request.complete;
  response.writeHead(known.status, {
    'Content-Type': 'application/json',
    'Content-Length': body.length,
    ...known.headers,
    ...(unread && { Connection: 'close' }),
  });
  response.end(request.method === 'HEAD' ? undefined : body);
}

function fault(error: unknown): RegistryError {
  if (!(error instanceof StorageError)) return new RegistryError('UNKNOWN', { cause: error });
  return error.kind === 'full'
    ? new RegistryError('UNAVAILABLE', { status: 507, message: 'the storage of the registry is full', cause: error })
    : new RegistryError('UNAVAILABLE', { headers: { 'Retry-After': '10' }, cause: error });
}

function hasBody(request: IncomingMessage): boolean {
  return 'transfer-encoding' in request.headers || Number(request.headers['content-length'] ?? 0) > 0;
}
