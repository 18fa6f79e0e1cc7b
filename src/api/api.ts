import type { IncomingMessage, ServerResponse } from 'node:http';
import type { z } from 'zod';
import { ANONYMOUS, type Identity } from '../auth/identity.js';
import type { Action } from '../auth/rights.js';
import { RegistryError } from '../errors.js';
import { answer, readSmallRest } from '../registry/answer.js';
import { smallBody } from '../registry/exchange.js';
import { type Entrance, type Registry, tellRefusal } from '../registry/registry.js';
import { isKnownMethod } from '../registry/routes.js';
import { parseStrictJson } from '../store/json.js';
import { refuseCrossSite } from './cross-site.js';
import { apiDocument } from './openapi.js';
import { type Call, type ChangeDetails, type Route, type Services, USUAL_BODY } from './route.js';
import { isForAnybody, matchApi, ROUTES, repositoriesIn } from './routes.js';

export interface ApiOptions extends Entrance {
  /** Told of each change; the answer waits for it. Of no secret. */
  readonly onChange?: (change: { readonly type: string } & ChangeDetails, request: IncomingMessage) => Promise<void>;
  readonly services: Services;
  /** Of this registry, as the operator has configured it; empty: that of the Host header. */
  readonly origin: string;
}

/** Nothing of an answer is for another site, for a cache, or to be taken for something else than it says. */
const HEADERS = {
  'Cache-Control': 'no-store',
  'X-Content-Type-Options': 'nosniff',
  'Cross-Origin-Resource-Policy': 'same-origin',
};

/** Deeper than any request of ours. */
const DEEPEST = 8;

/** The API of accounts, rights and repositories: who is asking, which route is it, may they, and only then the handler. */
export function createApi(options: ApiOptions): Registry {
  const document = { ...apiDocument(ROUTES, options.prefix) };
  return async (request, response, { onIdentity } = {}) => {
    for (const [name, value] of Object.entries(HEADERS)) response.setHeader(name, value);
    try {
      const { method = '', url = '' } = request;
      if (!isKnownMethod(method)) throw new RegistryError('UNSUPPORTED', { headers: { Allow: '' } });
      refuseCrossSite(request, options.origin);
      const at = url.indexOf('?');
      const path = at < 0 ? url : url.slice(0, at);
      const below = path.slice(options.prefix.length);
      const identity = isForAnybody(below) ? ANONYMOUS : await whoAsks(request, below, options);
      onIdentity?.(request, identity);
      const found = matchApi(method, below, { deletes: options.deletes, readOnly: options.readOnly() });
      if (!found) throw new RegistryError('UNSUPPORTED', { status: 404, message: 'no such endpoint' });
      const { route, name } = found;
      authorise(route, name, identity, request, options);
      const query = at < 0 ? '' : url.slice(at + 1);
      const call: Call = {
        request,
        identity,
        services: options.services,
        document,
        name,
        path,
        query: queryOf(route, new URLSearchParams(query)),
        body: await bodyOf(route, request),
      };
      const made = await route.handler(call);
      if (route.changes && made.what) await options.onChange?.({ type: route.changes, ...made.what }, request);
      await send(made, route, request, response);
    } catch (error) {
      tellRefusal(error, request, options);
      await readSmallRest(request);
      answer(error, request, response, options.onFault);
    }
  };
}

/** Who shows credentials is known by these, a browser without any by its session. @throws RegistryError as `options.authenticate` */
async function whoAsks(
  request: IncomingMessage,
  path: string,
  { authenticate, services }: ApiOptions,
): Promise<Identity> {
  const session =
    request.headers.authorization === undefined ? await services.oidc?.sessions.identify(request) : undefined;
  return session ?? authenticate(request, repositoriesIn(path));
}

/** @throws RegistryError as `options.refusal` */
function authorise(
  { access }: Route,
  name: string,
  identity: Identity,
  request: IncomingMessage,
  options: ApiOptions,
): void {
  const { authorise } = options.services;
  const refuse = (action: Action, scope = '') =>
    options.refusal(identity, request, action, { repository: scope === '' ? '' : name, scope });
  switch (access) {
    case 'anybody':
    case 'caller':
      return;
    case 'user':
      if (identity.kind !== 'user') throw refuse('login');
      if (identity.bounds) throw refuse('administer');
      return;
    case 'self':
      if (identity.kind === 'user' && identity.name === name && !identity.bounds) return;
      if (!authorise(identity, 'administer')) throw refuse('administer');
      return;
    case 'administrator':
      if (!authorise(identity, 'administer')) throw refuse('administer');
      return;
    default:
      if (!authorise(identity, access, name))
        throw refuse(access, `repository:${name}:${access === 'delete' ? 'pull,delete' : access}`);
  }
}

function queryOf({ query: schema }: Route, parameters: URLSearchParams): unknown {
  const names = [...parameters.keys()];
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) throw new RegistryError('INVALID', { message: `${quote(twice)} stands twice in the query` });
  const given = Object.fromEntries(parameters);
  if (schema) return valid(schema, given, 'the query');
  if (names.length > 0) throw new RegistryError('INVALID', { message: `${quote(names[0]!)} is not known here` });
  return given;
}

async function bodyOf(route: Route, request: IncomingMessage): Promise<unknown> {
  if (!route.body) return undefined;
  // A form, and whatever else a page may send without asking first, has another type.
  const [type = ''] = (request.headers['content-type'] ?? '').split(';');
  if (type.trim().toLowerCase() !== 'application/json')
    throw new RegistryError('INVALID', { status: 415, message: 'Content-Type must be application/json' });
  const data = await smallBody(request, route.largestBody ?? USUAL_BODY);
  let value: unknown;
  try {
    value = parseStrictJson(data, DEEPEST);
  } catch {
    // Without the parser's words, which quote what may be a password.
    throw new RegistryError('INVALID', { message: 'the body is no JSON that can be read in one way only' });
  }
  return valid(route.body, value, 'the body');
}

/** What the schema makes of it. @throws RegistryError INVALID that names the place, and quotes no value */
function valid(schema: z.ZodType, value: unknown, what: string): unknown {
  const { data, error } = schema.safeParse(value);
  if (!error) return data;
  const [issue] = error.issues;
  const place = issue!.path.length > 0 ? issue!.path.join('.').slice(0, 128) : what;
  const unknown = issue!.code === 'unrecognized_keys' ? `${quote(issue!.keys[0]!)} is not known here` : issue!.message;
  throw new RegistryError('INVALID', { message: `${place}: ${unknown}` });
}

const quote = (text: string): string => JSON.stringify(text.slice(0, 64));

async function send(
  { value, page, headers = {} }: Awaited<ReturnType<Route['handler']>>,
  { status }: Route,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  if (value === undefined && page === undefined) {
    response.writeHead(status, status === 204 ? headers : { 'Content-Length': 0, ...headers }).end();
    return;
  }
  const body = Buffer.from(page ?? JSON.stringify(value));
  const type = page === undefined ? 'application/json' : 'text/plain; charset=utf-8';
  response.writeHead(status, { 'Content-Type': type, 'Content-Length': body.length, ...headers });
  response.end(request.method === 'HEAD' ? undefined : body);
}
