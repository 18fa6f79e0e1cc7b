import type { IncomingMessage, ServerResponse } from 'node:http';
import express, { type Express } from 'express';
import { isApiPath } from '../api/root.js';
import type { Identity } from '../auth/identity.js';
import { RegistryError } from '../errors.js';
import type { Registry } from '../registry/registry.js';
import { isKnownMethod, isRegistryPath } from '../registry/routes.js';
import type { Page } from '../ui/trust-pages.js';
import type { Health } from './health.js';

export interface AppOptions {
  readonly registry: Registry;
  /** What answers below `/api/v1`. */
  readonly api: Registry;
  /** What stands before the registry's paths: empty, or a path without a slash at its end. */
  readonly prefix: string;
  /** Sent with every response (`http.headers`). */
  readonly headers: Readonly<Record<string, readonly string[]>>;
  readonly health: Health;
  /** What is shown without a login, by its whole path. */
  readonly pages: ReadonlyMap<string, Page>;
  readonly onIdentity: (request: IncomingMessage, identity: Identity) => void;
}

/** The application: the registry, and beside it what needs no login. */
export function createApp({ registry, api, prefix, headers, health, pages, onIdentity }: AppOptions): Express {
  const app = express();
  app.disable('x-powered-by').disable('etag').enable('case sensitive routing').enable('strict routing');
  app.use((request, response, next) => {
    for (const [name, values] of Object.entries(headers)) response.setHeader(name, [...values]);
    // The raw target: nothing has decoded or collapsed it.
    const path = request.url.startsWith(prefix) ? request.url.slice(prefix.length) : '';
    if (path === '/v1/_ping' && /^(GET|HEAD)$/.test(request.method)) return ping(response);
    const page = /^(GET|HEAD)$/.test(request.method) ? pages.get(request.path) : undefined;
    if (page) return page(request, response);
    const served = isRegistryPath(path) ? registry : isApiPath(path) ? api : undefined;
    if (!served) return next();
    return served(request, response, identity => onIdentity(request, identity));
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
    if (!served && isKnownMethod(request.method))
      return json(response, 404, new RegistryError('UNSUPPORTED', { message: 'no such endpoint' }));
    response.setHeader('Allow', served ? 'GET, HEAD' : '');
    json(response, 405, new RegistryError('UNSUPPORTED'));
  });
  return app;
}

/** What docker asks before it searches, without credentials. With this answer it sends those that it has. */
function ping(response: ServerResponse): void {
  response.setHeader('X-Docker-Registry-Standalone', 'true');
  json(response, 200, true);
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
