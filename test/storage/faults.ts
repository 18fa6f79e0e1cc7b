import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { StorageDriver } from '../../src/storage/driver.js';
import { collect } from '../../src/store/collector.js';
import { scrub } from '../../src/store/scrub.js';
import { type Fault, FaultProxy, type Late } from '../support/fault-proxy.js';
import { Random } from '../support/random.js';
import { digestOf, manifestOf, OCI_MANIFEST, RegistryFixture } from '../support/registry-fixture.js';
import { collect as collectStream } from './suite.js';

const LONG = process.env.LONG === '1';

/** How many faults there are at least; it goes on until there was one of each kind, for as long as it may. */
const FAULTS = Number(process.env.FAULTS ?? (LONG ? 1_000 : 24));

/** For how long what has not happened yet is waited for (ms). */
const PATIENCE = 200_000;

const CLIENTS = 4;

const KINDS: readonly Fault[] = [
  '503 before',
  '500 after',
  'reset before',
  'reset after',
  'request cut',
  'answer cut',
  'slow',
];

const VALIDATION = { urls: undefined, indexes: 'all', images: 'all' } as const;

/** A place of a service, reached directly or through what stands before it. */
export interface FaultyPlace {
  readonly port: number;
  /** Not yet opened; with parts of 5 MiB. */
  connect(endpoint?: string): StorageDriver;
}

interface Image {
  readonly tag: string;
  readonly blobs: readonly Buffer[];
  readonly manifest: Buffer;
}

/**
 * Registers the tests of a driver whose service fails.
 * @param makePlace an empty one, each time
 * @param options.decides whether the service decides by conditions what comes late; yes unless told
 */
export function testFaults(name: string, makePlace: () => Promise<FaultyPlace>, { decides = true } = {}): void {
  describe(`${name}, whose service fails`, { timeout: LONG ? 3_600_000 : 300_000 }, () => {
    let proxy: FaultProxy;
    let driver: StorageDriver;
    before(async () => {
      const place = await makePlace();
      proxy = await FaultProxy.start(place.port, new Random(1));
      driver = place.connect(proxy.endpoint);
      await driver.open();
    });
    after(async () => {
      await driver?.close();
      await proxy?.stop();
    });

    /** Has the next requests that can meet the fault meet it. */
    const meet = async <T>(kind: Fault, work: () => Promise<T>): Promise<T> => {
      const before = proxy.count;
      Object.assign(proxy, { rate: 1, kinds: [kind], most: before + 1 });
      try {
        return await work();
      } finally {
        assert.equal(proxy.count, before + 1, `${kind} was met`);
        proxy.rate = 0;
      }
    };

    for (const kind of ['500 after', 'reset after', '503 before', 'reset before', 'request cut'] as const)
      test(`what is created, renewed and removed is that, although: ${kind}`, async () => {
        const key = `docker/steps/${kind.replace(' ', '-')}`;
        assert.equal(await meet(kind, () => driver.create(key, Buffer.from('mine'))), true);
        assert.equal((await driver.get(key))?.toString(), 'mine');
        const again = () => driver.create(key, Buffer.from('other'));
        // Some look first, and send no body then.
        assert.equal(await (kind === 'request cut' ? again() : meet(kind, again)), false);
        assert.equal((await driver.get(key))?.toString(), 'mine');
        if (kind === 'request cut') return;
        assert.equal(await meet(kind, () => driver.touch(key)), true);
        const info = (await driver.stat(key))!;
        await driver.touch(key);
        assert.equal(await driver.removeStale(key, info), false, 'it was renewed since');
        assert.equal(await meet(kind, () => driver.remove(key)), true);
        assert.equal(await driver.remove(key), false);
      });

    for (const kind of ['500 after', 'request cut'] as const)
      test(`an upload becomes an object, although: ${kind}`, async () => {
        for (const size of [1000, 12_000_000]) {
          const at = `docker/upload/${size}-${kind.replace(' ', '-')}`;
          const content = new Random(size).bytes(size);
          const writer = await driver.createSegment(`${at}/1`);
          const closed = await meet(kind, async () => {
            await writer.write(content);
            return writer.close();
          });
          assert.equal(closed, size);
          const assembled = () => driver.assemble([`${at}/1`], `${at}/data`);
          await (kind === 'request cut' ? assembled() : meet(kind, assembled));
          assert.ok((await driver.get(`${at}/data`))?.equals(content));
        }
      });

    test('a read goes on where its connection broke, and never with other bytes', async () => {
      const content = new Random(1).bytes(3_000_000);
      await driver.write('docker/data', content);
      const stream = await meet('answer cut', async () => (await driver.read('docker/data'))!);
      assert.equal(await driver.touch('docker/data'), true);
      assert.ok((await collectStream(stream)).equals(content), 'although a lease was renewed');
      const other = await meet('answer cut', async () => (await driver.read('docker/data'))!);
      await driver.write('docker/data', new Random(2).bytes(3_000_000));
      await assert.rejects(collectStream(other), { name: 'StorageError', kind: 'unavailable' });
    });

    if (decides)
      test('a removal or a write that comes late, when it was sent again long since, takes nothing', async () => {
        const tag = 'docker/tags/latest';
        const link = `${tag}/current/link`;
        const write = (text: string) => driver.write(link, Buffer.from(text));
        const remains = async (late: Late, text: string) => {
          assert.ok((await late()) >= 400, 'it is refused');
          assert.equal((await driver.get(link))?.toString(), text);
        };
        await write('1');
        for (const remove of [() => driver.removeAll(tag), () => driver.remove(link)]) {
          const removal = proxy.holdBack(({ method }) => method === 'DELETE');
          await remove();
          assert.equal(await driver.get(link), undefined);
          await write('2');
          await remains(await removal, '2');
        }
        const replacement = proxy.holdBack(({ method }) => method !== 'GET' && method !== 'HEAD');
        await write('3');
        assert.equal((await driver.get(link))?.toString(), '3');
        await write('4');
        await remains(await replacement, '4');
      });

    test('a list that broke off is asked for again', async () => {
      for (const name of ['a', 'b', 'c']) await driver.write(`docker/listed/${name}`, Buffer.from(name));
      const names = (await meet('answer cut', () => driver.list('docker/listed'))).map(({ name }) => name);
      assert.deepEqual(names, ['a', 'b', 'c']);
    });

    test(`no image that was acknowledged is lost in ${FAULTS} faults and more`, () => survive(makePlace));
  });
}

