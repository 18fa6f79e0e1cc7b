import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, rmSync, utimesSync } from 'node:fs';
import { connect as connectTo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { DeleteObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { getSignedUrl } from '@aws-sdk/s3-request-presigner';
import type { OperatorError } from '../../src/errors.js';
import { SMALLEST_PART } from '../../src/storage/object/parts.js';
import type { S3Options } from '../../src/storage/s3/options.js';
import { S3Driver } from '../../src/storage/s3.js';
import { isUnavailable, Opening } from '../storage/opening.js';
import { FaultProxy } from '../support/fault-proxy.js';
import { LocalRegistry } from '../support/local-registry.js';
import { freePort } from '../support/ports.js';
import { Random } from '../support/random.js';
import { RegistryFixture } from '../support/registry-fixture.js';
import { Versitygw } from '../support/versitygw.js';

describe('a bucket', { timeout: 240_000 }, () => {
  const at = new Opening(() => Versitygw.start(), /testsecret|wrong-secret/);

  const environmentOf = ({ bucket, region, endpoint, credentials }: S3Options) => ({
    REGISTRY_STORAGE: 's3',
    REGISTRY_STORAGE_S3_BUCKET: bucket,
    REGISTRY_STORAGE_S3_REGION: region,
    REGISTRY_STORAGE_S3_REGIONENDPOINT: endpoint!,
    REGISTRY_STORAGE_S3_ACCESSKEY: credentials!.accessKeyId,
    REGISTRY_STORAGE_S3_SECRETKEY: credentials!.secretAccessKey,
  });

  const connect = (bucket: string, more: Partial<S3Options> = {}): S3Driver =>
    at.closing(new S3Driver(at.service.options(bucket, more)));

  const refused = (what: string, more: () => Partial<S3Options>, message: RegExp, fix: RegExp) =>
    at.refuses(what, async () => connect(at.service.makeBucket(), more()), message, fix);

  refused(
    'an access key that nobody knows',
    () => ({ credentials: { accessKeyId: 'nobody', secretAccessKey: 'wrong-secret' } }),
    /does not know the access key/,
    /storage\.s3\.accesskey/,
  );
  refused(
    'a wrong secret key',
    () => ({ credentials: { ...Versitygw.credentials, secretAccessKey: 'wrong-secret' } }),
    /secret key is wrong/,
    /storage\.s3\.secretkey/,
  );
  refused('the name of no bucket', () => ({ bucket: 'none' }), /there is no bucket none at/, /make it, or check/);
  refused('another region', () => ({ region: 'eu-west-1' }), /not in the region eu-west-1/, /region to us-east-1/);
  refused('a port where nobody listens', () => ({ endpoint: 'http://127.0.0.1:1' }), /ECONNREFUSED/, /regionendpoint/);
  refused(
    'TLS where there is none',
    () => ({ endpoint: at.service.endpoint.replace('http:', 'https:') }),
    /does not speak TLS/,
    /secure to false/,
  );
  refused(
    'a clock that is wrong',
    () => {
      at.proxy.skew = 600_000;
      return { endpoint: at.proxy.endpoint };
    },
    /lie 10 minutes apart/,
    /set the clock/,
  );

  at.testFormat(async () => {
    const bucket = at.service.makeBucket();
    return () => new S3Driver(at.service.options(bucket));
  });

  test('that may only be read says so, and is served for reading where that is asked for', async () => {
    const bucket = at.service.makeBucket();
    const writer = connect(bucket);
    await writer.open();
    await writer.write('docker/x', Buffer.from('x'));
    await at.service.restart('--readonly');
    await assert.rejects(connect(bucket).open(), (error: OperatorError) => {
      assert.match(error.message, /refuses access to the bucket/);
      assert.match(error.fix!, /get, put and delete .* REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED=true/);
      return true;
    });
    const reader = connect(bucket, { readOnly: true });
    await reader.open();
    assert.equal((await reader.get('docker/x'))?.toString(), 'x');
    await assert.rejects(reader.write('docker/x', Buffer.from('y')), { name: 'StorageError' });
    await at.service.restart();
    assert.deepEqual(
      readdirSync(join(at.service.dir, 'data', bucket)).sort(),
      ['.sgwtmp', 'docker', 'registry-secure'].sort(),
    );
  });

  test('whose service dies is answered for with 503 and Retry-After, and served again when it is back', async () => {
    const driver = new S3Driver(at.service.options(at.service.makeBucket()));
    const registry = await RegistryFixture.start({ driver });
    const image = await registry.pushImage('team/app', 'latest');
    await at.service.kill();
    await isUnavailable(registry, image.layer);
    assert.ok(registry.faults.length >= 6, 'each was told of');
    await at.service.restart();
    const { status, body } = await registry.call('GET', '/v2/team/app/manifests/latest');
    assert.deepEqual([status, body.equals(image.data)], [200, true]);
    await registry.stop();
  });

  test('without conditional writes is served by one process, and the operator is told', async () => {
    const bare = await FaultProxy.start(at.service.port, new Random(1));
    bare.unknown = ({ headers }) => 'if-none-match' in headers;
    const notices: string[] = [];
    const driver = connect(at.service.makeBucket(), {
      endpoint: bare.endpoint,
      onNotice: notice => notices.push(notice),
    });
    await driver.open();
    assert.match(notices.join('\n'), /^the object store at .* one process alone may serve this bucket \(workers: 1\)$/);
    const won = await Promise.all(
      Array.from({ length: 40 }, (_, n) => driver.create('docker/steps/1', Buffer.from(`${n}`))),
    );
    assert.equal(won.filter(Boolean).length, 1);
    assert.equal((await driver.get('docker/steps/1'))?.toString(), String(won.indexOf(true)));
    assert.equal(driver.solitary, true);
    await driver.close();

    const dir = mkdtempSync(join(tmpdir(), 'registry-secure-solitary-'));
    const env = environmentOf(at.service.options(at.service.makeBucket(), { endpoint: bare.endpoint }));
    const refused = await LocalRegistry.run(dir, ['up', '--addr', '127.0.0.1:0', '--workers', '2'], { env });
    assert.equal(refused.status, 1);
    assert.match(refused.stderr, /several processes would overwrite .*; serve with one: workers: 1/);
    rmSync(dir, { recursive: true });
    await bare.stop();
  });

  test('that is slow to open keeps the first requests waiting, and turns none away', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'registry-secure-slow-'));
    const port = await freePort();
    at.proxy.skew = 0;
    let admit = () => {};
    at.proxy.gate = new Promise(resolve => {
      admit = resolve;
    });
    const registry = LocalRegistry.watch(dir, ['serve', '--dir', dir, '--addr', `127.0.0.1:${port}`], {
      env: {
        REGISTRY_WORKERS: '1',
        REGISTRY_AUTH: 'none',
        REGISTRY_HTTP_INSECUREPLAINHTTP: 'true',
        ...environmentOf(at.service.options(at.service.makeBucket(), { endpoint: at.proxy.endpoint })),
      },
    });
    try {
      const ask = async () => (await fetch(`http://127.0.0.1:${port}/v2/`)).status;
      await registry.until(async () => {
        const socket = connectTo(port, '127.0.0.1');
        return new Promise<boolean>(resolve => {
          socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
        }).finally(() => socket.destroy());
      });
      const asked = ask();
      admit();
      assert.equal(await asked, 200);
    } finally {
      at.proxy.gate = undefined;
      await registry.stop();
      rmSync(dir, { recursive: true });
    }
  });

  const create = async (driver: S3Driver, key: string, ...chunks: Buffer[]) => {
    const writer = await driver.createObject(key);
    for (const chunk of chunks) await writer.write(chunk);
    await writer.close();
  };
  const content = Buffer.alloc(SMALLEST_PART + 1, 'new');
  for (const [what, write, comes] of [
    ['a write', (driver: S3Driver, key: string) => driver.write(key, content), true],
    ['an object of one part', (driver: S3Driver, key: string) => create(driver, key, content), true],
    ['an object of parts', (driver: S3Driver, key: string) => create(driver, key, content, content, content), false],
  ] as const)
    test(`${what} waits for whoever is about to remove what was there, and is ${comes ? 'there in the end' : 'refused'}`, () =>
      meetRemover(write, comes));

  /** Puts up the sign of one who is about to remove an object. @returns its key */
  async function doom(driver: S3Driver, key: string): Promise<string> {
    const sign = `registry-secure/doomed/${createHash('sha256').update(key).digest('hex')}/one`;
    await driver.write('registry-secure/removers/one', Buffer.alloc(0));
    await driver.write(sign, Buffer.from(key));
    // What other processes knew before counts for a while.
    await setTimeout(200);
    return sign;
  }

  /** @param comes whether it is there in the end; else whoever writes it is to come again */
  async function meetRemover(write: (driver: S3Driver, key: string) => Promise<void>, comes: boolean): Promise<void> {
    const bucket = at.service.makeBucket();
    const [driver, other] = [connect(bucket), connect(bucket)];
    await driver.open();
    const key = 'docker/layer/link';
    const sign = await doom(other, key);
    let done = false;
    const written = write(driver, key).finally(() => {
      done = true;
    });
    written.catch(() => undefined);
    while (!(await other.get(key))) await setTimeout(10);
    // The remover has looked at the object before that.
    await other.remove(key);
    assert.equal(done, false, 'nobody was told that it is there');
    await other.remove(sign);
    if (comes) {
      await written;
      assert.ok((await other.get(key))?.equals(content));
    } else {
      await assert.rejects(written, { name: 'StorageError', kind: 'unavailable', message: /was just being removed/ });
      assert.equal(await other.get(key), undefined);
    }
  }

  test('an object of parts is as young as its end, although its renewal went with what stood there before', async () => {
    const bucket = at.service.makeBucket();
    const [driver, other] = [connect(bucket), connect(bucket)];
    await driver.open();
    const key = 'docker/layer/data';
    const sign = await doom(other, key);
    const written = create(driver, key, content, content);
    written.catch(() => undefined);
    while (!(await other.stat(key))) await setTimeout(10);
    await other.remove(`${key}~renewed`);
    // Amazon's has the time at which the upload was begun.
    const begun = new Date(Date.now() - 7_200_000);
    utimesSync(join(at.service.dir, 'data', bucket, key), begun, begun);
    await other.remove(sign);
    await written;
    assert.equal(await other.removeStale(key, new Date(Date.now() - 3_600_000)), false);
    assert.ok((await other.get(key))?.equals(Buffer.concat([content, content])));
  });

  test('refuses a delete that comes late, on which those who write after a dead remover rely', async () => {
    const bucket = at.service.makeBucket();
    const driver = connect(bucket);
    await driver.open();
    await driver.write('docker/x', Buffer.from('x'));
    const { endpoint, region, credentials } = at.service.options(bucket);
    const client = new S3Client({ endpoint: endpoint!, region, credentials: credentials!, forcePathStyle: true });
    const command = new DeleteObjectCommand({ Bucket: bucket, Key: 'docker/x' });
    const late = await getSignedUrl(client, command, { expiresIn: 1 });
    await setTimeout(2100);
    assert.equal((await fetch(late, { method: 'DELETE' })).status, 403);
    assert.equal((await driver.get('docker/x'))?.toString(), 'x');
    const inTime = await getSignedUrl(client, command, { expiresIn: 10 });
    assert.equal((await fetch(inTime, { method: 'DELETE' })).status, 204);
    client.destroy();
  });
});
