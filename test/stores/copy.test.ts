import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { S3Driver } from '../../src/storage/s3.js';
import { Azurite } from '../support/azurite.js';
import { FakeGcs } from '../support/fake-gcs.js';
import { LocalRegistry } from '../support/local-registry.js';
import { RegistryFixture } from '../support/registry-fixture.js';
import { Swift } from '../support/swift.js';
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
/** What a command says, but for the line every ten seconds that tells how far it has come. */
const run = async (folder: string, args: string[], env: NodeJS.ProcessEnv) => {
  const { stderr, ...rest } = await LocalRegistry.run(folder, args, { env });
  return { ...rest, stderr: stderr.replace(/^registry-secure: \w+: \d+ %, .*\n/gm, '') };
};
const copy = (...args: string[]) => run(dir, ['copy', ...args], { HOME: dir, ...keys });

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
    const moved = await run(dir, ['storage', 'migrate', from, to, '--json'], env);
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
  assert.match(
    told.stdout,
    new RegExp(`set storage\\.s3 with bucket: ${bucket}, rootdirectory: /all, region: us-east-1,`),
  );
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

/** What reaches a bucket or container of a store, and of what kind that is. */
interface Elsewhere {
  readonly url: string;
  readonly env: NodeJS.ProcessEnv;
  /** What is said whenever something is to be written there. */
  readonly notice?: RegExp;
  stop(): Promise<void>;
}

const KINDS: Readonly<Record<string, () => Promise<Elsewhere>>> = {
  azure: async () => {
    const azurite = await Azurite.start();
    const { account, container, serviceUrl, login } = azurite.options(await azurite.makeContainer());
    return {
      url: `azure://${container}/images?accountname=${account}&serviceurl=${serviceUrl}`,
      env: { REGISTRY_STORAGE_AZURE_ACCOUNTKEY: (login as { key: string }).key },
      stop: () => azurite.stop(),
    };
  },
  gs: async () => {
    const google = await FakeGcs.start();
    const keyFile = join(dir, 'key.json');
    await writeFile(keyFile, JSON.stringify(FakeGcs.credentials), { mode: 0o600 });
    return {
      url: `gs://${await google.makeBucket()}/images?keyfile=${keyFile}`,
      env: { STORAGE_EMULATOR_HOST: google.endpoint },
      stop: () => google.stop(),
    };
  },
  // Which is heavy: for whoever has it at hand.
  ...(process.env.SWIFT_TEST && {
    swift: async () => {
      const swift = await Swift.start();
      await swift.call('PUT', encodeURIComponent('Images_1.of: alice'));
      return {
        url: `swift://Images_1.of%3A%20alice/images?username=test:tester&authurl=${swift.endpoint}/auth/v1.0`,
        env: { REGISTRY_STORAGE_SWIFT_PASSWORD: 'testing', REGISTRY_WORKERS: '1' },
        notice: /^registry-secure: warning: .* one alone may serve it/,
        stop: () => swift.stop(),
      };
    },
  }),
};

describe('the other kinds of object stores', () => {
  for (const [kind, start] of Object.entries(KINDS))
    test(`all of a registry moves to ${kind}://, is served there as told, and comes back`, async t => {
      const { url, env, notice, stop } = await start();
      const closers = [stop];
      t.after(async () => {
        for (const close of closers.reverse()) await close();
      });
      const own = join(dir, kind);
      await mkdir(own);
      const command = async (args: string[], writes = false, status = 0) => {
        const done = await run(own, args, { HOME: own, ...env });
        assert.equal(done.status, status, done.stderr);
        if (status === 0) assert.match(done.stderr, (writes && notice) || /^$/);
        return done;
      };
      const json = async (args: string[], writes = false) =>
        JSON.parse((await command([...args, '--json'], writes)).stdout);
      const origin = await RegistryFixture.start();
      closers.push(() => origin.stop());
      const image = await origin.pushImage('team/app', 'v1');
      await origin.pushImage('team/app', 'v2');
      await origin.driver.write('registry-secure/maintenance', Buffer.from('{"since":"2026-01-01T00:00:00Z"}'));

      const dry = await json(['storage', 'migrate', origin.root, url, '--dry-run']);
      assert.deepEqual([dry.to, dry.tags.written, dry.complete], [url, 2, true]);
      const { stdout } = await command(['storage', 'migrate', origin.root, url], true);
      const [, section = '', values = ''] = /^ {2}2\. set storage\.(\w+) with (.*); certificates/m.exec(stdout) ?? [];
      const prefix = `REGISTRY_STORAGE_${section.toUpperCase()}_`;
      const told = values.split(', ').map(value => value.split(/: (.*)/));
      const settings = Object.fromEntries(told.map(([name, value]) => [`${prefix}${name!.toUpperCase()}`, value]));

      const again = await json(['copy', `${origin.root}#team/app:v1`, `${url}#other/app`], true);
      assert.deepEqual([again.images.new, again.blobs.copied, again.bytes], [1, 0, 0]);
      const late = await command(['storage', 'migrate', origin.root, url], true, 1);
      assert.match(late.stderr, /holds images that no backup has put there, or that have been served since/);

      const registry = await LocalRegistry.start(own, ['up'], {
        env: { REGISTRY_STORAGE: section, ...settings, ...env },
      });
      closers.push(async () => void (await registry.stop()));
      const auth = `admin:${registry.password}`;
      for (const name of ['team', 'other']) {
        const manifest = await registry.call('GET', `/v2/${name}/app/manifests/v1`, { auth });
        assert.deepEqual([manifest.status, manifest.body.equals(image.data)], [200, true]);
        const layer = await registry.call('GET', `/v2/${name}/app/blobs/${image.layer}`, { auth });
        assert.equal(`sha256:${createHash('sha256').update(layer.body).digest('hex')}`, image.layer);
      }

      const one = await json(['copy', `${url}#team/app:v1`, './back']);
      assert.deepEqual([one.from, one.images.new], [/data="?(\w+:\/\/[^"\n]*)/.exec(registry.stderr)?.[1], 1]);
      const rest = await json(['copy', url, './back', '--all']);
      assert.deepEqual([rest.images.new, rest.images.same], [2, 1]);
      const returned = await json(['storage', 'migrate', url, './returned']);
      assert.deepEqual([returned.tags.written, returned.problems], [3, []]);
      for (const root of ['back', 'returned']) {
        const here = await RegistryFixture.start({ root: join(own, root) });
        closers.push(() => here.stop());
        const manifest = await here.call('GET', '/v2/other/app/manifests/v1');
        const layer = await here.call('GET', `/v2/team/app/blobs/${image.layer}`);
        assert.deepEqual([manifest.body.equals(image.data), layer.status], [true, 200]);
      }
      const { images } = await json(['image', 'list', url]);
      assert.deepEqual(
        images.map(({ name }: { name: string }) => name),
        ['other/app:v1', 'team/app:v1', 'team/app:v2'],
      );
    });
});
