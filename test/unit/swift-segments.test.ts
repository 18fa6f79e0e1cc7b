import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import http, { type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { buffer } from 'node:stream/consumers';
import { after, before, beforeEach, test } from 'node:test';
import { newWrite } from '../../src/storage/object/store.js';
import { SwiftStore } from '../../src/storage/swift.js';

interface Kept {
  readonly body: Buffer;
  readonly headers: Record<string, string>;
}

/** What is in the container, by name; a large object's body is its manifest. */
const objects = new Map<string, Kept>();
/** How the next manifests are answered: not at all, though they stand, or with this status, and they do not. */
let manifests: 'lost' | number | undefined;
/** What happens while the next object is looked for: it is not found, since whoever looks has the name of its old file alone. */
let meanwhile: (() => Promise<unknown>) | undefined;
/** What objects wait for before they are written. */
let gate: Promise<void> | undefined;
/** How many of the next logins fail with 404. */
let absentLogins = 0;
/** Whether sizes are left out. */
let sizeless = false;
/** How often objects were looked for. */
let looks = 0;
let clock = 1_000_000;
let server: http.Server;
let store: SwiftStore;

const md5 = (data: Uint8Array | string) => createHash('md5').update(data).digest('hex');

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { pathname, searchParams } = new URL(request.url!, 'http://localhost');
  const body = await buffer(request);
  const { method, headers } = request;
  if (pathname === '/auth/v1.0') {
    if (absentLogins-- > 0) return void response.writeHead(404).end();
    const storage = `http://${headers.host}/v1/a`;
    return void response.writeHead(200, { 'x-auth-token': 't', 'x-storage-url': storage }).end();
  }
  const name = decodeURIComponent(pathname.slice('/v1/a/images/'.length));
  const found = objects.get(name);
  const meta = Object.fromEntries(Object.entries(headers).filter(([key]) => key.startsWith('x-object-meta-')));
  const own = { ...(meta as Record<string, string>), 'x-timestamp': String(++clock) };
  if (method === 'PUT') {
    await gate;
    if (searchParams.get('multipart-manifest') === 'put') {
      if (typeof manifests === 'number') return void response.writeHead(manifests).end();
      objects.set(name, { body, headers: { ...own, 'x-static-large-object': 'true' } });
      if (manifests === 'lost') return void request.socket.destroy();
    } else {
      const from = decodeURIComponent(String(headers['x-copy-from'] ?? '')).slice('images/'.length);
      const data = from === '' ? body : objects.get(from)!.body;
      objects.set(name, { body: data, headers: { ...own, etag: md5(data) } });
    }
    return void response.writeHead(201).end();
  }
  if (method === 'GET' || method === 'HEAD') looks++;
  if (meanwhile && (method === 'GET' || method === 'HEAD')) {
    const happens = meanwhile;
    meanwhile = undefined;
    await happens();
    return void response.writeHead(404).end();
  }
  if (!found) return void response.writeHead(404).end();
  if (method === 'DELETE') objects.delete(name);
  if (method === 'POST') objects.set(name, { ...found, headers: { ...found.headers, ...own } });
  if (method === 'DELETE' || method === 'POST') return void response.writeHead(204).end();
  const parts = found.headers['x-static-large-object']
    ? (JSON.parse(found.body.toString()) as Array<{ path: string; size_bytes: number; etag: string }>)
    : undefined;
  const isManifest = searchParams.get('multipart-manifest') === 'get';
  const listed = parts?.map(({ path, size_bytes: bytes, etag: hash }) => ({ name: path, bytes, hash }));
  const data = isManifest
    ? Buffer.from(JSON.stringify(listed))
    : Buffer.concat(
        parts?.map(({ path }) => objects.get(path.slice('/images/'.length))?.body ?? Buffer.alloc(0)) ?? [found.body],
      );
  response.writeHead(200, { ...found.headers, ...(!sizeless && { 'content-length': data.length }) });
  response.end(method === 'HEAD' ? undefined : data);
}

