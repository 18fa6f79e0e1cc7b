import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import http from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import type { ImagePair } from '../../src/copy/copy.js';
import { Engine } from '../../src/copy/engine.js';
import { EngineSource, EngineTarget } from '../../src/copy/engine-place.js';
import type { ImageSource, ImageTarget } from '../../src/copy/place.js';
import { RegistryClient } from '../../src/copy/registry-client.js';
import { RegistryPlace } from '../../src/copy/registry-place.js';
import { readManifest } from '../../src/store/manifest.js';
import { readTar } from '../../src/tar.js';
import { dockerImage, savedByOldDocker, tarOf } from '../support/archives.js';
import { copyAll, pair } from '../support/copying.js';
import {
  descriptorOf,
  digestOf,
  indexOf,
  manifestOf,
  OCI_INDEX,
  OCI_MANIFEST,
  RegistryFixture,
} from '../support/registry-fixture.js';

/** Stands for the Docker Engine where it has to answer what the real one does not at will; that one is in test/e2e. */
let engine: http.Server;
let answer: (request: http.IncomingMessage, response: http.ServerResponse) => unknown;
let registry: RegistryFixture;
let dir: string;
let place: RegistryPlace;
before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'registry-engine-'));
  registry = await RegistryFixture.start();
  engine = http.createServer((request, response) => answer(request, response));
  await new Promise<void>(resolve => engine.listen(join(dir, 's'), resolve));
});
beforeEach(() => {
  const client = new RegistryClient({ host: `127.0.0.1:${registry.port}`, ca: [], login: undefined, plain: true });
  place = new RegistryPlace(client);
});
afterEach(() => place.close());
after(async () => {
  engine.closeAllConnections();
  engine.close();
  assert.deepEqual(registry.faults, []);
  await registry.stop();
  await rm(dir, { recursive: true });
});

const docker = () => Engine.find({ DOCKER_HOST: `unix://${join(dir, 's')}` });
const copy = (from: ImageSource, to: ImageTarget, ...pairs: readonly ImagePair[]) => copyAll(from, to, pairs);

const image = dockerImage([randomBytes(200_000), Buffer.alloc(100_000)]);
const json = (response: http.ServerResponse, status: number, value: unknown) =>
  response.writeHead(status, { 'Content-Type': 'application/json' }).end(JSON.stringify(value));

test('an image of the Engine is saved once, under the very name or one with a host before it', async () => {
  const id = digestOf(image.config);
  const names = ['registry.example.com/team/app:v1', 'local:v1'];
  const asked: string[] = [];
  answer = async (request, response) => {
    asked.push(request.url!);
    if (request.url === '/version') return json(response, 200, {});
    if (request.url === '/images/json') return json(response, 200, [{ Id: id, RepoTags: names }]);
    const [, name, what] = /^\/images\/(.*)\/(json|get)$/.exec(request.url!)!;
    if (![...names, id].includes(name!)) return json(response, 404, { message: 'No such image' });
    if (what === 'json') return json(response, 200, { Id: id, Size: 300_000 });
    return response.end(await tarOf(savedByOldDocker([{ tags: null, image }])));
  };
  const source = await EngineSource.open(docker(), undefined);
  const { problems } = await copy(source, place, pair('team/app', 'v1'), pair('local', 'v1'), pair('none', 'v1'));
  assert.deepEqual(problems, ['the Docker Engine has no none:v1']);
  assert.deepEqual(
    asked.filter(url => url.endsWith('/get')).sort(),
    ['/images/local:v1/get', `/images/${id}/get`].sort(),
  );
  for (const repository of ['team/app', 'local']) {
    const manifest = JSON.parse((await registry.call('GET', `/v2/${repository}/manifests/v1`)).body.toString());
    const layer = await registry.call('GET', `/v2/${repository}/blobs/${manifest.layers[0].digest}`);
    assert.ok(gunzipSync(layer.body).equals(image.layers[0]!));
  }
  assert.deepEqual(await source.about('team/app', 'v1'), { digest: id, bytes: 300_000 });
  await source.close();
});