async function survive(makePlace: () => Promise<FaultyPlace>): Promise<void> {
  const seed = Number(process.env.SEED ?? Date.now() % 1_000_000);
  const random = new Random(seed);
  const place = await makePlace();
  const proxy = await FaultProxy.start(place.port, random.fork());
  const fixture = await RegistryFixture.start({
    driver: place.connect(proxy.endpoint),
    onCorruption: found => assert.fail(`seed ${seed}: ${JSON.stringify(found)}`),
  });
  Object.assign(proxy, { rate: 0.15, kinds: KINDS });
  const pushed: Image[] = [];
  const statuses = new Map<number, number>();

  /** A few times, as clients do. */
  const attempt = async (...request: Parameters<RegistryFixture['call']>) => {
    for (let tries = 0; ; tries++) {
      const answer = await fixture.call(...request);
      statuses.set(answer.status, (statuses.get(answer.status) ?? 0) + 1);
      if (answer.status < 500 || tries === 2) return answer;
      assert.equal(answer.status, 503, `seed ${seed}: ${answer.body}`);
      assert.ok(answer.headers['retry-after'], 'says when to come again');
    }
  };
  const pushBlob = async (data: Buffer, random: Random): Promise<boolean> => {
    const at = '/v2/faulty/blobs/uploads/';
    const query = `?digest=${digestOf(data)}`;
    if (random.chance(0.5)) return (await attempt('POST', `${at}${query}`, { body: data })).status === 201;
    const begun = await attempt('POST', at);
    if (begun.status !== 202) return false;
    const middle = Math.floor(data.length / 2);
    const sent = await attempt('PATCH', begun.headers.location!, { body: data.subarray(0, middle) });
    if (sent.status !== 202) return false;
    const put = await attempt('PUT', `${sent.headers.location}${query}`, { body: data.subarray(middle) });
    return put.status === 201;
  };
  const end = performance.now() + PATIENCE;
  const client = async (number: number, random: Random) => {
    const isMet = () => performance.now() > end || (proxy.hasMet(KINDS) && pushed.length > 0);
    for (let n = 0; proxy.count < FAULTS || !isMet(); n++) {
      const tag = `tag-${number}-${n}`;
      const layers = [random.bytes(random.between(1, 5000)), random.bytes(random.chance(0.2) ? 11_500_000 : 3000)];
      const config = Buffer.from(JSON.stringify({ os: 'linux', architecture: 'amd64', tag }));
      const blobs = [...layers, config];
      let isWhole = true;
      for (const blob of blobs) isWhole &&= await pushBlob(blob, random);
      if (!isWhole) continue;
      const manifest = manifestOf(config, layers);
      const headers = { 'content-type': OCI_MANIFEST };
      const answer = await attempt('PUT', `/v2/faulty/manifests/${tag}`, { body: manifest, headers });
      if (answer.status === 201) pushed.push({ tag, blobs, manifest });
    }
  };
  await Promise.all(Array.from({ length: CLIENTS }, (_, number) => client(number, random.fork())));
  proxy.rate = 0;
  await fixture.stop();
  await proxy.stop();

  const calm = await RegistryFixture.start({ driver: place.connect() });
  const areWhole = async () => {
    for (const { tag, blobs, manifest } of pushed) {
      const got = await calm.call('GET', `/v2/faulty/manifests/${tag}`);
      assert.ok(got.body.equals(manifest), `seed ${seed}: ${tag}`);
      for (const blob of blobs) {
        const { status, body } = await calm.call('GET', `/v2/faulty/blobs/${digestOf(blob)}`);
        assert.ok(status === 200 && body.equals(blob), `seed ${seed}: a layer of ${tag}: ${status}`);
      }
    }
  };
  try {
    assert.ok(pushed.length > 0, 'images were pushed');
    await areWhole();
    const report = await scrub(calm.driver, calm.store, {
      repair: false,
      validation: VALIDATION,
      patience: 1,
      onFinding: finding => assert.notEqual(finding.kind, 'corrupt-blob', `seed ${seed}: ${finding.message}`),
      onProgress: () => {},
    });
    assert.equal(report.losses, 0, `seed ${seed}`);
    await new Promise(resolve => setTimeout(resolve, 1001));
    await collect(calm.driver, { grace: 0, untagged: true, uploads: { age: 0 } });
    await areWhole();
  } finally {
    await calm.stop();
  }
  for (const kind of KINDS) assert.ok(proxy.faults.get(kind), `there was: ${kind}`);
  assert.ok(statuses.get(503) === undefined || statuses.get(201)! > statuses.get(503)!, 'most were borne');
  if (LONG) console.log(`${proxy.count} faults, ${pushed.length} images, statuses ${JSON.stringify([...statuses])}`);
}