before(async () => {
  server = http.createServer((request, response) => {
    answer(request, response).catch(() => response.destroy());
  });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
});
beforeEach(() => {
  objects.clear();
  manifests = undefined;
  store = new SwiftStore({
    authUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}/auth/v1.0`,
    authVersion: 1,
    login: { user: 'alice', password: 'hush' },
    interface: 'public',
    container: 'images',
    root: '',
    skipVerify: false,
  });
});
after(() => {
  store?.close();
  server.closeAllConnections();
  server.close();
});

const segments = () => [...objects.keys()].filter(name => name.startsWith('segments/'));
const put = async (key: string, text: string) => {
  await store.put(key, Buffer.from(text), { write: newWrite() });
  return { key, size: text.length };
};

for (const [how, size] of [
  ['find', async () => (await store.find('link'))?.info.size],
  ['get', async () => (await store.get('link').then(read => read && buffer(read.body)))?.length],
] as const)
  test(`${how} finds what is replaced meanwhile, and not what is removed`, async () => {
    await put('link', 'one');
    meanwhile = () => put('link', 'three');
    assert.equal(await size(), 5);

    let open = () => {};
    gate = new Promise(resolve => {
      open = resolve;
    });
    const putting = put('link', 'seventh');
    meanwhile = async () => {
      open();
      await putting;
    };
    assert.equal(await size(), 7, 'also where that began before');

    meanwhile = () => store.drop('link');
    assert.equal(await size(), undefined);
  });

test('what is not there is looked for once more where it is being written, by all at the same time, and else once', async () => {
  await put('other', 'one');
  looks = 0;
  const absent = () => Promise.all(Array.from({ length: 20 }, () => store.find('absent')));
  const [found] = await Promise.all([absent(), put('other', 'two')]);
  assert.deepEqual([found.filter(Boolean).length, looks], [0, 20]);

  let open = () => {};
  gate = new Promise(resolve => {
    open = resolve;
  });
  const putting = put('absent', 'seven');
  const finding = absent();
  while (looks < 40) await new Promise(setImmediate);
  open();
  await putting;
  const sizes = (await finding).map(one => one?.info.size);
  assert.deepEqual([new Set(sizes), looks], [new Set([5]), 60]);
});

test('a manifest whose answer was lost keeps its segments, and one that was refused does not', async () => {
  const pieces = [await put('u/1', 'one'), await put('u/2', 'two')];
  manifests = 'lost';
  await assert.rejects(store.join(pieces, 'data'), { name: 'StorageError', kind: 'unavailable' });
  assert.equal(segments().length, 2);
  const read = await store.get('data');
  assert.equal((await buffer(read!.body)).toString(), 'onetwo');
  objects.delete('files/data');
  manifests = 413;
  await assert.rejects(store.join(pieces, 'data'), { name: 'StorageError', kind: 'full' });
  assert.equal(segments().length, 2, 'those of the first alone');
});

test('an upload that is given up takes its manifest along where that stands', async () => {
  const upload = store.startUpload('u/1');
  const part = await store.uploadPart(upload, 1, Buffer.from('one'));
  manifests = 'lost';
  await assert.rejects(store.completeUpload(upload, [part]), { name: 'StorageError' });
  await store.abortUpload(upload, [part]);
  assert.deepEqual([...objects.keys()], []);
});

test('the same bytes again leave the segments to those who read them, and others replace them', async () => {
  const pieces = [await put('u/1', 'one'), await put('u/2', 'two')];
  await store.join(pieces, 'data');
  const before = (await store.find('data'))!;
  const there = segments();
  await store.join(pieces, 'data');
  const renewed = (await store.find('data'))!;
  assert.deepEqual(segments(), there);
  assert.notEqual(renewed.etag, before.etag);
  assert.equal(renewed.bytes, before.bytes, 'a read that breaks off can go on');
  await store.join([pieces[0]!, await put('u/3', 'TWO')], 'data');
  assert.equal(segments().filter(name => there.includes(name)).length, 0);
  assert.notEqual((await store.find('data'))!.bytes, before.bytes);
});

test('a login that is not there for a moment is asked for again, and is never an object that is not there', async () => {
  absentLogins = 1;
  await put('x', 'y');
  assert.equal((await store.find('x'))?.info.size, 1);
});

test('an object whose size is not told is no empty one', async () => {
  await put('x', 'y');
  sizeless = true;
  try {
    await assert.rejects(store.find('x'), { name: 'StorageError', message: /does not tell the size/ });
  } finally {
    sizeless = false;
  }
});
