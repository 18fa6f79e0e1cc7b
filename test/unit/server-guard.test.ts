import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { describe, type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { allowPause } from '../../src/server/guard.js';
import { all, say, serve, tcp, tls, until } from '../support/listener.js';

const PATIENT = { handshake: 60_000, headers: 60_000, keepAlive: 60_000, longPause: 60_000 };
const GENEROUS = { ...PATIENT, look: 50, pause: 400, linger: 400 };
const MIB = 1024 * 1024;

const swallow = (request: IncomingMessage, response: ServerResponse) => {
  request.on('end', () => response.end('swallowed')).on('error', () => {});
  request.resume();
};

/** What each of 1,000 clients is told that begin a request and say no more. */
function halfRequests(port: number): Array<Promise<string>> {
  return Array.from({ length: 1_000 }, async () => say(await tcp(port), 'POST / HTTP/1.1\r\nHost: x\r\nA: '));
}

test('beside 1,000 half requests another client is served', async t => {
  const { port, listener } = await serve(t, swallow, { limits: GENEROUS, plain: true });
  const ends = halfRequests(port);
  while (listener.connections < 1_000) await sleep(5);
  assert.match(await say(await tcp(port), 'GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'), /swallowed$/);
  await listener.drain(0);
  await Promise.all(ends);
});

test('1,000 half requests are dropped', async t => {
  const { port, listener } = await serve(t, swallow, { limits: { ...GENEROUS, headers: 2_000 }, plain: true });
  for (const end of await Promise.all(halfRequests(port))) assert.match(end, /^HTTP\/1\.1 408 /);
  while (listener.connections > 0) await sleep(5);
});

// They wait for the most part, so they wait together.
describe('clients that stall', { concurrency: true }, () => {
  test('silence in the handshake, before the headers, within them and after an answer ends a connection', async t => {
    // Each with one limit that is short: a busy machine meets no other.
    const [shaking, asking, keeping] = [
      await serve(t, swallow, { limits: { ...GENEROUS, handshake: 300 } }),
      await serve(t, swallow, { limits: { ...GENEROUS, headers: 300 } }),
      await serve(t, swallow, { limits: { ...GENEROUS, keepAlive: 300 } }),
    ];
    const [atTcp, atTls, inHeaders, afterwards] = await Promise.all([
      tcp(shaking.port).then(all),
      tls(asking.port).then(all),
      tls(asking.port).then(half => say(half, 'GET / HTTP/1.1\r\nHost: x')),
      tls(keeping.port).then(kept => say(kept, 'GET / HTTP/1.1\r\nHost: x\r\n\r\n')),
    ]);
    assert.equal(atTcp, '');
    assert.match(atTls!, /^HTTP\/1\.1 408 /);
    assert.match(inHeaders!, /^HTTP\/1\.1 408 [\s\S]*\r\nConnection: close\r\n[\s\S]*did not arrive in time/);
    assert.match(afterwards!, /^HTTP\/1\.1 200 [\s\S]*swallowed$/);
    for (const { listener, lines } of [shaking, asking, keeping]) {
      while (listener.connections > 0) await sleep(5);
      assert.equal(lines.filter(line => line.level === 'error').length, 0);
    }
  });

  test('200 stalled bodies are dropped, and a handler that reads one is told', async t => {
    let told = 0;
    const { port, listener, lines } = await serve(
      t,
      (request, response) => {
        request.on('error', () => told++);
        swallow(request, response);
      },
      { limits: GENEROUS },
    );
    const stalled = await Promise.all(Array.from({ length: 200 }, () => tls(port)));
    const ends = stalled.map((socket, index) => {
      const body = index % 2 ? 'Content-Length: 10\r\n\r\nabc' : 'Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n';
      return say(socket, `PUT / HTTP/1.1\r\nHost: x\r\n${body}`);
    });
    for (const end of await Promise.all(ends)) assert.doesNotMatch(end, /^HTTP/);
    while (told < 200 || listener.connections > 0) await sleep(5);
    assert.equal(lines.filter(line => line.fields?.reason === 'it stalled').length, 200);
  });

  test('a body that keeps to the minimum rate is not cut, one that falls short of it is', async t => {
    const { port } = await serve(t, swallow, { limits: { ...GENEROUS, minimumRate: 1_000 } });
    const send = async (socket: Awaited<ReturnType<typeof tls>>, size: number, pieces: number) => {
      const end = all(socket);
      socket.write('PUT / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n');
      for (let sent = 0; sent < pieces && !socket.destroyed; sent++) {
        socket.write(`${size.toString(16)}\r\n${'x'.repeat(size)}\r\n`);
        await sleep(50);
      }
      if (!socket.destroyed) socket.write('0\r\n\r\n');
      return end;
    };
    const [moving, crawling] = await Promise.all([send(await tls(port), 500, 20), send(await tls(port), 1, 2_000)]);
    assert.match(moving!, /swallowed$/);
    assert.doesNotMatch(crawling!, /swallowed/);
  });

  test('a client that has authenticated may pause longer, and one that waits for us owes nothing', async t => {
    const { port } = await serve(
      t,
      async (request, response) => {
        if (request.url === '/authenticated') allowPause(request);
        if (request.url === '/slow' || request.headers.expect) await sleep(800);
        swallow(request, response);
      },
      { limits: GENEROUS },
    );
    const head = (path: string, more = '') =>
      `PUT ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n${more}Content-Length: 3\r\n\r\n`;
    const authenticated = async () => {
      const socket = await tls(port);
      socket.write(head('/authenticated'));
      await sleep(800);
      return say(socket, 'abc');
    };
    const expecting = async () => {
      const socket = await tls(port);
      socket.write(head('/', 'Expect: 100-continue\r\n'));
      await until(socket, '100 Continue');
      return say(socket, 'abc');
    };
    const served = [authenticated(), expecting(), say(await tls(port), `${head('/slow')}abc`)];
    for (const answer of await Promise.all(served)) assert.match(answer, /swallowed$/);
  });

  test('a client that does not take its answer is dropped, one that takes it slowly is not', async t => {
    const total = 24 * MIB;
    const chunk = Buffer.alloc(MIB, 'x');
    let aborted = 0;
    const { port, listener } = await serve(
      t,
      (_request, response) => {
        response.writeHead(200, { 'Content-Length': total });
        let left = total / MIB;
        const more = () => {
          while (left > 0) {
            left--;
            if (!response.write(chunk)) return response.once('drain', more);
          }
          return response.end();
        };
        response.on('close', () => {
          if (!response.writableFinished) aborted++;
        });
        more();
      },
      { limits: { ...GENEROUS, pause: 1_000 } },
    );
    const request = async (t: TestContext) => {
      const socket = await tls(port);
      t.after(() => socket.destroy());
      socket.pause();
      socket.write('GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
      return socket;
    };
    const [stalled, slow] = await Promise.all([request(t), request(t)]);
    let taken = 0;
    // 128 KiB every 10 ms: two seconds for all of it, twice the pause that is allowed.
    while (taken < total) {
      const data = slow.read(128 * 1024) ?? slow.read();
      if (data === null) {
        if (slow.readableEnded) break;
        await Promise.race([once(slow, 'readable'), once(slow, 'end')]);
      } else taken += data.length;
      await sleep(10);
    }
    assert.ok(taken >= total, `${taken} of ${total} bytes came`);
    while (aborted === 0 || listener.connections > 0) await sleep(5);
    assert.equal(aborted, 1);
    stalled.on('error', () => {});
  });

  test('a body that nobody wants is read away for a while, then the connection is ended', async t => {
    const { port } = await serve(t, (_request, response) => response.writeHead(404, { 'Content-Length': 0 }).end(), {
      limits: { ...GENEROUS, pause: 60_000 },
    });
    const socket = await tls(port);
    socket.on('error', () => {});
    socket.write('PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n');
    await until(socket, '404');
    const closed = new Promise(resolve => socket.once('close', resolve));
    const feed = setInterval(() => socket.write(`400\r\n${'x'.repeat(1024)}\r\n`), 5);
    t.after(() => clearInterval(feed));
    await closed;
  });

  test('of a large body that nobody wants only a part is read away', async t => {
    const { port } = await serve(t, (_request, response) => response.writeHead(413, { 'Content-Length': 0 }).end(), {
      limits: { ...GENEROUS, pause: 60_000, linger: 60_000, lingerBytes: 2 * MIB },
    });
    const socket = await tls(port);
    socket.on('error', () => {});
    const closed = new Promise(resolve => socket.once('close', resolve));
    socket.write('PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n');
    await until(socket, '413');
    const chunk = Buffer.from(`10000\r\n${'x'.repeat(65_536)}\r\n`);
    let sent = 0;
    for (; sent < 64 * MIB && !socket.destroyed; sent += 65_536)
      if (!socket.write(chunk)) await Promise.race([new Promise(resolve => socket.once('drain', resolve)), closed]);
    await closed;
    assert.ok(sent < 32 * MIB, `${sent / MIB} MiB were taken`);
  });
});
