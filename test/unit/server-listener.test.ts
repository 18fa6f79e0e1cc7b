import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { Agent, get, request as httpsRequest } from 'node:https';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { connect } from 'node:tls';
import { OperatorError } from '../../src/errors.js';
import { createListener, listenError } from '../../src/server/listener.js';
import { all, memoryLog, PAIR, say, serve, tcp, tls, until } from '../support/listener.js';
import { selfSigned } from '../support/pair.js';

const echo = (request: IncomingMessage, response: ServerResponse) => {
  const { method, url, headers } = request;
  response.end(JSON.stringify({ method, url, host: headers.host }));
};

/** Reads the whole body, then answers with its length. */
const swallow = (request: IncomingMessage, response: ServerResponse) => {
  let length = 0;
  request.on('data', chunk => {
    length += chunk.length;
  });
  request.on('end', () => response.end(String(length)));
  request.on('error', () => {});
};

/** Status and body of one request over a connection of its own. */
function fetchOnce(
  port: number,
  path = '/',
  ca = PAIR.certificate,
): Promise<{ status: number; body: string; serial: string }> {
  return new Promise((resolve, reject) => {
    const request = get({ port, path, host: '127.0.0.1', ca, agent: false }, response => {
      const serial = (response.socket as import('node:tls').TLSSocket).getPeerCertificate().serialNumber;
      let body = '';
      response.on('data', chunk => {
        body += chunk;
      });
      response.on('end', () => resolve({ status: response.statusCode!, body, serial }));
    });
    request.on('error', reject);
  });
}

test('TLS: versions, suites, ALPN and tickets', async t => {
  const { port } = await serve(t, echo);
  const attempt = (options: object) =>
    new Promise<string>(resolve => {
      const socket = connect({ port, host: '127.0.0.1', ca: PAIR.certificate, ...options });
      socket.on('secureConnect', () => {
        resolve(`${socket.getProtocol()} ${socket.getCipher().name} ${socket.alpnProtocol}`);
        socket.destroy();
      });
      socket.on('error', (error: NodeJS.ErrnoException) => resolve(error.code!));
    });
  assert.equal(await attempt({}), 'TLSv1.3 TLS_AES_128_GCM_SHA256 false');
  assert.equal(await attempt({ ALPNProtocols: ['h2', 'http/1.1'] }), 'TLSv1.3 TLS_AES_128_GCM_SHA256 http/1.1');
  assert.equal(await attempt({ maxVersion: 'TLSv1.2' }), 'TLSv1.2 ECDHE-ECDSA-AES128-GCM-SHA256 false');
  assert.equal(await attempt({ ecdhCurve: 'P-256' }), 'TLSv1.3 TLS_AES_128_GCM_SHA256 false');
  for (const refused of [
    { ALPNProtocols: ['h2'] },
    { minVersion: 'TLSv1.1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' },
    { maxVersion: 'TLSv1.2', ciphers: 'ECDHE-ECDSA-AES128-SHA256' },
    { maxVersion: 'TLSv1.2', ciphers: 'AES128-GCM-SHA256' },
  ])
    assert.match(await attempt(refused), /^ERR_SSL_.*ALERT/, JSON.stringify(refused));

  for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
    const socket = connect({ port, host: '127.0.0.1', ca: PAIR.certificate, maxVersion });
    const sessions: Buffer[] = [];
    socket.on('session', session => sessions.push(session));
    socket.write('GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
    await all(socket);
    assert.ok(!socket.getTLSTicket());
    const again = connect({ port, host: '127.0.0.1', ca: PAIR.certificate, maxVersion, session: sessions[0] });
    await once(again, 'secureConnect');
    assert.equal(again.isSessionReused(), false);
    again.destroy();
  }
});

test('a certificate and key that cannot serve are named', () => {
  const make = (certificate: string, key: string) => () =>
    createListener({ handler: echo, tls: { certificate, key, minimumVersion: 'tls1.2' }, log: memoryLog([]) });
  const says = (text: RegExp) => (error: unknown) => error instanceof OperatorError && text.test(error.message);
  assert.throws(make(PAIR.certificate, selfSigned().key), says(/does not belong/));
  assert.throws(make(PAIR.certificate, ''), says(/private key is not readable PEM/));
  assert.throws(make(PAIR.certificate.slice(0, 300), PAIR.key), says(/certificate is not readable PEM/));
  assert.throws(make('', PAIR.key), says(/certificate is not readable PEM/));
});