test('an image is loaded as Docker takes it: one platform of it, and under its whole name', async () => {
  const amd = await registry.pushImage('team/app', 'amd');
  const arm = await registry.pushImage('team/app', 'arm');
  const manifests = [amd, arm].map(({ data }, at) => ({
    ...descriptorOf(data, OCI_MANIFEST),
    platform: { os: 'linux', architecture: ['amd64', 'arm64'][at] },
  }));
  await registry.pushManifest('team/app', 'v1', indexOf([], { manifests }), OCI_INDEX);
  const loaded = new Map<string, Buffer>();
  let id: string | undefined;
  answer = async (request, response) => {
    if (request.url === '/version') return json(response, 200, { Os: 'linux', Arch: 'arm64' });
    if (request.url === '/info') return json(response, 404, {});
    if (request.url!.endsWith('/json'))
      return id === undefined ? json(response, 404, { message: 'No such image' }) : json(response, 200, { Id: id });
    assert.equal(request.url, '/images/load?quiet=1');
    for await (const { name, body } of readTar(request)) {
      const chunks: Buffer[] = [];
      for await (const chunk of body) chunks.push(Buffer.from(chunk));
      loaded.set(name, Buffer.concat(chunks));
    }
    return json(response, 200, { stream: 'Loaded image' });
  };
  const target = await EngineTarget.open(docker(), 'registry.example.com:5000');
  const done = await copy(place, target, pair('team/app', 'v1'));
  assert.deepEqual([done.problems, done.images[0]!.outcome], [[], 'new']);
  const [item] = JSON.parse(loaded.get('manifest.json')!.toString());
  assert.deepEqual(item.RepoTags, ['registry.example.com:5000/team/app:v1']);
  assert.equal(digestOf(loaded.get(item.Config)!), arm.config);
  assert.deepEqual(
    item.Layers.map((path: string) => digestOf(loaded.get(path)!)),
    [arm.layer],
  );
  assert.ok(loaded.get(`blobs/sha256/${arm.digest.slice(7)}`)!.equals(arm.data));
  id = arm.config;
  assert.equal((await copy(place, target, pair('team/app', 'v1'))).images[0]!.outcome, 'same');
  id = amd.config;
  assert.equal((await copy(place, target, pair('team/app', 'v1'))).images[0]!.outcome, 'moved');
  const foreign = await EngineTarget.open(docker(), undefined);
  await registry.pushManifest('team/app', 'none', indexOf([], { manifests: [] }), OCI_INDEX);
  assert.match((await copy(place, foreign, pair('team/app', 'none'))).problems[0]!, /has no image for linux\/arm64/);
});

test('layers that the Engine has are not sent, unless it turns out not to have them', async () => {
  const { config, layers } = dockerImage(['base', 'middle', 'top'].map(text => Buffer.from(text)));
  for (const blob of [config, ...layers]) await registry.pushBlob('layered', blob);
  await registry.pushManifest('layered', 'v1', manifestOf(config, layers));
  const [base, middle, top] = layers.map(layer => digestOf(layer));
  const sent: string[][] = [];
  let status: unknown[] = [];
  let has: unknown[] = [];
  answer = async (request, response) => {
    if (request.url === '/version') return json(response, 200, { Os: 'linux', Arch: 'amd64' });
    if (request.url === '/info') return json(response, 200, { Driver: 'overlay2', DriverStatus: status });
    if (request.url === '/images/json') return json(response, 200, [{ Id: 'sha256:other', RepoTags: null }]);
    if (request.url === '/images/sha256:other/json') return json(response, 200, { RootFS: { Layers: has } });
    if (request.method === 'GET') return json(response, 404, {});
    const names: string[] = [];
    for await (const { name } of readTar(request)) names.push(name);
    sent.push(layers.map(layer => `blobs/sha256/${digestOf(layer).slice(7)}`).filter(name => names.includes(name)));
    return sent.length === 1 && has.length === 2
      ? json(response, 500, { message: 'no such file' })
      : json(response, 200, {});
  };
  const path = (digest: string | undefined) => `blobs/sha256/${digest!.slice(7)}`;
  const all = [base, middle, top].map(path);
  for (const [present, kind, expected] of [
    [[base, middle], [], [[path(top)], all]],
    // A layer is another one on top of others.
    [[middle, base, top], [], [all]],
    [[base], [['driver-type', 'io.containerd.snapshotter.v1']], [all]],
    [[base, 'sha256:another'], [], [[path(middle), path(top)], all]],
  ] as const) {
    [has, status] = [[...present], [...kind]];
    sent.length = 0;
    const target = await EngineTarget.open(docker(), undefined);
    assert.deepEqual((await copy(place, target, pair('layered', 'v1'))).problems, []);
    assert.deepEqual(sent, expected);
  }
});

