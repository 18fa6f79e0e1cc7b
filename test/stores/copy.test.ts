import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { S3Driver } from '../../src/storage/s3.js';
import { LocalRegistry } from '../support/local-registry.js';
import { RegistryFixture } from '../support/registry-fixture.js';
import { Versitygw } from '../support/versitygw.js';

let service: Versitygw;
let dir: string;
let source: RegistryFixture;
before(async () => {
  service = await Versitygw.start();
  dir = await mkdtemp(join(tmpdir(), 's3-copy-'));
  source = await RegistryFixture.start();
});
after(async () => {
  await source?.stop();
  await service?.stop();
  if (dir) await rm(dir, { recursive: true });
});

const keys = {
  REGISTRY_STORAGE_S3_ACCESSKEY: Versitygw.credentials.accessKeyId,
  REGISTRY_STORAGE_S3_SECRETKEY: Versitygw.credentials.secretAccessKey,
};
const copy = (...args: string[]) => LocalRegistry.run(dir, ['copy', ...args], { env: { HOME: dir, ...keys } });

test('images go into a bucket and out of it, with no registry running', async () => {
  const image = await source.pushImage('team/app', 'v1');
  await source.pushImage('team/app', 'v2');
  const bucket = service.makeBucket();
  const place = (rest = '') => `s3://${bucket}/images?region=us-east-1&regionendpoint=${service.endpoint}${rest}`;

  const there = await copy(source.root, place(), '--all', '--json');
  assert.deepEqual([there.status, there.stderr], [0, '']);
  assert.deepEqual(JSON.parse(there.stdout).images, { new: 2, moved: 0, same: 0, failed: 0 });
  const again = JSON.parse((await copy(source.root, place(), '--all', '--json')).stdout);
  assert.deepEqual([again.to, again.images.same], [`s3://${bucket}/images`, 2]);

  const driver = new S3Driver(service.options(bucket, { root: 'images' }));
  const served = await RegistryFixture.start({ driver });
  const { status, body } = await served.call('GET', '/v2/team/app/manifests/v1');
  assert.deepEqual([status, body.equals(image.data)], [200, true]);
  await served.stop();

  const back = await copy(place('#team/app:v1'), `./back`);
  assert.deepEqual([back.status, back.stderr], [0, '']);
  const verified = await LocalRegistry.run(dir, ['verify', '--root', join(dir, 'back'), '--json']);
  const { clean, tags } = JSON.parse(verified.stdout);
  assert.deepEqual([clean, tags], [true, 1]);
});

test('the data of a registry move into a bucket while others push, and back into a folder', async () => {
  const { driver } = source;
  await driver.write('registry-secure/machine-tokens/kept', Buffer.from('{"kept":true}'));
  const bucket = service.makeBucket();
  const place = `s3://${bucket}/all?region=us-east-1&regionendpoint=${service.endpoint}`;
  const env = { HOME: dir, ...keys };
  const migrate = async (from: string, to: string) => {
    const moved = await LocalRegistry.run(dir, ['storage', 'migrate', from, to, '--json'], { env });
    assert.deepEqual([moved.status, moved.stderr], [0, '']);
    return JSON.parse(moved.stdout);
  };
  const moving = migrate(source.root, place);
  for (let at = 0; at < 5; at++) await source.pushImage('team/later', `v${at}`);
  await moving;
  await driver.write('registry-secure/maintenance', Buffer.from('{"since":"2026-01-01T00:00:00Z"}'));
  const last = await migrate(source.root, place);
  assert.deepEqual([last.complete, last.passes, last.problems], [true, 1, []]);
  const told = await LocalRegistry.run(dir, ['storage', 'migrate', source.root, place], { env });
  assert.match(told.stdout, new RegExp(`set storage\\.s3 with bucket: ${bucket}, rootdirectory: /all;`));
  await driver.remove('registry-secure/maintenance');
  assert.equal((await migrate(place, './returned')).bytes > 0, true);
  const { list, images } = JSON.parse((await copy('./returned', source.root, '--all', '--json')).stdout);
  assert.deepEqual([images.same, images.new, images.moved], [list.length, 0, 0]);
  assert.ok(list.length >= 7);
  const kept = await readFile(join(dir, 'returned/registry-secure/machine-tokens/kept'), 'utf8');
  assert.equal(kept, '{"kept":true}');
});

test('what a bucket is named with is checked, and no secret is taken from where others see it', async () => {
  for (const [place, status, message] of [
    ['s3://images?region=x&secretkey=y', 2, /secretkey is a secret.*; set REGISTRY_STORAGE_S3_SECRETKEY/],
    ['s3://images?zone=x', 2, /zone is no key of storage\.s3/],
    ['s3://images', 1, /storage\.s3\.region is not set/],
    [`s3://none?region=us-east-1&regionendpoint=${service.endpoint}`, 1, /no bucket|not there|there is no/],
  ] as const) {
    const refused = await copy(source.root, place, '--all');
    assert.equal(refused.status, status, refused.stderr);
    assert.match(refused.stderr, message);
  }
});
