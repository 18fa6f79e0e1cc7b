import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { all, tcp } from './listener.js';
import {
  descriptorOf,
  digestOf,
  indexOf,
  manifestOf,
  OCI_INDEX,
  OCI_LAYER,
  OCI_MANIFEST,
  type RegistryUnderTest,
} from './registry-fixture.js';

interface RawAnswer {
  readonly status: number;
  readonly headers: string;
  readonly code: string | undefined;
  readonly body: string;
}

const HOST = 'Host: registry.example.com\r\n';

/** A registry over plain HTTP. */
export interface HostileTarget extends RegistryUnderTest {
  /** The header by which somebody is known: `tester`, `mallory`, `insider` who alone reads `hidden/`, or `nobody`. */
  as(user: string): string;
  /** What went wrong on the side of the server. */
  readonly faults: readonly unknown[];
  stop(): Promise<void>;
}

/** One answer that ends with its connection; a reset after it is no part of it. */
function parse(text: string): RawAnswer {
  const [, status, headers, rest] = /^HTTP\/1\.1 (\d{3}) [^\r]*\r\n(.*?\r\n)\r\n(.*?)(?:<E[A-Z]+>)?$/s.exec(text) ?? [];
  assert.ok(status !== undefined, `no answer: ${JSON.stringify(text.slice(0, 200))}`);
  const code = /^\{"errors":\[\{"code":"([A-Z_]+)"/.exec(rest!)?.[1];
  return { status: Number(status), headers: headers!, code, body: rest! };
}

/**
 * The protocol's table of hostile input, a row a test, over bare sockets.
 * @param start on a folder of data that is not there yet
 */
export function hostileInput(what: string, start: (root: string) => Promise<HostileTarget>): void {
  describe(what, () => {
    let registry: HostileTarget;
    let outside: string;
    before(async () => {
      outside = await mkdtemp(join(tmpdir(), 'registry-hostile-'));
      registry = await start(join(outside, 'root'));
    });
    after(async () => {
      assert.deepEqual(registry.faults, []);
      await registry.stop();
      await rm(outside, { recursive: true });
    });

    /** Sends what it is given as it is, and reads until the other side closes. */
    const send = async (...parts: Array<string | Buffer>): Promise<string> => {
      const socket = await tcp(registry.port);
      for (const part of parts) socket.write(part);
      return all(socket);
    };
    const ask = async (
      line: string,
      headers = '',
      body: string | Buffer = '',
      user: string = 'tester',
    ): Promise<RawAnswer> =>
      parse(await send(`${line} HTTP/1.1\r\n${HOST}${registry.as(user)}Connection: close\r\n${headers}\r\n`, body));
    /** The same with a body of its true length. */
    const put = (line: string, type: string, body: string | Buffer): Promise<RawAnswer> =>
      ask(line, `Content-Type: ${type}\r\nContent-Length: ${Buffer.byteLength(body)}\r\n`, body);
    const startUpload = async (repository: string): Promise<string> =>
      (await registry.call('POST', `/v2/${repository}/blobs/uploads/`)).headers.location!;
    const offsetOf = async (location: string): Promise<string> => {
      const answer = await registry.call('GET', location);
      assert.equal(answer.status, 204);
      return String(answer.headers.range);
    };
    const is = (answer: RawAnswer, status: number, code: string, what?: string) =>
      assert.deepEqual([answer.status, answer.code], [status, code], what);

    test('paths that try to leave the root', async () => {
      // Were any of these followed, it would find this image, or end beside the root.
      const { digest } = await registry.pushImage('a/b', 'v1');
      const names = [
        '..',
        '../..',
        '../../etc',
        'a/../a/b',
        './a/b',
        'a//b',
        '/a/b',
        'a/b/',
        'a/b/.',
        '_layers',
        'A/b',
      ];
      const encoded = [
        '%2e%2e',
        '%2e%2e%2fetc',
        'a%2fb',
        'a%5cb',
        'a%00b',
        '%252e%252e',
        'a/%62',
        '..%2F..%2Fetc',
        'ä',
      ];
      const odd = ['..;', 'a\\b', '%c0%ae%c0%ae', 'a/..%00/b', '%2F%2F..%2F..%2Fetc%2Fpasswd'];
      for (const name of [...names, ...encoded, ...odd])
        for (const path of [
          `/v2/${name}/manifests/v1`,
          `/v2/${name}/manifests/${digest}`,
          `/v2/${name}/blobs/${digest}`,
          `/v2/${name}/tags/list`,
          `/v2/${name}/referrers/${digest}`,
          `/api/v1/repositories/${name}`,
        ]) {
          const method = path.startsWith('/api') ? 'DELETE' : 'GET';
          const answer = await ask(`${method} ${Buffer.from(path).toString('latin1')}`);
          assert.ok(answer.status === 404 || answer.status === 400, `${path}: ${answer.status} ${answer.body}`);
          if (answer.status === 404) assert.ok(['UNSUPPORTED', 'NAME_UNKNOWN'].includes(answer.code!), path);
        }
      for (const name of ['../x', '%2e%2e', 'a%2fb', '..']) {
        is(await ask(`POST /v2/${name}/blobs/uploads/`, 'Content-Length: 0\r\n'), 400, 'NAME_INVALID', name);
        is(await put(`PUT /v2/${name}/manifests/v1`, OCI_INDEX, indexOf([])), 400, 'NAME_INVALID', name);
      }
      assert.deepEqual(await readdir(outside), ['root']);
      assert.equal((await registry.call('GET', '/v2/a/b/manifests/v1')).status, 200);
    });

    test('digests that are none', async () => {
      const hex = 'a'.repeat(64);
      for (const digest of [
        'sha256:../x',
        'sha256:..%2fx',
        `sha256:${hex.toUpperCase()}`,
        `sha256:${hex.slice(1)}`,
        `sha256:${hex}a`,
        `sha512:${hex}`,
        `sha256:${hex}%00`,
        `sha256:${hex}%0a`,
        `sha256::${hex}`,
        'sha256:',
        `SHA256:${hex}`,
        `md5:${hex.slice(0, 32)}`,
        `__proto__:${hex}`,
      ]) {
        for (const line of [
          `GET /v2/a/blobs/${digest}`,
          `HEAD /v2/a/blobs/${digest}`,
          `DELETE /v2/a/blobs/${digest}`,
          `GET /v2/a/manifests/${digest}`,
          `DELETE /v2/a/manifests/${digest}`,
          `GET /v2/a/referrers/${digest}`,
          `POST /v2/a/blobs/uploads/?digest=${digest}`,
          `POST /v2/a/blobs/uploads/?mount=${digest}&from=b`,
        ]) {
          const answer = await ask(line, line.startsWith('POST') ? 'Content-Length: 0\r\n' : '');
          assert.equal(answer.status, 400, line);
          if (!line.startsWith('HEAD')) assert.equal(answer.code, 'DIGEST_INVALID', line);
        }
        is(await put(`PUT /v2/a/manifests/${digest}`, OCI_INDEX, indexOf([])), 400, 'DIGEST_INVALID', digest);
      }
    });

    test('tags that are none', async () => {
      const { data } = await registry.pushImage('tags', 'good');
      const tags = ['a'.repeat(129), '%c3%a4', '-a', '.a', 'a%20b', 'a%00', '%2e%2e', 'a%0d%0aX', '%', '%zz', '..', ''];
      for (const tag of tags) {
        is(await put(`PUT /v2/tags/manifests/${tag}`, OCI_MANIFEST, data), 400, 'MANIFEST_INVALID', tag);
        is(await ask(`GET /v2/tags/manifests/${tag}`), 404, 'MANIFEST_UNKNOWN', tag);
        is(await ask(`DELETE /v2/tags/manifests/${tag}`), 404, 'MANIFEST_UNKNOWN', tag);
      }
      assert.deepEqual((await registry.call('GET', '/v2/tags/tags/list')).json(), { name: 'tags', tags: ['good'] });
    });

    test('names that are too long, or made to stall a regular expression', async () => {
      const longest = `${'a'.repeat(127)}/${'a'.repeat(127)}`;
      assert.equal((await ask(`GET /v2/${longest}/tags/list`)).code, 'NAME_UNKNOWN');
      const began = performance.now();
      for (const name of [
        `${longest}a`,
        'a'.repeat(14_000),
        `${'a-'.repeat(7000)}!`,
        `${'a__'.repeat(80)}!`,
        `${'a/'.repeat(7000)}`,
        `${'-'.repeat(250)}a`,
      ])
        is(await ask(`GET /v2/${name}/tags/list`), 400, 'NAME_INVALID', name.slice(0, 20));
      // Steps that grow with the cube of the length would take hours.
      assert.ok(performance.now() - began < 30_000);
    });

    test('headers over 16 KiB', async () => {
      assert.equal((await ask('GET /v2/', `X-Filler: ${'x'.repeat(16 * 1024)}\r\n`)).status, 431);
      assert.equal((await ask(`GET /v2/?${'x'.repeat(17 * 1024)}`)).status, 431);
      assert.equal((await ask('GET /v2/', 'X: y\r\n'.repeat(1000))).status, 431);
    });

    test('a manifest over the limit is refused while it streams', async () => {
      const socket = await tcp(registry.port);
      let text = '';
      socket.on('data', chunk => {
        text += chunk;
      });
      socket.on('error', () => {});
      const headers = `${HOST}${registry.as('tester')}Content-Type: ${OCI_MANIFEST}\r\nTransfer-Encoding: chunked\r\n`;
      socket.write(`PUT /v2/a/manifests/huge HTTP/1.1\r\n${headers}\r\n`);
      const chunk = `10000\r\n${' '.repeat(0x10000)}\r\n`;
      // It never ends by itself: only the answer can end it.
      let sent = 0;
      for (; text === '' && !socket.destroyed && sent < 1000; sent++)
        if (!socket.write(chunk))
          await Promise.race([once(socket, 'drain'), once(socket, 'data'), once(socket, 'close')]);
        else await new Promise(resolve => setImmediate(resolve));
      while (!text.trimEnd().endsWith('}') && !socket.destroyed)
        await Promise.race([once(socket, 'data'), once(socket, 'close')]);
      is(parse(text), 413, 'SIZE_INVALID');
      assert.ok(sent < 1000);
      socket.destroy();
      const declared = await ask('PUT /v2/a/manifests/huge', `Content-Length: ${10 ** 12}\r\n`);
      is(declared, 413, 'SIZE_INVALID');
    });

    test('manifests that are no JSON, or mean different things to different readers', async () => {
      const { data } = await registry.pushImage('json', 'good');
      const text = data.toString();
      const deep = 200_000;
      for (const body of [
        '',
        'null',
        '[]',
        '"x"',
        '{',
        `${text}x`,
        `\u{feff}${text}`,
        Buffer.concat([data, Buffer.from([0xc3, 0x28])]),
        Buffer.from(text.replace('"layers"', '"l\xe4yers"'), 'latin1'),
        text.replace('{', '{"schemaVersion":2,'),
        text.replace('{', '{"schemaVersio\\u006e":2,'),
        text.replace('{', '{"__proto__":{"mediaType":"x"},'),
        '['.repeat(deep),
        `${text.slice(0, -1)},"deep":${'['.repeat(60_000)}${']'.repeat(60_000)}}`,
        '{"a":'.repeat(40_000),
        text.replace('"schemaVersion":2', '"schemaVersion":1'),
        text.replace(/"size":\d+/, '"size":-1'),
        text.replace(/"size":\d+/, '"size":1e400'),
        text.replace(/"size":\d+/, '"size":"1"'),
        text.replace(/"digest":"sha256/, '"digest":"md5'),
      ])
        is(
          await put('PUT /v2/json/manifests/bad', OCI_MANIFEST, body),
          400,
          'MANIFEST_INVALID',
          String(body).slice(0, 60),
        );
      assert.deepEqual((await registry.call('GET', '/v2/json/tags/list')).json(), { name: 'json', tags: ['good'] });
    });

    test('a Content-Type that differs from mediaType; layers and manifests in one', async () => {
      const { data } = await registry.pushImage('types', 'good');
      const text = data.toString();
      for (const [type, body] of [
        [OCI_INDEX, text],
        ['application/json', text],
        ['text/html', text],
        [OCI_MANIFEST, indexOf([]).toString()],
        [OCI_MANIFEST, text.replace('{', '{"manifests":[],')],
        [OCI_INDEX, indexOf([]).toString().replace('{', '{"layers":[],')],
        ['application/x-unknown', '{"schemaVersion":2,"mediaType":"application/x-unknown"}'],
      ] as const)
        is(
          await put('PUT /v2/types/manifests/bad', type, body),
          400,
          'MANIFEST_INVALID',
          `${type} ${body.slice(0, 40)}`,
        );
      assert.equal((await put('PUT /v2/types/manifests/ok', `${OCI_MANIFEST}; charset=utf-8`, text)).status, 201);
    });

    test('a body that is cut off commits nothing, and its upload goes on from its true offset', async () => {
      const data = randomBytes(100_000);
      const digest = digestOf(data);
      const location = await startUpload('cut');
      const cut = async (line: string, headers: string, part: Buffer | string) => {
        const socket = await tcp(registry.port);
        socket.write(`${line} HTTP/1.1\r\n${HOST}${registry.as('tester')}${headers}\r\n`);
        await new Promise<void>(resolve => socket.write(part, () => resolve()));
        socket.destroy();
      };
      /** Of the upload: what came of it is kept, which is waited for, so that no later request is beside it. */
      const cutUpload = async (line: string, headers: string, part: Buffer) => {
        const before = await offsetOf(location);
        await cut(line, headers, part);
        for (const deadline = Date.now() + 60_000; (await offsetOf(location)) === before; await pause(10))
          assert.ok(Date.now() < deadline, `nothing is kept of ${line}`);
      };
      const start = async () => Number((await offsetOf(location)).slice(2)) + 1;
      const goOn = async (length: number): Promise<void> => {
        const from = await start();
        const next = data.subarray(from, from + length);
        const range = `Content-Range: ${from}-${from + next.length - 1}\r\nContent-Length: ${next.length}\r\n`;
        assert.equal((await ask(`PATCH ${location}`, range, next)).status, 202);
      };
      await cutUpload(`PATCH ${location}`, 'Content-Length: 100000\r\n', data.subarray(0, 20_000));
      await goOn(10_000);
      const middle = data.subarray(await start()).subarray(0, 20_000);
      const chunk = Buffer.concat([Buffer.from('fffff\r\n'), middle]);
      await cutUpload(`PATCH ${location}`, 'Transfer-Encoding: chunked\r\n', chunk);
      await goOn(10_000);
      const end = data.subarray(await start());
      await cutUpload(`PUT ${location}?digest=${digest}`, `Content-Length: ${end.length}\r\n`, end.subarray(0, -1));
      assert.equal((await registry.call('HEAD', `/v2/cut/blobs/${digest}`)).status, 404);
      const wrong = 'Content-Range: 50000-99999\r\nContent-Length: 10\r\n';
      is(await ask(`PATCH ${location}`, wrong, 'x'.repeat(10)), 400, 'SIZE_INVALID');
      await goOn(100_000);
      assert.equal((await ask(`PUT ${location}?digest=${digest}`, 'Content-Length: 0\r\n')).status, 201);
      assert.ok((await registry.call('GET', `/v2/cut/blobs/${digest}`)).body.equals(data));

      const whole = randomBytes(1000);
      const line = `POST /v2/cut/blobs/uploads/?digest=${digestOf(whole)}`;
      await cut(line, 'Content-Length: 1000\r\n', whole.subarray(0, 999));
      await cut('PUT /v2/cut/manifests/m', `Content-Type: ${OCI_INDEX}\r\nContent-Length: 9999\r\n`, indexOf([]));
      assert.equal((await registry.call('HEAD', `/v2/cut/blobs/${digestOf(whole)}`)).status, 404);
      assert.deepEqual((await registry.call('GET', '/v2/cut/tags/list')).json(), { name: 'cut', tags: [] });
    });

    test('chunks that overlap or come at once: one wins, the others are 416, and bytes never interleave', async () => {
      const location = await startUpload('overlap');
      const patch = (start: number, data: Buffer) =>
        ask(
          `PATCH ${location}`,
          `Content-Range: ${start}-${start + data.length - 1}\r\nContent-Length: ${data.length}\r\n`,
          data,
        );
      const rivals = Array.from({ length: 8 }, (_, index) => Buffer.alloc(5000, index));
      const answers = await Promise.all(rivals.map(data => patch(0, data)));
      const winners = answers.flatMap(({ status }, index) => (status === 202 ? [index] : []));
      assert.equal(winners.length, 1);
      for (const [index, answer] of answers.entries()) if (index !== winners[0]) is(answer, 416, 'BLOB_UPLOAD_INVALID');
      is(await patch(4999, Buffer.alloc(2)), 416, 'BLOB_UPLOAD_INVALID');
      const late = await patch(6000, Buffer.alloc(2));
      is(late, 416, 'BLOB_UPLOAD_INVALID');
      assert.match(late.headers, /\r\nRange: 0-4999\r\n/);
      assert.match(late.headers, new RegExp(`(^|\r\n)Location: ${location}\r\n`));
      for (const range of ['x', '5-4', '-5', '0-', '1-2-3', `${'9'.repeat(30)}-1`])
        is(
          await ask(`PATCH ${location}`, `Content-Range: ${range}\r\nContent-Length: 1\r\n`, 'x'),
          400,
          'BLOB_UPLOAD_INVALID',
          range,
        );
      assert.equal(await offsetOf(location), '0-4999');
      const winner = rivals[winners[0]!]!;
      const done = await ask(`PUT ${location}?digest=${digestOf(winner)}`, 'Content-Length: 0\r\n');
      assert.equal(done.status, 201);
    });

    test('an upload in another repository, or of another user', async () => {
      const location = await startUpload('mine');
      const uuid = location.split('/').at(-1)!;
      const digest = digestOf(Buffer.alloc(0));
      for (const [path, user] of [
        [`/v2/other/blobs/uploads/${uuid}`, 'tester'],
        [`/v2/mine/blobs/uploads/${uuid}`, 'mallory'],
        [`/v2/mine/blobs/uploads/${uuid.toUpperCase()}`, 'tester'],
        ['/v2/mine/blobs/uploads/..', 'tester'],
        [`/v2/mine/blobs/uploads/%2e%2e%2f${uuid}`, 'tester'],
        ['/v2/mine/blobs/uploads/00000000-0000-4000-8000-000000000000', 'tester'],
      ] as const)
        for (const line of [`GET ${path}`, `PATCH ${path}`, `PUT ${path}?digest=${digest}`, `DELETE ${path}`])
          is(await ask(line, 'Content-Length: 0\r\n', '', user), 404, 'BLOB_UPLOAD_UNKNOWN', line);
      assert.equal(await offsetOf(location), '0-0');
    });

    test('a PUT that is sent again after the commit', async () => {
      const data = randomBytes(100);
      const location = await startUpload('again');
      const line = `PUT ${location}?digest=${digestOf(data)}`;
      assert.equal((await ask(line, 'Content-Length: 100\r\n', data)).status, 201);
      is(await ask(line, 'Content-Length: 100\r\n', data), 404, 'BLOB_UPLOAD_UNKNOWN');
      assert.equal((await registry.call('HEAD', `/v2/again/blobs/${digestOf(data)}`)).status, 200);
    });

    test('a mount from where the caller may not read is the same as from nowhere', async () => {
      const secret = await registry.pushBlob('hidden/source', randomBytes(100), 'insider');
      const absent = digestOf(randomBytes(100));
      const answers: string[] = [];
      for (const [digest, from] of [
        [secret, '&from=hidden/source'],
        [absent, '&from=hidden/source'],
        [secret, '&from=nowhere'],
        [secret, '&from=../hidden/source'],
        [secret, '&from='],
        [secret, ''],
      ]) {
        const answer = await ask(`POST /v2/mine/blobs/uploads/?mount=${digest}${from}`, 'Content-Length: 0\r\n');
        assert.equal(answer.status, 202);
        answers.push(
          answer.headers
            .replaceAll(/[0-9a-f]{8}-[0-9a-f-]{27}/g, 'UUID')
            .replaceAll(/(?:Date|X-Request-Id): .*\r\n/g, ''),
        );
      }
      assert.equal(new Set(answers).size, 1, answers.join('\n'));
      assert.equal((await registry.call('HEAD', `/v2/mine/blobs/${secret}`)).status, 404);
    });

    test('several ranges', async () => {
      const data = randomBytes(4000);
      const path = `/v2/ranges/blobs/${await registry.pushBlob('ranges', data)}`;
      const ranges = (count: number) => Array.from({ length: count }, (_, at) => `${2 * at}-${2 * at}`).join(',');
      for (const [range, status] of [
        ['0-9,20-29', 206],
        [ranges(1024), 206],
        [ranges(1025), 200],
        ['0-9,5-15', 200],
        ['20-29,0-9', 200],
        [`0-${'9'.repeat(30)}`, 200],
        ['0-9,x', 200],
        ['-0', 416],
        ['4000-', 416],
        ['4000-5000,6000-', 416],
      ] as const) {
        const answer = await ask(`GET ${path}`, `Range: bytes=${range}\r\n`);
        assert.equal(answer.status, status, range.slice(0, 40));
        if (status === 416) assert.match(answer.headers, /\r\nContent-Range: bytes \*\/4000\r\n/);
        if (status === 206) assert.match(answer.headers, /Content-Type: multipart\/byteranges; boundary=/);
      }
    });

    test('an n that is no number, or a huge one', async () => {
      await registry.pushImage('n', 'v1');
      const digest = digestOf(Buffer.alloc(0));
      const lists = ['/v2/_catalog', '/v2/n/tags/list', `/v2/n/referrers/${digest}`, '/v1/search'];
      for (const path of lists) {
        for (const n of ['-1', 'abc', '1.5', '%00', '1%20', '0x10', '+1', 'NaN', 'Infinity'])
          is(await ask(`GET ${path}?n=${n}`), 400, 'UNSUPPORTED', `${path} ${n}`);
        if (path !== '/v1/search') assert.equal((await ask(`GET ${path}?n=${'9'.repeat(400)}`)).status, 200, path);
      }
    });

    test('line breaks, quotes and worse in names and parameters stay where they are', async () => {
      const { data } = await registry.pushImage('quotes', 'a');
      for (const tag of ['b', 'c']) await registry.pushManifest('quotes', tag, data);
      const nasty = '%0d%0aX-Injected:%20yes%0d%0a%22%3e%00%ff%e2%80%a8';
      for (const path of [
        `/v2/quotes/tags/list?n=1&last=${nasty}`,
        `/v2/_catalog?n=1&last=${nasty}`,
        `/v2/quotes/referrers/${digestOf(data)}?artifactType=${nasty}&last=${nasty}`,
        `/v1/search?q=${nasty}`,
        `/v2/quotes/tags/list?${nasty}=${nasty}&%`,
        `/v2/${nasty}/tags/list`,
        `/v2/quotes/manifests/${nasty}`,
        `/${nasty}`,
      ]) {
        const answer = await ask(`GET ${path}`);
        assert.ok(answer.status < 500, `${path} ${answer.status}`);
        assert.doesNotMatch(answer.headers, /\r\nX-Injected/i);
        const link = /\r\nLink: (.*)\r\n/.exec(answer.headers)?.[1];
        if (link !== undefined) assert.match(link, /^<\/[!#-;=?-~]*>; rel="next"$/);
      }
      assert.equal((await ask('GET /v2/quotes/tags/list?n=1&n=2&last=a&last=b')).status, 200);
    });

    test('requests that two servers could read in two ways', async () => {
      const body = '0\r\n\r\nGET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n';
      for (const headers of [
        `${HOST}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n`,
        `${HOST}Transfer-Encoding: gzip, chunked\r\n`,
        `${HOST}Transfer-Encoding: chunked, chunked\r\n`,
        `${HOST}Transfer-Encoding: identity\r\n`,
        `${HOST}Transfer-Encoding : chunked\r\n`,
        `${HOST}Content-Length: 5\r\nContent-Length: 6\r\n`,
        `${HOST}Content-Length: +5\r\n`,
        `${HOST}Host: other\r\nContent-Length: 0\r\n`,
        'Content-Length: 0\r\n',
        `${HOST}X: a\r\n b\r\nContent-Length: 0\r\n`,
        `${HOST}Bad Name: x\r\n`,
        `${HOST}X: a\0b\r\n`,
      ]) {
        // One answer, and the connection is closed: what follows is never taken for a request.
        const text = await send(`POST /v2/a/blobs/uploads/ HTTP/1.1\r\n${headers}\r\n`, body);
        assert.equal(parse(text).status, 400, JSON.stringify(headers));
        assert.equal(text.split('HTTP/1.1 ').length, 2, JSON.stringify(headers));
      }
    });

    test('a target in absolute form is accepted', async () => {
      for (const target of ['http://elsewhere:5000/v2/', 'https://registry.example.com/v2/'])
        assert.equal((await ask(`GET ${target}`)).status, 200);
      assert.equal((await ask('GET http://user@elsewhere/v2/')).status, 400);
      is(await ask('GET http://elsewhere/v2/../x/tags/list'), 400, 'NAME_INVALID');
    });

    test('without credentials nothing of a body is asked for', async () => {
      const nobody = `${registry.as('nobody')}Expect: 100-continue\r\nContent-Length: 1000000\r\n`;
      for (const line of ['PUT /v2/a/manifests/v1', 'POST /v2/a/blobs/uploads/', 'PATCH /v2/a/blobs/uploads/x'])
        is(parse(await send(`${line} HTTP/1.1\r\n${HOST}Connection: close\r\n${nobody}\r\n`)), 401, 'UNAUTHORIZED');
      const data = indexOf([]);
      const socket = await tcp(registry.port);
      const expect = `Expect: 100-continue\r\nContent-Type: ${OCI_INDEX}\r\nContent-Length: ${data.length}\r\n`;
      socket.write(
        `PUT /v2/a/manifests/v1 HTTP/1.1\r\n${HOST}${registry.as('tester')}Connection: close\r\n${expect}\r\n`,
      );
      const [first] = await once(socket, 'data');
      assert.equal(String(first), 'HTTP/1.1 100 Continue\r\n\r\n');
      socket.write(data);
      assert.equal(parse(await all(socket)).status, 201);
    });

    test('TRACE, CONNECT and unknown methods, on any path, whoever asks', async () => {
      for (const method of ['TRACE', 'CONNECT', 'FOO', 'PROPFIND', 'get', 'SEARCH', 'M-SEARCH'])
        for (const target of method === 'CONNECT'
          ? ['registry.example.com:443']
          : ['/v2/', '/v2/a/manifests/v1', '/', '/x']) {
          const answer = await ask(`${method} ${target}`, '', '', 'nobody');
          is(answer, 405, 'UNSUPPORTED', `${method} ${target}`);
        }
      for (const line of ['POST /v2/a/manifests/v1', 'PUT /v2/_catalog', 'PATCH /v2/a/tags/list', 'OPTIONS /v2/'])
        is(await ask(line, 'Content-Length: 0\r\n'), 405, 'UNSUPPORTED', line);
      is(await ask('OPTIONS *'), 404, 'UNSUPPORTED');
    });

    test('a spoofed Host or X-Forwarded-* leads nobody elsewhere', async () => {
      const headers =
        'X-Forwarded-Host: evil\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Prefix: /evil\r\nForwarded: host=evil\r\n';
      const text = await send(
        `POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: evil\r\n${registry.as('tester')}Connection: close\r\n${headers}Content-Length: 0\r\n\r\n`,
      );
      const answer = parse(text);
      assert.equal(answer.status, 202);
      assert.match(answer.headers, /\r\nLocation: \/v2\/a\/blobs\/uploads\//);
      assert.doesNotMatch(text, /evil/);
    });

    test('manifests that point where nobody may look', async () => {
      const secret = randomBytes(100);
      const digest = await registry.pushBlob('hidden/layers', secret, 'insider');
      const config = Buffer.from('{}');
      await registry.pushBlob('spy', config);
      const spying = manifestOf(config, [], { layers: [descriptorOf(secret, OCI_LAYER)] });
      is(await put('PUT /v2/spy/manifests/v1', OCI_MANIFEST, spying), 400, 'MANIFEST_BLOB_UNKNOWN');
      for (const method of ['GET', 'HEAD']) assert.equal((await ask(`${method} /v2/spy/blobs/${digest}`)).status, 404);
    });
  });
}
