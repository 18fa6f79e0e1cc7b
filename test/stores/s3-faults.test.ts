import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { S3Options } from '../../src/storage/s3/options.js';
import { SMALLEST_PART } from '../../src/storage/s3/options.js';
import { S3Driver } from '../../src/storage/s3.js';
import { collect } from '../../src/store/collector.js';
import { scrub } from '../../src/store/scrub.js';
import { FaultProxy } from '../support/fault-proxy.js';
import { Random } from '../support/random.js';
import { type Answer, digestOf, manifestOf, OCI_MANIFEST, RegistryFixture } from '../support/registry-fixture.js';
import { Versitygw } from '../support/versitygw.js';

const LONG = process.env.LONG === '1';

/** How many faults there must have been. */
const FAULTS = LONG ? 3_000 : 300;

const CLIENTS = 4;

const VALIDATION = { urls: undefined, indexes: 'all', images: 'all' } as const;

interface Image {
  readonly tag: string;
  readonly blobs: readonly Buffer[];
  readonly manifest: Buffer;
}

describe('an object store that fails', { timeout: LONG ? 3_600_000 : 300_000 }, () => {
  let service: Versitygw;
  before(async () => {
    service = await Versitygw.start();
  });
  after(() => service?.stop());

  test(`no image that was acknowledged is lost in ${FAULTS} faults`, async () => {
    const seed = Number(process.env.SEED ?? Date.now() % 1_000_000);
    const random = new Random(seed);
    const proxy = await FaultProxy.start(service.port, random.fork());
    const bucket = service.makeBucket();
    const options = (more: Partial<S3Options>) => service.options(bucket, { chunkSize: SMALLEST_PART, ...more });
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
      const layers = [random.bytes(random.between(1, 5000)), random.bytes(random.chance(0.2) ? 11_500_000 : 3000)];
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
      const middle = Math.floor(data.length / 2);
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

    const client = async (number: number, random: Random) => {
      for (let n = 0; proxy.count < FAULTS; n++) {
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
      assert.ok(pushed.length > 20, `${pushed.length} images were pushed`);
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
      await new Promise(resolve => setTimeout(resolve, 1001));
      await collect(calm.driver, { grace: 0, untagged: true, uploads: { age: 0 } });
      await isWhole();
    } finally {
      await calm.stop();
    }
    for (const kind of proxy.kinds) assert.ok(proxy.faults.get(kind), `there was: ${kind}`);
    assert.ok(statuses.get(503) === undefined || statuses.get(201)! > statuses.get(503)!, 'most were borne');
  });
});