test('plain HTTP on the TLS port is told to use https', async t => {
  const { port, lines } = await serve(t, echo);
  for (const text of ['GET / HTTP/1.1\r\nHost: x\r\n\r\n', 'CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n']) {
    const answer = await say(await tcp(port), text);
    assert.match(answer, /^HTTP\/1\.1 400 Bad Request\r\n[\s\S]*Use https:\/\//);
  }
  assert.equal(lines.filter(line => line.level === 'info' && /plain HTTP/.test(line.message)).length, 2);
  assert.equal(lines[0]!.fields!.remote, '127.0.0.1');
  // Anything else is closed without a word, and nothing of it harms the next client.
  assert.equal(
    await say(await tcp(port), '\x16\x03\x01\x00\x05nonsense'.repeat(10)).then(text => text.includes('HTTP')),
    false,
  );
  assert.equal((await fetchOnce(port)).status, 200);
});

test('malformed requests are answered in JSON, and the connection closed', async t => {
  const { port, lines } = await serve(t, swallow);
  const host = 'Host: x\r\n';
  const cases: Array<[string, number]> = [
    [`GET / HTTP/1.1\r\n${host}Host: y\r\n\r\n`, 400],
    ['GET / HTTP/1.1\r\n\r\n', 400],
    [`GET / HTTP/1.1\r\n${host}Authorization: Basic YQ==\r\nAuthorization: Basic Yg==\r\n\r\n`, 400],
    [`POST / HTTP/1.1\r\n${host}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`, 400],
    [`POST / HTTP/1.1\r\n${host}Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n`, 400],
    [`POST / HTTP/1.1\r\n${host}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd`, 400],
    [`POST / HTTP/1.1\r\n${host}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n`, 400],
    [`POST / HTTP/1.1\r\n${host}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`, 400],
    [`POST / HTTP/1.1\r\n${host}Transfer-Encoding: identity\r\n\r\n`, 400],
    [`POST / HTTP/1.0\r\n${host}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n`, 400],
    [`POST / HTTP/1.1\r\n${host}Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n`, 400],
    [`GET / HTTP/1.1\r\n${host}A: b\r\n c\r\n\r\n`, 400],
    [`GET / HTTP/1.1\n${host}\n`, 400],
    [`GET / HTTP/3.1\r\n${host}\r\n`, 400],
    [`GET /\xff HTTP/1.1\r\n${host}\r\n`, 400],
    [`GET http://user@x/ HTTP/1.1\r\n${host}\r\n`, 400],
    ['PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 400],
    [`FROB / HTTP/1.1\r\n${host}\r\n`, 405],
    [`get / HTTP/1.1\r\n${host}\r\n`, 405],
    ['\0\0\0\0\r\n\r\n', 405],
    [`CONNECT x:443 HTTP/1.1\r\n${host}\r\n`, 405],
    [`GET / HTTP/1.1\r\n${host}A: ${'b'.repeat(16_384)}\r\n\r\n`, 431],
    [`GET /${'b'.repeat(16_384)} HTTP/1.1\r\n${host}\r\n`, 431],
    [`GET / HTTP/1.1\r\n${host}${'a:b\r\n'.repeat(3_000)}\r\n`, 431],
    [`GET / HTTP/1.1\r\n${host}${'a:\r\n'.repeat(200)}\r\n`, 431],
  ];
  for (const [text, status] of cases) {
    const answer = await say(await tls(port), text);
    const name = JSON.stringify(text.slice(0, 100));
    assert.ok(answer.startsWith(`HTTP/1.1 ${status} `), `${name}: ${answer.slice(0, 200)}`);
    assert.match(answer, /\r\nConnection: close\r\n/, name);
    const body = answer.slice(answer.indexOf('\r\n\r\n') + 4).replace(/^[0-9a-f]+\r\n|\r\n0\r\n\r\n$/g, '');
    assert.deepEqual(JSON.parse(body).errors[0].code, 'UNSUPPORTED', name);
  }
  assert.ok(lines.length >= cases.length - 1);
  assert.equal((await fetchOnce(port)).body, '0');
});

test('a refusal reaches a client that goes on sending', async t => {
  const { port } = await serve(t, echo);
  const answer = await say(await tls(port), `GET / HTTP/1.1\r\nA: ${'b'.repeat(4_000_000)}\r\n\r\n`);
  assert.match(answer, /^HTTP\/1\.1 431 /);
});

test('a target in absolute form is brought into origin form, and its authority replaces Host', async t => {
  const { port } = await serve(t, echo);
  const target = async (target: string) => {
    const answer = await say(await tls(port), `GET ${target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
    return JSON.parse(answer.slice(answer.indexOf('\r\n\r\n') + 4));
  };
  assert.deepEqual(await target('https://reg:5000/v2/?a=b'), { method: 'GET', url: '/v2/?a=b', host: 'reg:5000' });
  assert.deepEqual(await target('HTTP://reg'), { method: 'GET', url: '/', host: 'reg' });
  assert.deepEqual(await target('http://reg?x'), { method: 'GET', url: '/?x', host: 'reg' });
  assert.deepEqual(await target('/https://reg/%2e%2e/..//x'), {
    method: 'GET',
    url: '/https://reg/%2e%2e/..//x',
    host: 'x',
  });
  for (const odd of ['ftp://', 'ftp://reg/v2/', 'a://b'])
    assert.match(
      await say(await tls(port), `OPTIONS ${odd} HTTP/1.1\r\nHost: x\r\n\r\n`),
      /^HTTP\/1\.1 400 [\s\S]*neither a path nor a URL/,
      odd,
    );
});

test('resets at any moment harm nobody', async t => {
  const { port, listener } = await serve(t, swallow);
  const beginnings = [
    '',
    'G',
    'GET / HTTP/1.1\r\nHost: x\r\n',
    'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc',
    'CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n',
    'FROB\r\n',
  ];
  for (const text of beginnings) {
    const raw = await tcp(port);
    raw.write(text);
    raw.resetAndDestroy();
    const socket = await tls(port);
    socket.write(text);
    socket.on('error', () => {});
    (socket as unknown as { _parent: import('node:net').Socket })._parent?.resetAndDestroy();
    socket.destroy();
  }
  assert.equal((await fetchOnce(port)).body, '0');
  while (listener.connections > 0) await new Promise(setImmediate);
});

test('an upgrade is ignored', async t => {
  const { port } = await serve(t, echo);
  const answer = await say(
    await tls(port),
    'GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n\r\n',
  );
  assert.match(answer, /^HTTP\/1\.1 200 /);
});

test('an expectation of another kind is a request like any other, and ends as one', async t => {
  const { port, lines } = await serve(t, (_request, response) => void response.writeHead(401).end(), {
    limits: { linger: 50, look: 10 },
  });
  const answer = await say(
    await tls(port),
    'POST / HTTP/1.1\r\nHost: x\r\nExpect: the-unexpected\r\nContent-Length: 1000000000\r\n\r\n',
  );
  assert.match(answer, /^HTTP\/1\.1 401 /);
  assert.deepEqual(
    lines.map(({ fields }) => fields?.reason),
    ['it was answered and did not leave'],
  );
});

test('100 Continue is sent when the body is read, and not where the answer comes first', async t => {
  const order: string[] = [];
  const { port } = await serve(t, async (request, response) => {
    if (request.url === '/denied') {
      response.writeHead(401, { 'Content-Length': 0 }).end();
      return;
    }
    await new Promise(setImmediate);
    order.push('reading');
    let body = '';
    for await (const chunk of request) body += chunk;
    response.end(body);
  });
  const head = (path: string) => `PUT ${path} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n`;
  const denied = await say(await tls(port), head('/denied'));
  assert.match(denied, /^HTTP\/1\.1 401 [\s\S]*\r\nConnection: close\r\n/);
  assert.equal(denied.includes('100 Continue'), false);

  const socket = await tls(port);
  socket.write(head('/'));
  assert.match(await until(socket, '\r\n\r\n'), /^HTTP\/1\.1 100 Continue\r\n\r\n$/);
  assert.deepEqual(order, ['reading']);
  socket.write('hello');
  assert.match(await until(socket, 'hello'), /^HTTP\/1\.1 200 [\s\S]*Connection: keep-alive/);
  // The connection serves on.
  socket.write('GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
  assert.match(await all(socket), /^HTTP\/1\.1 200 /);
});

test('an answer before the end of the body reaches the client, whether or not the connection stays', async t => {
  const { port } = await serve(t, (request, response) => {
    request.once('data', () => {
      request.pause();
      response.writeHead(403, { 'Content-Length': 6 }).end('denied');
    });
    request.on('error', () => {});
  });
  for (const connection of ['close', 'keep-alive']) {
    const socket = await tls(port);
    const length = 8_000_000;
    socket.write(`PUT / HTTP/1.1\r\nHost: x\r\nConnection: ${connection}\r\nContent-Length: ${length}\r\n\r\n`);
    const written = new Promise(resolve => socket.write('x'.repeat(length), resolve));
    assert.match(await until(socket, 'denied'), /^HTTP\/1\.1 403 /);
    await written;
    if (connection === 'keep-alive') {
      socket.write('PUT / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx');
      assert.match(await all(socket), /^HTTP\/1\.1 403 /);
    }
    socket.destroy();
  }
});

test('a client that has the whole answer may send its next request before the handler ends it', async t => {
  const { port } = await serve(t, async (request, response) => {
    const elsewhere = () => new Promise(resolve => setTimeout(resolve, 20));
    if (request.method === 'GET') {
      response.writeHead(200, { 'Content-Length': 2 }).write('ok');
      await elsewhere();
      return void response.end();
    }
    await elsewhere();
    await elsewhere();
    swallow(request, response);
  });
  const socket = await tls(port);
  socket.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
  await until(socket, '\r\n\r\nok');
  socket.write('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n');
  socket.write(Buffer.alloc(100_000));
  assert.match(await until(socket, '\r\n\r\n100000'), /^HTTP\/1.1 200 /);
  socket.destroy();
});

test('a port in use, an address that is not here: what and how to mend it', async t => {
  const other = createServer().listen(0, '127.0.0.1');
  await once(other, 'listening');
  t.after(() => other.close());
  const { port } = other.address() as import('node:net').AddressInfo;
  const listen = (host: string, port: number) =>
    createListener({ handler: echo, tls: 'plain', log: memoryLog([]) }).listen({ host, port });
  const rejects = (listening: Promise<unknown>, message: RegExp, fix: RegExp) =>
    assert.rejects(
      listening,
      error => error instanceof OperatorError && message.test(error.message) && fix.test(error.fix!),
    );
  await rejects(listen('127.0.0.1', port), new RegExp(`port ${port} is in use`), /--addr/);
  await rejects(listen('203.0.113.7', 0), /no address 203\.0\.113\.7/, /0\.0\.0\.0/);
  await rejects(listen('fe80::1', 0), /^cannot listen on \[fe80::1\]:0 \(E[A-Z]+\)$/, /0\.0\.0\.0/);
  await rejects(listen('no-such-name.invalid', 0), /no-such-name\.invalid has no address/, /0\.0\.0\.0/);
});

test('what to do about a port depends on the port and the system', () => {
  const advice = (code: string, port: number, platform: NodeJS.Platform) => {
    const error = listenError(Object.assign(new Error(code), { code }), '0.0.0.0', port, platform);
    assert.ok(error instanceof OperatorError);
    return `${error.message}; ${error.fix}`;
  };
  assert.match(
    advice('EADDRINUSE', 5000, 'darwin'),
    /^port 5000 is in use .*AirPlay Receiver.*--addr 0\.0\.0\.0:5001$/,
  );
  assert.match(advice('EADDRINUSE', 5001, 'darwin'), /lsof -nP -iTCP:5001/);
  assert.match(advice('EADDRINUSE', 5000, 'linux'), /ss -ltnp 'sport = :5000'/);
  assert.match(advice('EADDRINUSE', 65_535, 'linux'), /--addr 0\.0\.0\.0:5000$/);
  assert.match(advice('EACCES', 443, 'linux'), /below 1024.*--addr 0\.0\.0\.0:5000.*setcap cap_net_bind_service/);
  assert.match(advice('EODD', 1, 'linux'), /^cannot listen on 0\.0\.0\.0:1 \(EODD\)/);
  const mistake = new TypeError('of this program');
  assert.equal(listenError(mistake, '0.0.0.0', 1, 'linux'), mistake);
});

test('plain HTTP, where it was asked for', async t => {
  const { port } = await serve(t, echo, { plain: true });
  const answer = await say(await tcp(port), 'GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
  assert.match(answer, /^HTTP\/1\.1 200 [\s\S]*"url":"\/a"/);
  assert.match(await say(await tcp(port), 'FROB\r\n\r\n'), /^HTTP\/1\.1 405 /);
});

test('drain lets a running transfer finish and turns everybody else away', async t => {
  let release: (() => void) | undefined;
  const { port, listener } = await serve(t, (request, response) => {
    if (request.url === '/quick') {
      response.end('quick');
      return;
    }
    response.writeHead(200, { 'Content-Length': 10 });
    response.write('first');
    release = () => response.end('rest!');
  });
  const agent = new Agent({ keepAlive: true, ca: PAIR.certificate });
  t.after(() => agent.destroy());
  const idle = await tls(port);
  idle.write('GET /quick HTTP/1.1\r\nHost: x\r\n\r\n');
  await until(idle, 'quick');
  const running = await tls(port);
  running.write('GET /slow HTTP/1.1\r\nHost: x\r\n\r\n');
  await until(running, 'first');
  const handshaking = await tcp(port);
  const handshakeEnd = all(handshaking);
  while (listener.connections < 3) await new Promise(setImmediate);

  const idleEnd = all(idle);
  const drained = listener.drain(60_000);
  assert.equal(await idleEnd, '');
  await assert.rejects(fetchOnce(port, '/quick'), { code: 'ECONNREFUSED' });
  release!();
  assert.equal(await all(running), 'rest!');
  assert.deepEqual(await drained, { finished: true, aborted: 0 });
  await handshakeEnd;
  assert.equal(listener.connections, 0);
});

test('drain cuts off what does not finish, and counts it', async t => {
  const { port, listener } = await serve(t, (_request, response) => void response.write('begun'));
  const sockets = await Promise.all([tls(port), tls(port)]);
  for (const socket of sockets) {
    socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
    await until(socket, 'begun');
  }
  const ends = sockets.map(all);
  assert.deepEqual(await listener.drain(50), { finished: false, aborted: 2 });
  await Promise.all(ends);
});

test('an answer that was not begun when the drain began is the last of its connection', async t => {
  const answers: ServerResponse[] = [];
  const { port, listener } = await serve(t, (_request, response) => void answers.push(response));
  const socket = await tls(port);
  socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  while (answers.length === 0) await new Promise(setImmediate);
  const drained = listener.drain(60_000);
  answers[0]!.end('done');
  assert.match(await all(socket), /\r\nConnection: close\r\n/);
  assert.deepEqual(await drained, { finished: true, aborted: 0 });
});

test('100 certificate rotations under load: no request fails', async t => {
  const { port, listener } = await serve(t, echo);
  const pairs = [PAIR, ...Array.from({ length: 4 }, selfSigned)];
  const ca = pairs.map(pair => pair.certificate).join('');
  const agent = new Agent({ keepAlive: true, maxSockets: 2, ca });
  t.after(() => agent.destroy());
  const serials = new Set<string>();
  let running = true;
  let served = 0;
  const load = async (once: () => Promise<string>) => {
    while (running) {
      serials.add(await once());
      served++;
    }
  };
  const kept = () =>
    new Promise<string>((resolve, reject) => {
      const request = httpsRequest({ port, host: '127.0.0.1', agent }, response => {
        response.resume().on('end', () => resolve('kept'));
        response.on('error', reject);
      });
      request.on('error', reject).end();
    });
  const clients = [
    load(kept),
    load(kept),
    ...[0, 1].map(() => load(async () => (await fetchOnce(port, '/', ca)).serial)),
  ];
  const failed = Promise.all(clients);
  for (let rotation = 1; rotation <= 100; rotation++) {
    listener.setCertificate(pairs[rotation % pairs.length]!);
    assert.throws(() => listener.setCertificate({ ...PAIR, key: selfSigned().key }), OperatorError);
    const before = served;
    while (served < before + 4) await Promise.race([new Promise(setImmediate), failed]);
  }
  running = false;
  await failed;
  assert.ok(served >= 400);
  assert.ok(serials.size >= 5, `new connections saw ${serials.size - 1} certificates`);
});
