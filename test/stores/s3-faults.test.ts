import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { SMALLEST_PART } from '../../src/storage/object/parts.js';
import type { S3Options } from '../../src/storage/s3/options.js';
import { S3Driver } from '../../src/storage/s3.js';
import { collect } from '../../src/store/collector.js';
import { layout } from '../../src/store/layout.js';
import { scrub } from '../../src/store/scrub.js';
import { collect as collectStream } from '../storage/suite.js';
import { type Fault, FaultProxy } from '../support/fault-proxy.js';
import { Random } from '../support/random.js';
import { type Answer, digestOf, manifestOf, OCI_MANIFEST, RegistryFixture } from '../support/registry-fixture.js';
import type { S3Service } from '../support/s3-service.js';
import { onEachS3 } from '../support/s3-services.js';

const LONG = process.env.LONG === '1';

/** How many faults there are at least; it goes on until there was one of each kind, for as long as it may. */
const FAULTS = LONG ? 3_000 : 300;

/** For how long what has not happened yet is waited for (ms). */
const PATIENCE = 200_000;

const CLIENTS = 4;

const VALIDATION = { urls: undefined, indexes: 'all', images: 'all' } as const;

interface Image {
  readonly tag: string;
  readonly blobs: readonly Buffer[];
  readonly manifest: Buffer;
}

onEachS3(testFailing, { timeout: LONG ? 3_600_000 : 300_000 });

