import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Random } from '../support/random.js';
import { Lost, Refused, type RegistryClient } from '../support/registry-client.js';
import { digestOf, manifestOf } from '../support/registry-fixture.js';
import { Ledger, type RepositoryLedger } from './ledger.js';
import { LONG, Rig, SEED, type Server } from './rig.js';
import { type Call, changes, DiskThreads, Tracer } from './tracer.js';
import { noFindings, verify, verifyFiles } from './verify.js';
import { mountBlob, newImage, pushBlob, pushImage, pushManifest, STYLES } from './workload.js';

describe('system calls of a push', () => {
  const random = new Random(SEED);
  const ledger = new Ledger();
  let rig: Rig;
  let calls: Call[];
  let count = 0;
  before(async () => {
    rig = new Rig();
    // Every push is to make the same calls, wherever its digests fall.
    const blobs = join(rig.dir, 'data/docker/registry/v2/blobs/sha256');
    for (let shard = 0; shard < 256; shard++)
      mkdirSync(join(blobs, shard.toString(16).padStart(2, '0')), { recursive: true });
    const { server, thread } = await start();
    await push(server.client, newRepository());
    calls = await changes(rig, server, thread, () => push(server.client, newRepository()));
    await rig.kill(server);
  });
  after(() => rig.close());

  const newRepository = () => ledger.repository(`push/n${++count}`);

  /** One client, one request after the other: a new image with its blobs in all ways, a new one on its tag, no tag. */
  const push = async (client: RegistryClient, repository: RepositoryLedger) => {
    const { layers, config } = newImage(random, [20_000, 30_000]);
    const digests = [
      await pushBlob(client, repository, layers[0]!, 'chunked'),
      await pushBlob(client, repository, layers[1]!, 'whole'),
      await pushBlob(client, repository, config, 'put'),
    ];
    await pushManifest(client, repository, 'tag', manifestOf(config, layers), digests);
    await pushManifest(client, repository, 'tag', manifestOf(config, layers.slice(1)), digests.slice(1));
    const acknowledge = repository.tag('tag').begin(undefined);
    await client.must(202, 'DELETE', `/v2/${repository.name}/manifests/tag`);
    acknowledge();
  };

  /** A server that has written before, and the thread of it that works on the disk. */
  const start = async (): Promise<{ server: Server; thread: number }> => {
    const far = fileURLToPath(new URL('far.js', import.meta.url));
    // The audit log flushes by the clock, wherever a push stands then.
    const env = { NODE_OPTIONS: `--import ${far}`, REGISTRY_AUDIT_ENABLED: 'false' };
    const server = await rig.start({ threads: 1, env });
    const threads = new DiskThreads(server);
    const bytes = 100_000;
    await pushBlob(server.client, ledger.repository('warm/up'), random.bytes(bytes), 'whole');
    const found = threads.found(bytes);
    assert.equal(found.length, 1, 'one thread works on the disk');
    return { server, thread: found[0]! };
  };

  /** A push during which something is done to one of its calls, and how it ended. */
  const pushWith = async ({ server, thread }: { server: Server; thread: number }, call: Call, fault: string) => {
    const inject = `inject=${call.name}:${fault}:when=${call.nth}`;
    const tracer = await Tracer.attach(rig, server, [thread], '-e', `trace=${call.name}`, '-e', inject);
    const end = await push(server.client, newRepository()).then(
      () => undefined,
      (error: unknown) => error,
    );
    return { end, detach: () => tracer.detach() };
  };

  test('killed at each, it has done what it answered and no half of anything', async t => {
    t.diagnostic(`SEED=${SEED} repeats the choices`);
    const figures = { kills: 0, ...noFindings() };
    const kinds = new Map<string, number>();
    for (const { name } of calls) kinds.set(name, (kinds.get(name) ?? 0) + 1);
    t.diagnostic(`${calls.length} calls: ${[...kinds].map(kind => kind.join(' ')).join(', ')}`);
    for (const kind of ['mkdir', 'rename', 'link', 'unlink', 'openat', 'write', 'fsync', 'fdatasync'])
      assert.ok(kinds.has(kind), `${kind} is among ${[...kinds.keys()]}`);
    for (const call of LONG ? calls : sample(calls, 16)) {
      const started = await start();
      const { server } = started;
      await verify(server.client, [ledger.repository(`push/n${count}`)], figures);
      let { end, detach } = await pushWith(started, call, 'signal=SIGKILL');
      // The look for maintenance opens a file twice a second, and is counted: where one came while the calls were, there are fewer now.
      for (let tries = 1; end === undefined && tries < 5; tries++) {
        await detach();
        ({ end, detach } = await pushWith(started, call, 'signal=SIGKILL'));
      }
      assert.ok(end instanceof Lost, `${call.line} was not met: ${end}`);
      assert.equal(await server.process.exited, null);
      rig.forget(server);
      await detach();
      figures.kills++;
    }
    const server = await rig.start();
    await verify(server.client, ledger.repositories.values(), figures);
    await rig.kill(server);
    await verifyFiles(server.root);
    t.diagnostic(JSON.stringify(figures));
  });

  test('a flush that fails, whichever it is, is not answered: the store turns read-only and says so', async t => {
    const figures = { flushes: 0, ...noFindings() };
    const flushes = calls.filter(({ name }) => name === 'fsync' || name === 'fdatasync');
    for (const call of LONG ? flushes : sample(flushes, 8)) {
      const started = await start();
      const { server } = started;
      const image = newImage(random, [10_000]);
      const before = newRepository();
      const digest = await pushImage(server.client, before, 'tag', image, ['put']);
      const { end, detach } = await pushWith(started, call, 'error=EIO');
      await detach();
      assert.ok(end instanceof Refused, `${call.line}: ${end}`);
      assert.equal(end.answer.status, 503, end.message);
      await server.process.until(() =>
        /level=error .*the store is read-only because flushing .* failed \(EIO\): check the disk/.test(
          server.process.stderr,
        ),
      );
      // Nothing more is written, though the disk is well again, and everything is read.
      for (const style of STYLES)
        await assert.rejects(pushBlob(server.client, newRepository(), random.bytes(100), style), isUnavailable);
      await assert.rejects(mountBlob(server.client, newRepository(), digestOf(image.config), before), isUnavailable);
      await server.client.must(503, 'DELETE', `/v2/${before.name}/manifests/${digest}`);
      await verify(server.client, [before], figures);
      await server.client.must(200, 'GET', '/healthz');
      await rig.kill(server);
      figures.flushes++;
    }
    const server = await rig.start();
    await verify(server.client, ledger.repositories.values(), figures);
    await rig.kill(server);
    t.diagnostic(JSON.stringify(figures));
  });
});

function isUnavailable(error: unknown): boolean {
  return error instanceof Refused && error.answer.status === 503;
}

/** Some of the calls: the middle one of each name, and others at even distances. */
function sample(calls: readonly Call[], size: number): Call[] {
  const kinds = [...new Set(calls.map(({ name }) => name))];
  const chosen = new Set(
    kinds.map(kind => {
      const ofKind = calls.filter(({ name }) => name === kind);
      return ofKind[Math.floor(ofKind.length / 2)]!;
    }),
  );
  const left = size - chosen.size;
  for (let n = 0; n < left; n++) chosen.add(calls[Math.floor(((n + 0.5) * calls.length) / left)]!);
  return [...chosen];
}
