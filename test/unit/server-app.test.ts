import assert from 'node:assert/strict';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { type TestContext, test } from 'node:test';
import { type AppOptions, createApp } from '../../src/server/app.js';
import type { Handler } from '../../src/server/listener.js';
import { AppRequest, AppResponse } from '../../src/server/messages.js';
import { say, serve, tcp, tls } from '../support/listener.js';

const NOTHING: AppOptions = {
  registry: () => undefined,
  api: () => undefined,
  prefix: '',
  headers: () => [],
  health: { healthy: true, status: 'ok' },
  pages: new Map(),
  onFault: () => undefined,
  onIdentity: () => undefined,
};

/** The head and body of each answer, in text. */
async function application(t: TestContext, health = { healthy: true, status: 'ok' }) {
  const app = createApp({
    ...NOTHING,
    registry: async (_request, response) => void response.end('the registry'),
    api: async (_request, response) => void response.end('the API'),
    prefix: '/images',
    headers: () => ['X-Frame-Options', 'DENY'],
    health,
  });
  const { port } = await serve(t, app, { plain: true });
  return async (method: string, target: string) =>
    say(await tcp(port), `${method} ${target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
}

test('what needs no login, and what is not served: JSON with the right status, never a page of the framework', async t => {
  const ask = await application(t);
  assert.match(await ask('GET', '/'), /^HTTP\/1\.1 200 [\s\S]*X-Frame-Options: DENY\r\n[\s\S]*docker login/);
  assert.match(await ask('HEAD', '/healthz'), /^HTTP\/1\.1 200 [\s\S]*\r\n\r\n$/);
  assert.match(await ask('GET', '/images/v2/'), /the registry$/);
  assert.match(await ask('GET', '/images/api/v1/whoami'), /the API$/);
  for (const target of ['/v2/', '/HEALTHZ', '/healthz/', '/images', '//', '/%', '/%zz', '/[', '//a@b#', '//a@[#'])
    for (const method of ['GET', 'POST'])
      assert.match(await ask(method, target), /^HTTP\/1\.1 404 [\s\S]*"code":"UNSUPPORTED"/, target);
  for (const target of ['/', '/healthz?x'])
    assert.match(await ask('PUT', target), /^HTTP\/1\.1 405 [\s\S]*\r\nAllow: GET, HEAD\r\n/, target);
  assert.match(await ask('PROPFIND', '/elsewhere'), /^HTTP\/1\.1 405 [\s\S]*\r\nAllow: \r\n/);
});

test('requests and answers are of one kind from the start, whatever carries them: none gets another prototype on its way', async t => {
  const kinds: unknown[] = [];
  const look = (request: IncomingMessage, response: ServerResponse) =>
    kinds.push(Object.getPrototypeOf(request), Object.getPrototypeOf(response));
  const app = createApp({
    ...NOTHING,
    registry: async (request, response) => {
      look(request, response);
      response.end();
    },
  });
  const handler: Handler = (request, response) => {
    look(request, response);
    app(request, response);
  };
  const [plain, secure] = [await serve(t, handler, { plain: true }), await serve(t, handler)];
  for (const connect of [() => tcp(plain.port), () => tls(secure.port)])
    for (const head of ['GET /v2/', 'POST /v2/', 'POST /v2/ HTTP/1.1\r\nExpect: 100-continue']) {
      const [line, expect = ''] = head.split(' HTTP/1.1\r\n');
      const lines = [`${line} HTTP/1.1`, 'Host: x', 'Content-Length: 0', 'Connection: close', expect];
      await say(await connect(), `${lines.filter(Boolean).join('\r\n')}\r\n\r\n`);
    }
  const kind = [AppRequest.prototype, AppResponse.prototype];
  assert.equal(kinds.length, 24);
  for (const [at, met] of kinds.entries()) assert.ok(met === kind[at % 2], `the ${at + 1}th`);
});

test('what a way of carrying a request did not foresee ends its connection, and is told of once', async t => {
  const faults: unknown[] = [];
  const registry = async () => {
    throw new Error('unforeseen');
  };
  const onFault = (error: unknown) => faults.push((error as Error).message);
  const { port } = await serve(t, createApp({ ...NOTHING, registry, onFault }), { plain: true });
  for (const [at, method] of ['GET', 'POST'].entries()) {
    const answer = await say(await tcp(port), `${method} /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n`);
    assert.equal(answer, '');
    assert.deepEqual(faults, ['unforeseen', 'unforeseen'].slice(0, at + 1));
  }
});

test('a page that throws ends its connection and is told of, and shows nobody a trace', async t => {
  const faults: unknown[] = [];
  const app = createApp({
    ...NOTHING,
    pages: new Map([
      [
        '/trust',
        () => {
          throw new Error('unforeseen');
        },
      ],
    ]),
    onFault: error => faults.push((error as Error).message),
  });
  const { port } = await serve(t, app, { plain: true });
  const answer = await say(await tcp(port), 'GET /trust HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
  assert.equal(answer, '');
  assert.deepEqual(faults, ['unforeseen']);
});

test('a storage that does not answer makes it unhealthy, one that is full does not', async t => {
  const dead = await application(t, { healthy: false, status: 'the storage does not answer' });
  assert.match(await dead('GET', '/healthz'), /^HTTP\/1\.1 503 [\s\S]*\{"status":"the storage does not answer"\}$/);
  const full = await application(t, { healthy: true, status: 'ok, but the storage is full' });
  assert.match(await full('GET', '/healthz'), /^HTTP\/1\.1 200 [\s\S]*\{"status":"ok, but the storage is full"\}$/);
});
