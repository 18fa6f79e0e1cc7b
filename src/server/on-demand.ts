import type { IncomingMessage, ServerResponse } from 'node:http';
import type { MaybeLater } from '../at-once.js';
import { RegistryError } from '../errors.js';
import { answer } from '../registry/answer.js';
import type { Entrance, Registry } from '../registry/registry.js';
import type { Page, TrustPagesOptions } from '../ui/trust-pages.js';
import type { ApiParts } from './api.js';

/**
 * What pushes and pulls never need is loaded by the first request for it: the API's schemas alone take as much memory as
 * the registry itself.
 */

type OnFault = Entrance['onFault'];

export function apiOnDemand(parts: ApiParts): Registry {
  const { onFault } = parts.entrance;
  return onDemand(
    once(async () => (await import('./api.js')).serveApi(parts)),
    onFault,
  );
}

/** What is shown without a login, by its whole path. */
export function trustPagesOnDemand(options: TrustPagesOptions, onFault: OnFault): ReadonlyMap<string, Page> {
  const pages = once(async () => (await import('../ui/trust-pages.js')).createTrustPages(options));
  const paths = ['/ca.crt', '/ca.pem', '/trust'].flatMap(path => [path, `${options.prefix}${path}`]);
  const page = (path: string): Page => onDemand(async () => (await pages()).get(path)!, onFault);
  return new Map(paths.map(path => [path, page(path)]));
}

type Serve<Rest extends unknown[]> = (
  request: IncomingMessage,
  response: ServerResponse,
  ...rest: Rest
) => Promise<void>;

/** What cannot be loaded, since somebody is replacing the program's files say, is a fault of this one request. */
function onDemand<Rest extends unknown[]>(
  load: () => Promise<(...asked: Parameters<Serve<Rest>>) => MaybeLater<void>>,
  onFault: OnFault,
): Serve<Rest> {
  return async (request, response, ...rest) => {
    let serve: Awaited<ReturnType<typeof load>>;
    try {
      serve = await load();
    } catch (cause) {
      return answer(new RegistryError('UNAVAILABLE', { cause }), request, response, onFault);
    }
    return serve(request, response, ...rest);
  };
}

/** The same for all who ask, and anew for the next one where it has failed. */
function once<T>(load: () => Promise<T>): () => Promise<T> {
  let loading: Promise<T> | undefined;
  return () => {
    loading ??= load().catch(error => {
      loading = undefined;
      throw error;
    });
    return loading;
  };
}
