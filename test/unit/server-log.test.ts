import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { describe, type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { setClientCertificate } from '../../src/auth/client-certificate.js';
import { OperatorError } from '../../src/errors.js';
import { createAccessLog, createLogger, type LogFormat, requestId } from '../../src/server/log.js';
import { say, serve, tcp, tls, until } from '../support/listener.js';

/** What is written to the application's log. */
async function logged(formatter: LogFormat, write: (log: ReturnType<typeof createLogger>) => void): Promise<string[]> {
  let text = '';
  const stream = new Writable({
    write(chunk, _encoding, done) {
      text += chunk;
      setImmediate(done);
    },
  });
  const log = createLogger({ level: 'info', formatter, fields: { service: 'registry' }, stream });
  write(log);
  await log.close();
  log.info('after the end');
  return text.split('\n').slice(0, -1);
}

test('an error is logged with what was in the way, and nothing of what others have sent', async () => {
  const refused = Object.assign(new Error('connect to canary'), { code: 'ECONNREFUSED' });
  const error = new Error('no answer', { cause: new Error('canary', { cause: refused }) });
  const [line] = await logged('json', log => log.error('failed', { error }));
  assert.match(JSON.parse(line!).error, /^Error: no answer\n.*\ncaused by ECONNREFUSED$/s);
  assert.doesNotMatch(line!, /canary/);
});

test('the application log: text and JSON, one line each whatever is logged', async () => {
  const write = (log: ReturnType<typeof createLogger>) => {
    log.info('started', { port: 5000, host: '0.0.0.0', message: 'own', level: 'own' });
    log.debug('not shown');
    log.warn('two\nlines "quoted" \x1b[31m\u009b\u2028é', { key: 'a b', empty: '', none: undefined });
    log.error('failed', { error: new OperatorError('no such file', { fix: 'make it' }), stack: new Error('inner') });
  };
  const [started, odd, failed, ...more] = await logged('text', write);
  assert.deepEqual(more, []);
  const time = 'time=\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d{3}Z';
  assert.match(
    started!,
    new RegExp(`^${time} level=info msg=started service=registry port=5000 host=0\\.0\\.0\\.0 message=own$`),
  );
  assert.match(
    odd!,
    /level=warn msg="two\\nlines \\"quoted\\" \\u001b\[31m\\u009b\\u2028\\u00e9" service=registry key="a b" empty=""$/,
  );
  assert.match(failed!, /error="no such file; make it" stack="Error: inner\\n {4}at /);

  const json = (await logged('json', write)).map(line => JSON.parse(line));
  assert.equal(json.length, 3);
  assert.equal(json[0].port, 5000);
  assert.equal(json[1].msg, 'two\nlines "quoted" \x1b[31m\u009b\u2028é');
  assert.equal(json[2].level, 'error');
});

/** A listener with an access log into a file; `read` waits for so many lines. */
async function withAccessLog(
  t: TestContext,
  formatter: LogFormat,
  handler: (request: IncomingMessage, response: ServerResponse) => void,
) {
  const folder = mkdtempSync(join(tmpdir(), 'registry-secure-log-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'access.log');
  const fd = openSync(file, 'a', 0o600);
  const users = new WeakMap<IncomingMessage, string>();
  const log = createAccessLog({
    formatter,
    fd,
    fields: { service: '{reg}' },
    principal: request => users.get(request),
  });
  t.after(async () => {
    await log.close();
    closeSync(fd);
  });
  const { port } = await serve(t, (request, response) => {
    log.begin(request, requestId(request));
    response.on('close', () => log.end(request, response));
    if (request.headers.authorization) users.set(request, 'alice');
    handler(request, response);
  });
  const read = async (count: number) => {
    for (;;) {
      const lines = readFileSync(file, 'utf8').split('\n').slice(0, -1);
      if (lines.length >= count) return lines;
      await sleep(5);
    }
  };
  return { port, read };
}

test('the access log: one line a request, with what it carried, and no secret', async t => {
  for (const formatter of ['text', 'json'] as const) {
    const { port, read } = await withAccessLog(t, formatter, (request, response) => {
      if (request.url === '/second')
        setClientCertificate(request.socket, {
          commonName: 'bob "b"',
          organizationalUnits: [],
          alternativeNames: [],
          serial: '0AFF',
          fingerprint: 'AB:CD',
        });
      request.resume().on('end', () => response.writeHead(201, { 'Content-Length': 5 }).end('hello'));
    });
    const socket = await tls(port);
    const path = '/v2/a%0a/b?digest=sha256:ab&token=hunter2&hunter2&account=bob&x="y';
    const headers =
      'Host: x\r\nAuthorization: Basic aHVudGVyMg==\r\nUser-Agent: docker "1" \xe9\r\nContent-Length: 100\r\n';
    socket.write(`PUT ${path} HTTP/1.1\r\n${headers}\r\n${'x'.repeat(100)}`, 'latin1');
    await until(socket, 'hello');
    await say(socket, 'GET /second HTTP/1.1\r\nHost: x\r\nX-Request-Id: from-the-proxy.1\r\nConnection: close\r\n\r\n');
    const [first, second] = await read(2);
    assert.doesNotMatch(first!, /hunter2|aHVudGVyMg/);
    if (formatter === 'text') {
      assert.match(
        first!,
        /^time=\S+Z level=info msg=request id=[0-9a-f]{8}-\w+ remote=127\.0\.0\.1 user=alice method=PUT path="\/v2\/a%0a\/b\?digest=sha256:ab&token=\*\*\*&\*\*\*&account=bob&x=\*\*\*" status=201 bytes=\d+ received=\d+ ms=[\d.]+ agent="docker \\"1\\" \\u00e9" service=\{reg\}$/,
      );
      assert.match(
        second!,
        / id=from-the-proxy\.1 remote=127\.0\.0\.1 user=- method=GET path=\/second status=201 .* agent=- client="bob \\"b\\"" serial=0AFF service=/,
      );
    } else {
      const [one, two] = [JSON.parse(first!), JSON.parse(second!)];
      assert.deepEqual(
        [one.user, one.method, one.path, one.status, one.agent, one.service],
        ['alice', 'PUT', '/v2/a%0a/b?digest=sha256:ab&token=***&***&account=bob&x=***', 201, 'docker "1" é', '{reg}'],
      );
      assert.deepEqual([two.user, two.client, two.serial], ['-', 'bob "b"', '0AFF']);
      assert.deepEqual([one.client, one.serial], [undefined, undefined]);
      // Each line counts its own exchange: the head and the body of 100 bytes, then a head of some 90.
      assert.ok(one.received > 250 && one.received < 350, `${one.received} bytes received`);
      assert.ok(two.received > 80 && two.received < 120, `${two.received} bytes received`);
      assert.ok(one.bytes > 100 && one.bytes < 250, `${one.bytes} bytes sent`);
    }
  }
});

test('the access log tells of clients that left', async t => {
  const { port, read } = await withAccessLog(t, 'text', (request, response) => {
    if (request.url === '/begun') response.write('begun');
    request.on('error', () => {});
    request.resume();
  });
  const [silent, begun] = await Promise.all([tls(port), tls(port)]);
  silent.write('PUT /silent HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc');
  begun.write('GET /begun HTTP/1.1\r\nHost: x\r\n\r\n');
  await until(begun, 'begun');
  begun.destroy();
  const [first] = await read(1);
  assert.match(first!, /path=\/begun status=200 .* aborted=true service=\{reg\}$/);
  silent.destroy();
  assert.match((await read(2))[1]!, /path=\/silent status=499 .* aborted=true /);
});

test('request ids are unique, and a strange one from outside is not taken', async t => {
  const ids: string[] = [];
  const { port } = await serve(
    t,
    (request, response) => {
      ids.push(requestId(request));
      response.end();
    },
    { plain: true },
  );
  for (const id of ['', 'short', 'a'.repeat(65), 'with space', 'quo"te-----', 'good-enough_1.2'])
    await say(await tcp(port), `GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Request-Id: ${id}\r\n\r\n`);
  assert.equal(ids.at(-1), 'good-enough_1.2');
  assert.equal(new Set(ids).size, 6);
  for (const id of ids.slice(0, -1)) assert.match(id, /^[0-9a-f]{8}-[0-9a-z]+$/);
});

const LINES = new URL('../../src/server/lines.js', import.meta.url);

/** Runs a program with a LineWriter on a pipe (node:child_process alone would give it a socket) to a reading program. */
async function piped(t: TestContext, writer: string, reader: string) {
  const both = `import fs from 'node:fs';
    import { setTimeout as sleep } from 'node:timers/promises';
    const [, folder] = process.argv;`;
  const code = `import { LineWriter } from ${JSON.stringify(LINES.href)};
    ${both}
    const writer = new LineWriter(1, lost => 'lost ' + lost + '\\n');
    ${writer}`;
  const pipeline =
    '{ "$0" --input-type=module -e "$1" "$3"; echo "status $?" >&2; : > "$3/ended"; } | "$0" --input-type=module -e "$2" "$3"';
  const folder = mkdtempSync(join(tmpdir(), 'registry-secure-pipe-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const shell = spawn('sh', ['-c', pipeline, process.execPath, code, `${both}${reader}`, folder], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  t.after(() => shell.kill('SIGKILL'));
  const [out, err] = await Promise.all([text(shell.stdout), text(shell.stderr)]);
  return { out, err };
}

const copy = 'process.stdin.pipe(process.stdout);';

describe('lines on a pipe', { concurrency: true }, () => {
  test('lines reach a pipe whole and in order, also when the process exits at once', async t => {
    for (const ending of ['await writer.close();', 'process.exit(0);', '']) {
      const written = await piped(
        t,
        `for (let i = 0; i < 300; i++) writer.write('line ' + i + '\\n'); ${ending}`,
        copy,
      );
      assert.deepEqual(written, {
        out: Array.from({ length: 300 }, (_, index) => `line ${index}\n`).join(''),
        err: 'status 0\n',
      });
    }
  });

  test('a reader that stops for a while holds up nobody: lines are dropped, and counted', async t => {
    const { out, err } = await piped(
      t,
      `const line = 'x'.repeat(1023) + '\\n';
    for (let i = 0; i < 20_000; i++) writer.write(line);
    // The reader reads once the event loop has gone on for a while.
    for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate);
    fs.writeFileSync(folder + '/turned', '');
    while (!fs.existsSync(folder + '/reading')) await sleep(10);
    await writer.close();`,
      `while (!fs.existsSync(folder + '/turned')) await sleep(10);
    fs.writeFileSync(folder + '/reading', '');
    ${copy}`,
    );
    assert.equal(err, 'status 0\n');
    const kept = out.match(/x\n/g)!.length;
    assert.equal(Number(/^lost (\d+)$/m.exec(out)![1]) + kept, 20_000);
    assert.ok(kept >= 16 * 1024, `${kept} lines kept`);
  });

  test('a reader that has stopped for good, or gone, does not keep the process from ending', async t => {
    const writer = `for (let i = 0; i < 200; i++) writer.write('x'.repeat(1023) + '\\n');
    await writer.close();`;
    const stopped = await piped(t, writer, `while (!fs.existsSync(folder + '/ended')) await sleep(20);`);
    assert.equal(stopped.err, 'status 0\n');
    const gone = await piped(t, `await sleep(300); ${writer}`, 'process.exit(0);');
    assert.equal(gone.err, 'status 0\n');
  });
});