test('what the Engine says against it is told, whenever it says so; and what the source does', async () => {
  // More than any buffer on the way holds.
  const [config, bytes] = [Buffer.from('{}'), randomBytes(8 << 20)];
  const layer = await registry.pushBlob('app', bytes);
  await registry.pushBlob('app', config);
  await registry.pushManifest('app', 'v1', manifestOf(config, [bytes]));
  let load: (request: http.IncomingMessage, response: http.ServerResponse) => unknown = () => {};
  answer = (request, response) => {
    if (request.url === '/version') return json(response, 200, { Os: 'linux', Arch: 'amd64' });
    return request.method === 'GET' ? json(response, 404, {}) : load(request, response);
  };
  const target = await EngineTarget.open(docker(), undefined);
  for (const [behaviour, message] of [
    [
      (request, response) => {
        request.resume().on('end', () => json(response, 500, { message: 'no space left on device' }));
      },
      /the Docker Engine says: no space left on device/,
    ],
    [(_, response) => json(response, 403, { message: 'refused at once' }), /says: refused at once/],
    [
      (request, response) => {
        response.writeHead(200).write('{"stream":"…"}\n');
        request.resume().on('end', () => response.end('{"errorDetail":{"message":"x"},"error":"invalid diffID"}\n'));
      },
      /says: invalid diffID/,
    ],
    [request => request.socket.destroy(), /no Docker Engine answers at/],
  ] as Array<[typeof load, RegExp]>) {
    load = behaviour;
    assert.match((await copy(place, target, pair('app', 'v1'))).problems[0] ?? 'none', message);
  }
  load = (request, response) => request.resume().on('close', () => response.destroy());
  const { openBlob } = place;
  place.openBlob = (repository, blob) =>
    blob.digest === layer
      ? async function* () {
          yield Buffer.alloc(blob.size);
        }
      : openBlob.call(place, repository, blob);
  assert.match((await copy(place, target, pair('app', 'v1'))).problems[0]!, /are not what the digest says/);
});

test('an Engine that answers early, and takes no more then, is heard to the end', async () => {
  for (const [line, message] of [
    ['{"error":"disk is full"}\n', /says: disk is full/],
    ['{"error":"disk is fu', /says: {"error":"disk is fu/],
    ['{"stream":"…"}\n', /the Docker Engine has broken off/],
  ] as const) {
    answer = (request, response) => {
      response.writeHead(200, { 'Content-Length': 1000 });
      response.write(`{"stream":"…"}\n${line}`, () => request.socket.destroySoon());
    };
    // In one piece, of which it reads the beginning.
    const loading = docker().load(write => write(Buffer.alloc(8 << 20)));
    await assert.rejects(loading, { name: 'OperatorError', message });
  }
});

test('one image that cannot be saved is no matter of the others; nor is an answer that is none', async () => {
  const names = ['good:v1', 'bad:v1'];
  const id = digestOf(image.config);
  let isBadAsked: () => void;
  const badAsked = new Promise<void>(resolve => {
    isBadAsked = resolve;
  });
  answer = async (request, response) => {
    if (request.url === '/version') return json(response, 200, {});
    if (request.url === '/images/json') return json(response, 200, [{ Id: id, RepoTags: names }]);
    const [, name, what] = /^\/images\/(.*)\/(json|get)$/.exec(request.url!)!;
    if (what === 'json') return json(response, 200, { Id: id, Size: 300_000 });
    if (name === 'good:v1') {
      await badAsked;
      return response.end(await tarOf(savedByOldDocker([{ tags: null, image }])));
    }
    isBadAsked();
    return json(response, 500, { message: 'layer is gone' });
  };
  const source = await EngineSource.open(docker(), undefined);
  const bad = assert.rejects(source.manifest('bad', 'v1'), { message: /says: layer is gone/ });
  const good = await source.manifest('good', 'v1');
  await bad;
  // Both are kept until they are released.
  const [blob] = readManifest(good!.data)!.blobs;
  for await (const _ of source.openBlob('good', blob!)(0));
  assert.ok(await source.manifest('good', good!.digest));
  await source.close();

  answer = (_, response) => response.end('<html>');
  await assert.rejects(docker().get('/images/json'), { name: 'OperatorError', message: /with what is no JSON/ });
  answer = (request, response) =>
    response.writeHead(200, { 'Content-Length': 9 }).write('{', () => request.socket.destroy());
  await assert.rejects(docker().get('/images/json'), { name: 'OperatorError', message: /has broken off/ });
});

test('an Engine that is not there, or elsewhere', async () => {
  await assert.rejects(EngineTarget.open(Engine.find({ DOCKER_HOST: `unix://${dir}/none` }), undefined), {
    message: /no Docker Engine answers at .*none \(ENOENT\)/,
    fix: /start it, or set DOCKER_HOST/,
  });
  assert.throws(() => Engine.find({ DOCKER_HOST: 'tcp://10.0.0.1:2376' }), /only an Engine of this machine/);
  assert.equal(Engine.find({}).socket, '/var/run/docker.sock');
});
