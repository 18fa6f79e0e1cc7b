import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { truncateSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import http from 'node:http';
import net, { type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { RegistryClient } from '../../src/copy/registry-client.js';
import { RegistryPlace } from '../../src/copy/registry-place.js';
import { StorePlace } from '../../src/copy/store-place.js';
import { FilesystemDriver } from '../../src/storage/filesystem.js';
import { layout } from '../../src/store/layout.js';
import { Store } from '../../src/store/store.js';
import { copyAll as copy, pair } from '../support/copying.js';
import {
  descriptorOf,
  indexOf,
  manifestOf,
  OCI_INDEX,
  OCI_MANIFEST,
  RegistryFixture,
} from '../support/registry-fixture.js';

let source: RegistryFixture;
let target: RegistryFixture;
const closers: Array<() => unknown> = [];
beforeEach(async () => {
  source = await RegistryFixture.start();
  target = await RegistryFixture.start();
});
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
  assert.deepEqual([...source.faults, ...target.faults], []);
  await source.stop();
  await target.stop();
});

function registryAt(port: number, options: { tries?: number } = {}): RegistryPlace {
  const client = new RegistryClient({ host: `127.0.0.1:${port}`, ca: [], login: undefined, plain: true, ...options });
  const place = new RegistryPlace(client);
  closers.push(() => place.close());
  return place;
}

async function opened(root: string): Promise<ConstructorParameters<typeof StorePlace>> {
  const driver = new FilesystemDriver({ root });
  await driver.open();
  const validation = { urls: undefined, indexes: 'all', images: 'all' } as const;
  return [driver, new Store(driver, { largestManifest: 4 << 20, validation }), root];
}

async function folder(): Promise<{ root: string; place: StorePlace }> {
  const root = await mkdtemp(join(tmpdir(), 'registry-copy-'));
  const place = new StorePlace(...(await opened(root)));
  closers.push(async () => {
    await place.close();
    await rm(root, { recursive: true });
  });
  return { root, place };
}

test('an image goes with its platforms, its signature and what that has; then nothing is left to do', async () => {
  const arm = await source.pushImage('team/app', 'arm');
  const amd = await source.pushImage('team/app', 'amd');
  const index = indexOf([arm.data, amd.data]);
  await source.pushManifest('team/app', 'v1', index, OCI_INDEX);
  const { digest } = descriptorOf(index, OCI_INDEX);
  const signature = await source.pushImage('team/app', 'sig', { subject: descriptorOf(index, OCI_INDEX) });
  const attested = { subject: descriptorOf(signature.data, OCI_MANIFEST) };
  const attestation = await source.pushImage('team/app', 'att', attested);

  const [from, to] = [registryAt(source.port), registryAt(target.port)];
  const first = await copy(from, to, [pair('team/app', 'v1', 'other/app')]);
  assert.deepEqual(first.problems, []);
  assert.deepEqual([first.report.images.new, first.report.blobs.copied], [1, 8]);
  const got = await target.call('GET', '/v2/other/app/manifests/v1');
  assert.deepEqual([got.status, got.body.equals(index), got.headers['content-type']], [200, true, OCI_INDEX]);
  for (const one of [arm, amd, signature, attestation]) {
    assert.equal((await target.call('HEAD', `/v2/other/app/manifests/${one.digest}`)).status, 200);
    for (const blob of [one.config, one.layer])
      assert.equal((await target.call('HEAD', `/v2/other/app/blobs/${blob}`)).status, 200);
  }
  const referrers = (await target.call('GET', `/v2/other/app/referrers/${digest}`)).json() as {
    manifests: Array<{ digest: string }>;
  };
  assert.deepEqual(
    referrers.manifests.map(one => one.digest),
    [signature.digest],
  );
  // Only what was asked for, and what belongs to it.
  assert.equal((await target.call('HEAD', '/v2/other/app/manifests/arm')).status, 404);

  const again = await copy(from, to, [pair('team/app', 'v1', 'other/app')]);
  assert.deepEqual([again.report.images.same, again.report.blobs], [1, { copied: 0, mounted: 0, present: 0 }]);
  // A signature that came later comes later.
  const late = await source.pushImage('team/app', 'late', { subject: descriptorOf(index, OCI_INDEX) });
  const third = await copy(from, to, [pair('team/app', 'v1', 'other/app')]);
  assert.deepEqual([third.report.images.same, third.report.blobs.copied], [1, 2]);
  assert.equal((await target.call('HEAD', `/v2/other/app/manifests/${late.digest}`)).status, 200);
});

