import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Express, Request, Response } from 'express';
import { isApiPath } from '../api/root.js';
import type { Identity } from '../auth/identity.js';
import { RegistryError } from '../errors.js';
import type { Registry } from '../registry/registry.js';
import { isKnownMethod, isRegistryPath } from '../registry/routes.js';
import type { Page } from '../ui/trust-pages.js';
import type { Health } from './health.js';
import type { Handler } from './listener.js';
import { expressOfMessages } from './messages.js';

export interface AppOptions {
  readonly registry: Registry;
  /** What answers below `/api/v1`. */
  readonly api: Registry;
  /** What stands before the registry's paths: empty, or a path without a slash at its end. */
  readonly prefix: string;
  /** Names and values by turns: what the answer to a request carries, whatever it is. */
  readonly headers: (request: IncomingMessage) => readonly string[];
  readonly health: Health;
  /** What is shown without a login, by its whole path. */
  readonly pages: ReadonlyMap<string, Page>;
  readonly onIdentity: (request: IncomingMessage, identity: Identity) => void;
  /** Told of what nobody foresaw: the connection ends, and nothing else does. */
  readonly onFault: (error: unknown, request: IncomingMessage) => void;
  /** Whether pulls go by way of the framework as all else does: it makes no difference but in time. */
  readonly everythingByFramework?: boolean;
}

/**
 * The application: the registry, and beside it what needs no login. Express carries it, but for requests that only read
 * from the registry: they have nothing of it, and are nearly all there are (docs/decisions/0023).
 */
export function createApp(options: AppOptions): Handler {
  const { registry, prefix, headers, onIdentity, onFault, everythingByFramework = false } = options;
  const carry = (request: IncomingMessage, response: ServerResponse) =>
    registry(request, response, {
      headers: headers(request),
      onIdentity,
    });
  const framework = createFramework(options, carry);
  const fault = (request: IncomingMessage, response: ServerResponse) => (error: unknown) => {
    onFault(error, request);
    response.destroy();
  };
  return (request, response) => {
    if (!everythingByFramework && isRead(request) && below(request, prefix).startsWith('/v2/'))
      carry(request, response)?.catch(fault(request, response));
    else
      framework(request as Request, response as Response, error => {
        // Without one where it finds no path in a target, such as `//a@b#`.
        if (error === undefined || error === null) notFound(response);
        else fault(request, response)(error);
      });
  };
}

function createFramework({ api, prefix, headers, health, pages, onIdentity }: AppOptions, registry: Handler): Express {
  const app = expressOfMessages();
  app.disable('x-powered-by').disable('etag').enable('case sensitive routing').enable('strict routing');
  app.use((request, response, next) => {
    const path = below(request, prefix);
    const isPing = path === '/v1/_ping' && isRead(request);
    if (isRegistryPath(path) && !isPing) return registry(request, response);
    const carried = headers(request);
    for (let at = 0; at < carried.length; at += 2) response.appendHeader(carried[at]!, carried[at + 1]!);
    if (isPing) return ping(response);
    const page = isRead(request) ? pages.get(request.path) : undefined;
    if (page) return page(request, response);
    if (!isApiPath(path)) return next();
    return api(request, response, { onIdentity });
  });
  app.get('/', (_request, response) => {
    text(
      response,
      200,
      'This is a container registry. How clients trust it: /trust. Log in: docker login HOST. Its API is at /v2/.\n',
    );
  });
  app.get('/healthz', (_request, response) => {
    const { healthy, status } = health;
    json(response, healthy ? 200 : 503, { status });
  });
  app.use((request, response) => {
    const served = request.path === '/' || request.path === '/healthz' || pages.has(request.path);
    if (!served && isKnownMethod(request.method)) return notFound(response);
    response.setHeader('Allow', served ? 'GET, HEAD' : '');
    json(response, 405, new RegistryError('UNSUPPORTED'));
  });
  return app;
}

/** The raw target without what stands before all of ours: nothing has decoded or collapsed it. */
function below({ url = '' }: IncomingMessage, prefix: string): string {
  return url.startsWith(prefix) ? url.slice(prefix.length) : '';
}

function isRead({ method }: IncomingMessage): boolean {
  return method === 'GET' || method === 'HEAD';
}

/** What docker asks before it searches, without credentials. With this answer it sends those that it has. */
function ping(response: ServerResponse): void {
  response.setHeader('X-Docker-Registry-Standalone', 'true');
  json(response, 200, true);
}

function notFound(response: ServerResponse): void {
  json(response, 404, new RegistryError('UNSUPPORTED', { message: 'no such endpoint' }));
}

// Not by Express's own `send`, which adds a charset and an ETag.
function json(response: ServerResponse, status: number, value: unknown): void {
  const body = Buffer.from(JSON.stringify(value));
  response.writeHead(status, { 'Content-Type': 'application/json', 'Content-Length': body.length }).end(body);
}

function text(response: ServerResponse, status: number, value: string): void {
  const body = Buffer.from(value);
  const headers = { 'Content-Type': 'text/plain; charset=utf-8', 'Content-Length': body.length };
  response.writeHead(status, headers).end(body);
}