function testFailing(service: () => S3Service): void {
  describe('one fault', () => {
    let proxy: FaultProxy;
    let driver: S3Driver;
    before(async () => {
      proxy = await FaultProxy.start(service().port, new Random(1));
      const copy = { chunkSize: SMALLEST_PART, concurrency: 4, threshold: SMALLEST_PART };
      const more = { endpoint: proxy.endpoint, chunkSize: SMALLEST_PART, copy, timely: 2 };
      driver = new S3Driver(service().options(await service().makeBucket(), more));
      await driver.open();
    });
    after(async () => {
      await driver?.close();
      await proxy?.stop();
    });

    /** Has the next requests that can meet the fault meet it. */
    const meet = async <T>(kind: Fault, times: number, work: () => Promise<T>): Promise<T> => {
      const before = proxy.count;
      Object.assign(proxy, { rate: 1, kinds: [kind], most: before + times });
      try {
        return await work();
      } finally {
        assert.equal(proxy.count, before + times, `${kind} was met`);
        proxy.rate = 0;
      }
    };

    for (const kind of ['500 after', 'reset after', '503 before', 'request cut'] as const)
      test(`who creates an object has created it, although: ${kind}`, async () => {
        const key = `docker/steps/${kind.replace(' ', '-')}`;
        assert.equal(await meet(kind, 1, () => driver.create(key, Buffer.from('mine'))), true);
        assert.equal((await driver.get(key))?.toString(), 'mine');
        assert.equal(await meet(kind, 1, () => driver.create(key, Buffer.from('other'))), false);
        assert.equal((await driver.get(key))?.toString(), 'mine');
      });

    for (const kind of ['error in a 200 before', 'error in a 200 after', '500 after'] as const)
      for (const size of [1000, 12_000_000])
        test(`an upload of ${size} bytes becomes an object, although: ${kind}`, async () => {
          const at = `docker/upload/${size}-${kind.replaceAll(' ', '-')}`;
          const content = new Random(size).bytes(size);
          const writer = await driver.createSegment(`${at}/1`);
          await writer.write(content);
          // What is small is written in one request, which has no such answer.
          const closes = size > SMALLEST_PART || kind === '500 after' ? 1 : 0;
          assert.equal(await meet(kind, closes, () => writer.close()), size);
          await meet(kind, 1, () => driver.assemble([`${at}/1`], `${at}/data`));
          assert.ok((await driver.get(`${at}/data`))?.equals(content));
        });

    test('a removal that comes late is refused by the time that anybody is told of it', async () => {
      const tag = 'docker/tags/latest';
      const link = `${tag}/current/link`;
      await driver.write(link, Buffer.from('1'));
      for (const remove of [() => driver.removeAll(tag), () => driver.remove(link)]) {
        const removal = proxy.holdBack(({ method }) => method === 'DELETE');
        await remove();
        await driver.write(link, Buffer.from('2'));
        assert.equal(await (await removal)(), 403);
        assert.equal((await driver.get(link))?.toString(), '2');
      }
    });

    test('an object that is said to be complete before it is there is waited for', async () => {
      const content = new Random(4).bytes(12_000_000);
      proxy.completesLate = 1500;
      try {
        const writer = await driver.createSegment('docker/late/1');
        await writer.write(content);
        await writer.close();
        assert.equal((await driver.stat('docker/late/1'))?.size, content.length);
        await driver.assemble(['docker/late/1'], 'docker/late/data');
        assert.ok((await driver.get('docker/late/data'))?.equals(content));
      } finally {
        proxy.completesLate = undefined;
      }
    });

    test('a body that is read to its end keeps its connection for the next request', async () => {
      await driver.write('docker/kept', new Random(3).bytes(300_000));
      const read = async () => {
        assert.equal((await driver.get('docker/kept'))?.length, 300_000);
        assert.equal((await collectStream((await driver.read('docker/kept', { start: 10, end: 999 }))!)).length, 990);
      };
      await read();
      const before = proxy.connections;
      for (let n = 0; n < 10; n++) await read();
      assert.equal(proxy.connections, before);
    });

    test('nothing is removed where lists lag behind', async () => {
      const garbage = layout.blob(digestOf(Buffer.from('x')));
      await driver.write(garbage, Buffer.from('x'));
      // Times are whole seconds.
      await pause(1001);
      proxy.lagging = true;
      try {
        // What lists show from now on.
        await driver.list('registry-secure/removers');
        await assert.rejects(collect(driver, { grace: 0 }), {
          name: 'StorageError',
          message: 'the lists of this object store lag behind: nothing can be removed safely',
        });
        assert.equal((await driver.get(garbage))?.toString(), 'x');
      } finally {
        proxy.lagging = false;
      }
      assert.equal((await collect(driver, { grace: 0 })).blobs.removed, 1);
    });

    test('a read goes on where its connection broke, and never with other bytes', async () => {
      const content = new Random(1).bytes(3_000_000);
      await driver.write('docker/data', content);
      const stream = await meet('answer cut', 1, async () => (await driver.read('docker/data'))!);
      assert.ok((await collectStream(stream)).equals(content));
      const other = await meet('answer cut', 1, async () => (await driver.read('docker/data'))!);
      await other.next();
      await driver.write('docker/data', new Random(2).bytes(3_000_000));
      await assert.rejects(collectStream(other), { name: 'StorageError', kind: 'unavailable' });
    });
  });

  test(`no image that was acknowledged is lost in ${FAULTS} faults and more`, async t => {
    const seed = Number(process.env.SEED ?? Date.now() % 1_000_000);
    const random = new Random(seed);
    const proxy = await FaultProxy.start(service().port, random.fork());
    const bucket = await service().makeBucket();
    const options = (more: Partial<S3Options>) => service().options(bucket, { chunkSize: SMALLEST_PART, ...more });
    // Sizes at which objects are copied by parts, too.
    const copy = { chunkSize: SMALLEST_PART, concurrency: 4, threshold: SMALLEST_PART };
    const fixture = await RegistryFixture.start({
      driver: new S3Driver(options({ endpoint: proxy.endpoint, copy })),
      onCorruption: found => assert.fail(`seed ${seed}: ${JSON.stringify(found)}`),
    });
    proxy.rate = 0.15;
    const pushed: Image[] = [];
    const statuses = new Map<number, number>();

    const push = async (tag: string, random: Random): Promise<Image | undefined> => {
      const layers = [
        random.bytes(random.between(1, 5000)),
        random.bytes(random.chance(0.2) ? 11_500_000 : random.pick([3000, 200_000])),
      ];
      const config = Buffer.from(JSON.stringify({ os: 'linux', architecture: 'amd64', tag }));
      const blobs = [...layers, config];
      for (const blob of blobs) if (!(await pushBlob(blob, random))) return undefined;
      const manifest = manifestOf(config, layers);
      const headers = { 'content-type': OCI_MANIFEST };
      const answer = await attempt(() =>
        fixture.call('PUT', `/v2/faulty/manifests/${tag}`, { body: manifest, headers }),
      );
      return answer?.status === 201 ? { tag, blobs, manifest } : undefined;
    };

    const pushBlob = async (data: Buffer, random: Random): Promise<boolean> => {
      const digest = digestOf(data);
      const at = '/v2/faulty/blobs/uploads/';
      if (random.chance(0.5))
        return (await attempt(() => fixture.call('POST', `${at}?digest=${digest}`, { body: data })))?.status === 201;
      let begun: Answer | undefined;
      const upload = async (method: string, query: string, from: number, to: number) => {
        const path = `${begun!.headers.location}${query}`;
        return attempt(() => fixture.call(method, path, { body: data.subarray(from, to) }));
      };
      begun = await attempt(() => fixture.call('POST', at));
      if (begun?.status !== 202) return false;
      const middle = Math.floor(data.length / random.pick([1, 2]));
      begun = await upload('PATCH', '', 0, middle);
      if (begun?.status !== 202) return false;
      return (await upload('PUT', `?digest=${digest}`, middle, data.length))?.status === 201;
    };

    /** A few times, as clients do. */
    const attempt = async (request: () => Promise<Answer>): Promise<Answer | undefined> => {
      for (let tries = 0; tries < 3; tries++) {
        const answer = await request();
        statuses.set(answer.status, (statuses.get(answer.status) ?? 0) + 1);
        if (answer.status < 500) return answer;
        assert.equal(answer.status, 503, `seed ${seed}: ${answer.body}`);
        assert.ok(answer.headers['retry-after'], 'says when to come again');
      }
      return undefined;
    };

    const end = performance.now() + PATIENCE;
    const client = async (number: number, random: Random) => {
      const isMet = () => performance.now() > end || (proxy.hasMet(proxy.kinds) && pushed.length > 10);
      for (let n = 0; proxy.count < FAULTS || !isMet(); n++) {
        const image = await push(`tag-${number}-${n}`, random);
        if (image) pushed.push(image);
      }
    };
    await Promise.all(Array.from({ length: CLIENTS }, (_, number) => client(number, random.fork())));
    proxy.rate = 0;
    await fixture.stop();
    await proxy.stop();

    const calm = await RegistryFixture.start({ driver: new S3Driver(options({})) });
    try {
      assert.ok(pushed.length > 10, `${pushed.length} images were pushed`);
      const isWhole = async () => {
        for (const { tag, blobs, manifest } of pushed) {
          assert.ok(
            (await calm.call('GET', `/v2/faulty/manifests/${tag}`)).body.equals(manifest),
            `seed ${seed}: ${tag}`,
          );
          for (const blob of blobs) {
            const { status, body } = await calm.call('GET', `/v2/faulty/blobs/${digestOf(blob)}`);
            assert.ok(status === 200 && body.equals(blob), `seed ${seed}: a layer of ${tag}: ${status}`);
          }
        }
      };
      await isWhole();
      const report = await scrub(calm.driver, calm.store, {
        repair: false,
        validation: VALIDATION,
        patience: 1,
        onFinding: finding => assert.notEqual(finding.kind, 'corrupt-blob', `seed ${seed}: ${finding.message}`),
        onProgress: () => {},
      });
      assert.equal(report.losses, 0, `seed ${seed}`);
      await pause(1001);
      await collect(calm.driver, { grace: 0, untagged: true, uploads: { age: 0 } });
      await isWhole();
    } finally {
      await calm.stop();
    }
    t.diagnostic(JSON.stringify({ pushed: pushed.length, statuses: Object.fromEntries(statuses) }));
    for (const kind of proxy.kinds) assert.ok(proxy.faults.get(kind), `there was: ${kind}`);
    assert.ok(statuses.get(503) === undefined || statuses.get(201)! > statuses.get(503)!, 'most were borne');
  });
}