test('the signature of a platform goes along, and lists that name one another end', async () => {
  const amd = await source.pushImage('team/app', 'amd');
  const index = indexOf([amd.data]);
  await source.pushManifest('team/app', 'v1', index, OCI_INDEX);
  const ofPlatform = await source.pushImage('team/app', 'x', { subject: descriptorOf(amd.data, OCI_MANIFEST) });
  // As clients of a registry without the API keep them: by tags, which may say anything.
  for (const [of, names] of [
    [amd.digest, ofPlatform.data],
    [ofPlatform.digest, amd.data],
  ] as const)
    await source.pushManifest('team/app', of.replace(':', '-'), indexOf([names]), OCI_INDEX);
  const { report, problems } = await copy(registryAt(source.port), registryAt(target.port), [pair('team/app', 'v1')]);
  assert.deepEqual([problems, report.images.new], [[], 1]);
  assert.equal((await target.call('HEAD', `/v2/team/app/manifests/${ofPlatform.digest}`)).status, 200);
});

interface Own {
  readonly status: number;
  readonly headers?: http.OutgoingHttpHeaders;
}

/** A registry behind something that answers some requests by itself. */
async function instead(
  port: number,
  answer: (request: http.IncomingMessage) => Own | undefined | Promise<Own>,
): Promise<number> {
  const server = http.createServer(async (request, response) => {
    const given = answer(request);
    const own = given instanceof Promise ? await given : given;
    if (own) {
      request.resume();
      response.writeHead(own.status, own.headers).end();
      return;
    }
    const { method, url, headers } = request;
    const asked = http.request({ host: '127.0.0.1', port, method, path: url, headers, agent: false }, answered => {
      response.writeHead(answered.statusCode!, answered.headers);
      answered.pipe(response);
    });
    asked.on('error', () => response.destroy());
    request.pipe(asked);
  });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  closers.push(() => {
    server.closeAllConnections();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

test('a source without the referrers API has a list under a tag; a target that mounts nothing has the bytes sent', async () => {
  const image = await source.pushImage('a', 'v1');
  const signature = await source.pushImage('a', 'sig', { subject: descriptorOf(image.data, OCI_MANIFEST) });
  await source.pushManifest('a', image.digest.replace(':', '-'), indexOf([signature.data]), OCI_INDEX);
  const from = registryAt(
    await instead(source.port, ({ url }) => (url!.includes('/referrers/') ? { status: 404 } : undefined)),
  );
  const to = registryAt(
    await instead(target.port, ({ url }) => (url!.includes('mount=') ? { status: 405 } : undefined)),
  );
  const { report, problems } = await copy(from, to, [pair('a', 'v1'), pair('a', 'v1', 'b')], { jobs: 1 });
  assert.deepEqual([problems, report.images.new, report.blobs.mounted], [[], 2, 0]);
  for (const repository of ['a', 'b'])
    assert.equal((await target.call('HEAD', `/v2/${repository}/manifests/${signature.digest}`)).status, 200);
});

test('an answer that is lost at the end of an upload is no failure', async () => {
  await source.pushImage('a', 'v1');
  let lost = 0;
  const port = await instead(target.port, request => {
    if (request.method !== 'PUT' || !request.url!.includes('digest=') || lost++ > 0) return undefined;
    // It arrives, and nobody hears of it.
    const { url, headers } = request;
    const onward = http.request({
      host: '127.0.0.1',
      port: target.port,
      method: 'PUT',
      path: url,
      headers,
      agent: false,
    });
    return once(onward.end(), 'response').then(() => ({ status: 502 }));
  });
  const { problems } = await copy(registryAt(source.port), registryAt(port), [pair('a', 'v1')], { jobs: 1 });
  assert.deepEqual([problems, lost > 0], [[], true]);
  assert.equal((await target.call('HEAD', '/v2/a/manifests/v1')).status, 200);
});

test('layers that another repository has are mounted, those of two images are copied once', async () => {
  const config = Buffer.from('{"shared":true}');
  const layer = randomBytes(200_000);
  for (const repository of ['a', 'b']) {
    for (const blob of [config, layer]) await source.pushBlob(repository, blob);
    for (const tag of ['one', 'two'])
      await source.pushManifest(repository, tag, manifestOf(config, [layer], { annotations: { tag } }));
  }
  const pairs = ['one', 'two'].map(tag => pair('a', tag));
  const first = await copy(registryAt(source.port), registryAt(target.port), [...pairs, pair('b', 'one')], { jobs: 1 });
  assert.deepEqual(first.problems, []);
  const { copied, mounted, present } = first.report.blobs;
  assert.deepEqual([copied, mounted, present, first.report.bytes], [2, 2, 2, config.length + layer.length]);
  const together = await copy(registryAt(source.port), (await folder()).place, pairs);
  assert.deepEqual([together.report.blobs.copied, together.problems], [2, []]);
  // Another day, into another repository of a folder.
  const { root } = await folder();
  const days: unknown[] = [];
  for (const repository of ['first', 'later']) {
    const day = new StorePlace(...(await opened(root)));
    const { report, problems } = await copy(registryAt(source.port), day, [pair('a', 'one', repository)]);
    days.push([report.blobs.copied, report.blobs.mounted, problems]);
  }
  assert.deepEqual(days, [
    [2, 0, []],
    [0, 2, []],
  ]);
});

test('a dry run says what would be copied, and copies nothing', async () => {
  const { layer, config } = await source.pushImage('team/app', 'v1');
  const dry = await copy(registryAt(source.port), registryAt(target.port), [pair('team/app', 'v1')], { dryRun: true });
  assert.deepEqual([dry.images[0]!.outcome, dry.images[0]!.bytes > 100], ['new', true]);
  assert.equal((await target.call('GET', '/v2/_catalog')).body.toString(), '{"repositories":[]}');
  for (const blob of [layer, config])
    assert.equal((await target.call('HEAD', `/v2/team/app/blobs/${blob}`)).status, 404);
});

test('tags move to what the source has, and what fails is said while the rest goes on', async () => {
  await target.pushImage('team/app', 'v1');
  const { digest } = await source.pushImage('team/app', 'v1');
  await source.pushImage('team/app', 'v2');
  const places = [registryAt(source.port), registryAt(target.port)] as const;
  const done = await copy(...places, [pair('team/app', 'v1'), pair('team/app', 'none'), pair('team/app', 'v2')]);
  assert.deepEqual(done.report.images, { new: 1, moved: 1, same: 0, failed: 1 });
  assert.match(done.problems[0]!, /^127\.0\.0\.1:\d+ has no team\/app:none$/);
  assert.equal((await target.call('HEAD', '/v2/team/app/manifests/v1')).headers['docker-content-digest'], digest);
  const byDigest = await copy(...places, [pair('team/app', digest, 'by/digest')]);
  assert.deepEqual([byDigest.report.images.new, byDigest.problems], [1, []]);
  assert.equal((await target.call('HEAD', `/v2/by/digest/manifests/${digest}`)).status, 200);
});

test('folders are places as well: what is written is served at once, and the other way round', async () => {
  const image = await source.pushImage('team/app', 'v1');
  const empty = Buffer.alloc(0);
  await source.pushBlob('team/app', empty);
  await source.pushManifest('team/app', 'empty', manifestOf(empty, []));
  const { root, place } = await folder();
  const there = await copy(registryAt(source.port), place, [pair('team/app', 'v1'), pair('team/app', 'empty')]);
  assert.deepEqual([there.problems, there.report.images.new], [[], 2]);
  const served = await RegistryFixture.start({ root });
  closers.push(() => served.stop({ keep: true }));
  assert.ok((await served.call('GET', '/v2/team/app/manifests/v1')).body.equals(image.data));

  const repositories: string[] = [];
  for await (const name of place.repositories())
    for await (const tag of place.tags(name)) repositories.push(`${name}:${tag}`);
  assert.deepEqual(repositories, ['team/app:empty', 'team/app:v1']);
  const back = await copy(place, registryAt(target.port), [pair('team/app', 'v1'), pair('team/app', 'empty')]);
  assert.deepEqual([back.problems, back.report.blobs.copied], [[], 3]);
  assert.ok((await target.call('GET', '/v2/team/app/manifests/v1')).body.equals(image.data));
});

test('pages of long lists are followed', async () => {
  const { root } = await folder();
  // Nobody has to wait for a disk here.
  const driver = new FilesystemDriver({ root, sync: async () => {} });
  const long = await RegistryFixture.start({ root, driver });
  closers.push(() => long.stop({ keep: true }));
  const config = Buffer.from('{}');
  await long.pushBlob('many', config);
  const data = manifestOf(config, []);
  const put = (_: unknown, tag: number) => long.store.manifests.put('many', { tags: [`t${tag}`] }, data, {});
  await Promise.all(Array.from({ length: 501 }, put));
  let tags = 0;
  for await (const _ of registryAt(long.port).tags('many')) tags++;
  assert.equal(tags, 501);
});

describe('what goes wrong', () => {
  /** Between a client and a registry: cuts each connection after so many bytes, the first times. */
  async function cutter(port: number, { after, times }: { after: number; times: number }): Promise<number> {
    let cuts = times;
    const server = net.createServer(client => {
      const upstream = net.connect(port, '127.0.0.1');
      let bytes = 0;
      for (const [one, other] of [
        [client, upstream],
        [upstream, client],
      ] as const) {
        one.on('data', chunk => {
          bytes += chunk.length;
          if (bytes < after || cuts <= 0) return void other.write(chunk);
          cuts--;
          client.destroy();
          upstream.destroy();
        });
        one.on('error', () => {});
        one.on('close', () => other.destroy());
      }
    });
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
    closers.push(() => new Promise(resolve => server.close(resolve)));
    return (server.address() as AddressInfo).port;
  }

  test('connections that break off, on either side: what has arrived is not sent again', async () => {
    const config = Buffer.from('{}');
    const layer = randomBytes(8 << 20);
    for (const blob of [config, layer]) await source.pushBlob('team/app', blob);
    await source.pushManifest('team/app', 'v1', manifestOf(config, [layer]));
    const from = registryAt(await cutter(source.port, { after: 3 << 20, times: 2 }));
    const to = registryAt(await cutter(target.port, { after: 3 << 20, times: 2 }));
    const { problems, report } = await copy(from, to, [pair('team/app', 'v1')]);
    assert.deepEqual([problems, report.blobs.copied], [[], 2]);
    const { digest } = descriptorOf(layer, '');
    assert.ok((await target.call('GET', `/v2/team/app/blobs/${digest}`)).body.equals(layer));
  });

  test('a source that never gives a blob whole: the tag does not appear, and the reason does', async () => {
    const config = Buffer.from('{}');
    const layer = randomBytes(1 << 20);
    for (const blob of [config, layer]) await source.pushBlob('team/app', blob);
    await source.pushManifest('team/app', 'v1', manifestOf(config, [layer]));
    // Room for a manifest, and for no chunk of a layer.
    const from = registryAt(await cutter(source.port, { after: 4_000, times: 1000 }), { tries: 1 });
    const { problems } = await copy(from, registryAt(target.port), [pair('team/app', 'v1')]);
    assert.match(problems[0]!, /has broken off in sha256:|cannot be reached/);
    assert.equal((await target.call('HEAD', '/v2/team/app/manifests/v1')).status, 404);
  });

  test('bytes that are not what their digest says are refused, and nothing of them is visible', async () => {
    const image = await source.pushImage('team/app', 'v1');
    const { place, root } = await folder();
    await copy(registryAt(source.port), place, [pair('team/app', 'v1')]);
    const path = join(root, layout.blob(image.layer));
    for (const spoil of [() => writeFileSync(path, randomBytes(100)), () => truncateSync(path, 50)]) {
      spoil();
      const { problems } = await copy(place, registryAt(target.port), [pair('team/app', 'v1')]);
      assert.equal(problems.length, 1);
      assert.match(problems[0]!, new RegExp(image.layer));
      assert.equal((await target.call('HEAD', '/v2/team/app/manifests/v1')).status, 404);
      assert.equal((await target.call('HEAD', `/v2/team/app/blobs/${image.layer}`)).status, 404);
    }
  });

  test('a registry that is full, read-only or gone', async () => {
    await source.pushImage('team/app', 'v1');
    target.readOnly = 'the registry is read-only';
    const { problems } = await copy(registryAt(source.port), registryAt(target.port), [pair('team/app', 'v1')]);
    assert.match(problems[0]!, /says: the registry is read-only/);
    const gone = registryAt(1, { tries: 1 });
    assert.match((await copy(gone, registryAt(target.port), [pair('a', 'b')])).problems[0]!, /cannot be reached/);
  });
});

describe('a login', () => {
  let hostile: http.Server;
  let port: number;
  const heard: Array<string | undefined> = [];
  let challenge = '';
  before(async () => {
    hostile = http.createServer((request, response) => {
      heard.push(request.headers.authorization);
      if (request.url!.startsWith('/token')) return void response.end('{"token":"t","expires_in":300}');
      if (request.headers.authorization === 'Bearer t') return void response.end('{"repositories":["a"]}');
      response.writeHead(401, { 'WWW-Authenticate': challenge }).end();
    });
    await new Promise<void>(resolve => hostile.listen(0, '127.0.0.1', resolve));
    ({ port } = hostile.address() as AddressInfo);
  });
  after(() => hostile.close());

  async function list(login: { user: string; password: string } | undefined): Promise<string[]> {
    const place = new RegistryPlace(
      new RegistryClient({ host: `127.0.0.1:${port}`, ca: [], login, plain: true, tries: 1 }),
    );
    const names: string[] = [];
    try {
      for await (const name of place.repositories()) names.push(name);
    } finally {
      await place.close();
    }
    return names;
  }

  test('goes to the token server of the registry itself, and the token to the registry', async () => {
    challenge = `Bearer realm="http://127.0.0.1:${port}/token",service="x"`;
    heard.length = 0;
    assert.deepEqual(await list({ user: 'alice', password: 'secret' }), ['a']);
    assert.deepEqual(heard, [undefined, `Basic ${Buffer.from('alice:secret').toString('base64')}`, 'Bearer t']);
  });

  test('never goes to another host, whatever the registry says', async () => {
    challenge = `Bearer realm="http://localhost:${port}/token",service="x"`;
    heard.length = 0;
    await assert.rejects(list({ user: 'alice', password: 'secret' }), /has nothing to do with it/);
    assert.deepEqual(heard, [undefined]);
    // Without one there is nothing to lose.
    assert.deepEqual(await list(undefined), ['a']);
  });

  test('is not sent before the registry asks for it, and what it refuses is said with the way out', async () => {
    challenge = 'Basic realm="x"';
    heard.length = 0;
    await assert.rejects(list(undefined), /answers 401 .*/);
    await assert.rejects(list({ user: 'alice', password: 'wrong' }), (error: Error & { fix?: string }) =>
      /"alice" has the right/.test(error.fix!),
    );
    assert.equal(heard[0], undefined);
  });
});
