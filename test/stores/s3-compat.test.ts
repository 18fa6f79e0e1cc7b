import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { freePort } from '../support/ports.js';
import { Daemon, requireTools, must as run } from '../support/process.js';
import { program } from '../support/registry.js';
import { bucketVariables, Versitygw } from '../support/versitygw.js';

const MIB = 1024 * 1024;
const MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json';

const digestOf = (data: Buffer) => `sha256:${createHash('sha256').update(data).digest('hex')}`;

/** An image of layers that nothing can compress. */
function makeImage(sizes: readonly number[]): { blobs: Buffer[]; manifest: Buffer } {
  const layers = sizes.map(size => randomBytes(size));
  const config = Buffer.from(
    JSON.stringify({ architecture: 'amd64', os: 'linux', unique: randomBytes(8).toString('hex') }),
  );
  const describe = (data: Buffer, mediaType: string) => ({ mediaType, size: data.length, digest: digestOf(data) });
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MANIFEST,
      config: describe(config, 'application/vnd.docker.container.image.v1+json'),
      layers: layers.map(layer => describe(layer, 'application/vnd.docker.image.rootfs.diff.tar.gzip')),
    }),
  );
  return { blobs: [...layers, config], manifest };
}

describe('a bucket shared with docker-registry 2.8.2', { timeout: 240_000 }, () => {
  let service: Versitygw;
  let dir: string;
  before(async () => {
    requireTools('docker-registry');
    service = await Versitygw.start();
    dir = await mkdtemp(join(tmpdir(), 's3-compat-'));
  });
  after(async () => {
    await service?.stop();
    if (dir) await rm(dir, { recursive: true });
  });

  const settings = (bucket: string, port: number): Record<string, string> => ({
    REGISTRY_HTTP_ADDR: `127.0.0.1:${port}`,
    ...bucketVariables(service.endpoint, bucket),
    REGISTRY_STORAGE_S3_ROOTDIRECTORY: '/some/where',
    REGISTRY_STORAGE_DELETE_ENABLED: 'true',
  });

  /** The same variables for both; what each needs beside is about logins and TLS only. */
  const servers: Record<string, () => { argv: string[]; env: Record<string, string> }> = {
    theirs: () => {
      const config = join(dir, 'config.yml');
      writeFileSync(config, 'version: 0.1\nstorage: {filesystem: {}}\n');
      return { argv: ['docker-registry', 'serve', config], env: {} };
    },
    ours: () => ({
      argv: program('serve', '--dir', dir),
      env: { REGISTRY_AUTH: 'none', REGISTRY_HTTP_INSECUREPLAINHTTP: 'true' },
    }),
  };

  async function serving<T>(who: string, bucket: string, work: (base: string) => Promise<T>): Promise<T> {
    const port = await freePort();
    const { argv, env } = servers[who]!();
    const daemon = new Daemon(who, argv, { env: { ...settings(bucket, port), ...env }, log: join(dir, `${who}.log`) });
    const base = `http://127.0.0.1:${port}`;
    try {
      await daemon.ready(() =>
        fetch(`${base}/v2/`).then(
          ({ ok }) => ok,
          () => false,
        ),
      );
      return await work(base);
    } finally {
      await daemon.stop();
    }
  }

  async function must(status: number, url: string, init: RequestInit = {}): Promise<Response> {
    const response = await fetch(url, init);
    if (response.status !== status)
      throw new Error(`${init.method ?? 'GET'} ${url}: ${response.status} ${await response.text()}`);
    return response;
  }

  const body = (data: Buffer) => new Uint8Array(data);

  async function push(base: string, name: string, tag: string, { blobs, manifest }: ReturnType<typeof makeImage>) {
    for (const blob of blobs) {
      const begun = await must(202, `${base}/v2/${name}/blobs/uploads/`, { method: 'POST' });
      const sent = await must(202, new URL(begun.headers.get('location')!, base).href, {
        method: 'PATCH',
        body: body(blob),
      });
      const end = new URL(sent.headers.get('location')!, base);
      end.searchParams.set('digest', digestOf(blob));
      await must(201, end.href, { method: 'PUT' });
    }
    const headers = { 'content-type': MANIFEST };
    await must(201, `${base}/v2/${name}/manifests/${tag}`, { method: 'PUT', body: body(manifest), headers });
  }

  async function pull(base: string, name: string, tag: string, { blobs, manifest }: ReturnType<typeof makeImage>) {
    const headers = { accept: MANIFEST };
    const got = await must(200, `${base}/v2/${name}/manifests/${tag}`, { headers });
    assert.ok(Buffer.from(await got.arrayBuffer()).equals(manifest), `${name}:${tag}`);
    for (const blob of blobs) {
      const response = await must(200, `${base}/v2/${name}/blobs/${digestOf(blob)}`);
      assert.ok(Buffer.from(await response.arrayBuffer()).equals(blob), `a layer of ${name}:${tag}`);
    }
  }

  /** What both must understand of a bucket, as versitygw keeps it. */
  function contentOf(bucket: string): Record<string, string> {
    const root = join(service.dir, 'data', bucket, 'some/where/docker/registry/v2');
    const files = readdirSync(root, { recursive: true, withFileTypes: true })
      .filter(entry => entry.isFile())
      .map(entry => relative(root, join(entry.parentPath, entry.name)))
      .filter(path => !/\/_(?!layers\/|manifests\/)|~renewed$/.test(path))
      .sort();
    return Object.fromEntries(files.map(path => [path, digestOf(readFileSync(join(root, path)))]));
  }

  // One layer below the size of a part, one above it, and one above what is copied at once.
  const image = makeImage([100_000, 11 * MIB, 40 * MIB]);
  const other = makeImage([10]);

  test('the same pushes leave the same objects, byte for byte', async () => {
    const buckets: Record<string, string> = { theirs: service.makeBucket(), ours: service.makeBucket() };
    for (const who of ['theirs', 'ours'])
      await serving(who, buckets[who]!, async base => {
        await push(base, 'team/app', '1', image);
        await push(base, 'team/app', 'latest', other);
      });
    const theirs = contentOf(buckets.theirs!);
    assert.ok(Object.keys(theirs).length > 15, 'the original stored what was pushed');
    assert.deepEqual(contentOf(buckets.ours!), theirs);
    for (const [who, written] of [
      ['ours', 'theirs'],
      ['theirs', 'ours'],
    ] as const) {
      await serving(who, buckets[written]!, async base => {
        await pull(base, 'team/app', '1', image);
        await pull(base, 'team/app', 'latest', other);
        const { tags } = (await (await must(200, `${base}/v2/team/app/tags/list`)).json()) as { tags: string[] };
        assert.deepEqual(tags.toSorted(), ['1', 'latest']);
        const { repositories } = (await (await must(200, `${base}/v2/_catalog`)).json()) as { repositories: string[] };
        assert.deepEqual(repositories, ['team/app']);
      });
      assert.deepEqual(contentOf(buckets[written]!), theirs, `${who} has changed nothing`);
    }
  });

  test('they take turns on one bucket, and ours collects what theirs wrote', async () => {
    const bucket = service.makeBucket();
    await serving('theirs', bucket, base => push(base, 'team/app', 'latest', image));
    await serving('ours', bucket, async base => {
      await pull(base, 'team/app', 'latest', image);
      await push(base, 'team/app', 'latest', other);
    });
    await serving('theirs', bucket, async base => {
      await pull(base, 'team/app', 'latest', other);
      await must(202, `${base}/v2/team/app/manifests/${digestOf(image.manifest)}`, { method: 'DELETE' });
    });
    const env = { ...settings(bucket, 1), REGISTRY_STORAGE_MAINTENANCE_GC_GRACE: '1ms' };
    const report = JSON.parse(await run(program('gc', '--untagged', '--json', '--dir', dir), { env }));
    assert.deepEqual(report.problems, []);
    // Its layers, its config and its manifest, from a manifest that the original has deleted.
    assert.deepEqual([report.layers.removed, report.blobs.removed], [4, 5]);
    const gone = image.blobs.map(digestOf);
    assert.deepEqual(
      Object.values(contentOf(bucket)).filter(digest => gone.includes(digest)),
      [],
    );
    for (const who of ['theirs', 'ours']) await serving(who, bucket, base => pull(base, 'team/app', 'latest', other));
  });
});
