import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Digest } from '../../src/reference.js';
import type { StorageDriver } from '../../src/storage/driver.js';
import { collect } from '../../src/store/collector.js';
import { Random } from '../support/random.js';
import { type Answer, Lost, RegistryClient } from '../support/registry-client.js';
import { descriptorOf, digestOf, indexOf, manifestOf, OCI_INDEX, OCI_MANIFEST } from '../support/registry-fixture.js';
import { childrenOf, LONG, type Rig, SEED, type Server } from './rig.js';

const WORKERS = 4;
const COLLECTOR = fileURLToPath(new URL('../support/collect-process.js', import.meta.url));

/** Something that was pushed and acknowledged, and has to be whole until its deletion is begun. */
interface Live {
  readonly repository: string;
  readonly tag: string;
  /** The manifest itself, and what an index lists. */
  readonly manifests: readonly Buffer[];
  readonly blobs: readonly Digest[];
  readonly referrers: Digest[];
}

interface Image {
  readonly repository: string;
  readonly data: Buffer;
  readonly blobs: readonly Buffer[];
}

export interface StressOptions {
  readonly pushes: number;
  /** And for how long at least, in milliseconds: nothing is collected before it is old. */
  readonly lasting?: number;
  /** For how long what nothing refers to is left alone, in milliseconds. */
  readonly grace: number;
  /** Whether workers are killed; a remover that dies holds up whoever writes the same, on some storage for half a minute. */
  readonly kills: boolean;
  /** Of the same storage. */
  readonly connect: () => StorageDriver;
  /** What `collect-process.js` is told of the storage, beside its root. */
  readonly env?: NodeJS.ProcessEnv;
}

/**
 * Pushes, pulls, deletes and mounts by one process and by two workers, which may be killed, while three collectors run: none of it
 * breaks an image, and in the end nothing is left but what images need.
 */
export async function stressCollectors(t: TestContext, rig: Rig, options: StressOptions): Promise<void> {
  const { pushes, grace, connect } = options;
  t.diagnostic(`SEED=${SEED} repeats the choices`);
  const env = {
    REGISTRY_STORAGE_MAINTENANCE_GC_INTERVAL: '100ms',
    REGISTRY_STORAGE_MAINTENANCE_GC_GRACE: `${grace}ms`,
    REGISTRY_STORAGE_MAINTENANCE_GC_UNTAGGED: 'true',
  };
  const servers = [await rig.start({ env }), await rig.start({ env, workers: 2 })];
  const root = servers[0]!.root;
  const collector = spawn(process.execPath, [COLLECTOR, root, String(grace)], {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { ...process.env, ...options.env },
  });
  let output = '';
  collector.stdout.on('data', data => (output += data));
  const collectorEnded = once(collector, 'close');

  const random = new Random(SEED);
  const stress = new Stress(random, servers, options);
  try {
    await Promise.all([
      ...Array.from({ length: WORKERS }, (_, n) => stress.work(n, random.fork())),
      ...(options.kills ? [killWorkers(servers[1]!, stress, pushes)] : []),
    ]);
  } finally {
    collector.stdin.end();
    await collectorEnded;
  }
  for (const live of stress.live) await stress.verify(servers[0]!.client, live);
  for (const server of servers) await rig.kill(server);
  const errors = servers.flatMap(({ process }) => process.stderr.match(/.*level=error.*/g) ?? []);
  assert.deepEqual(
    errors.map(line => /msg="a worker has ended; .* worker=(\d) .*signal=SIGKILL/.exec(line)?.[1] ?? line),
    // The first is the one that collects.
    options.kills ? ['1', '2'] : [],
  );

  // What is left when all has become old is what the images need, byte for byte.
  // Times of some stores are whole seconds.
  await pause(1010);
  const driver = connect();
  await driver.open();
  const last = await collect(driver, { grace: 0, untagged: true }).finally(() => driver.close());
  assert.deepEqual(last.problems, []);
  const files = await readdir(join(root, 'docker/registry/v2/blobs/sha256'), { recursive: true });
  const left = files.filter(name => name.endsWith('/data')).map(name => `sha256:${name.split('/')[1]}`);
  const needed = new Set<string>(
    stress.live.flatMap(live => [...live.manifests.map(data => digestOf(data)), ...live.blobs, ...live.referrers]),
  );
  assert.deepEqual(
    left.filter(digest => !needed.has(digest) && !stress.signatures.has(digest)),
    [],
    'garbage is left',
  );
  assert.deepEqual(
    [...needed].filter(digest => !left.includes(digest)),
    [],
    'nothing is missing',
  );

  const { runs, ...removed } = JSON.parse(output) as Record<string, number>;
  t.diagnostic(JSON.stringify({ ...stress.figures, live: stress.live.length, runs, ...removed }));
  assert.ok(removed.blobs! > 0, 'it did collect');
  const { skipped, mounted, revived } = stress.figures;
  assert.ok(skipped > 0, 'what is dangerous did happen');
  // A short run need not meet all of it.
  assert.ok(pushes < 100 || (mounted > 0 && (revived > 0 || !LONG)), 'so did the rest');
}

/** Kills the worker that collects after a third of the pushes, in whatever it is doing, and the other one after two thirds. */
async function killWorkers(server: Server, stress: Stress, pushes: number): Promise<void> {
  for (const part of [1 / 3, 2 / 3]) {
    while (stress.figures.pushes < pushes * part) await pause(5);
    // The one that has been there for longer.
    process.kill(childrenOf(server.pid)[0]!, 'SIGKILL');
  }
}

/** A client that asks again where its worker was killed before it had answered: on each connection to it at most once. */
class Persistent extends RegistryClient {
  override async must(
    statuses: number | readonly number[],
    ...request: Parameters<RegistryClient['send']>
  ): Promise<Answer> {
    for (let lost = 0; ; lost++)
      try {
        // What was to be deleted may be gone already.
        return await super.must(lost > 0 && request[0] === 'DELETE' ? [statuses, 404].flat() : statuses, ...request);
      } catch (error) {
        if (!(error instanceof Lost) || lost > 2 * WORKERS) throw error;
      }
  }
}

class Stress {
  readonly live: Live[] = [];
  readonly figures = { pushes: 0, skipped: 0, mounted: 0, revived: 0, late: 0, pulls: 0, deletes: 0 };
  /** Layers that images share, so that one image's garbage is another's layer. */
  readonly #layers: Buffer[];
  /** Images whose tags were deleted. */
  readonly #dead: Image[] = [];
  /** Signatures of those: where the image was needed again in time, they have stayed with it. */
  readonly signatures = new Set<string>();
  /** Of which nobody can say any more what is there. */
  readonly #deleted = new WeakSet<Live>();
  readonly #clients: readonly RegistryClient[];
  #count = 0;
  readonly #started = performance.now();

  constructor(
    random: Random,
    servers: readonly Server[],
    private readonly options: StressOptions,
  ) {
    this.#clients = servers.map(({ client: { port, options } }) => new Persistent(port, options));
    this.#layers = Array.from({ length: 16 }, (_, n) => random.bytes(n % 4 ? 2_000 * (n + 1) : 300_000));
  }

  async work(worker: number, random: Random): Promise<void> {
    const own: Array<{ live: Live; image: Image }> = [];
    const { pushes, lasting = 0 } = this.options;
    while (this.figures.pushes < pushes || performance.now() < this.#started + lasting) {
      const client = random.pick(this.#clients);
      const tag = `${worker}-${++this.#count}`;
      const dice = random.next();
      if (dice < 0.5 || own.length === 0) {
        const image = this.#image(random);
        const live = await this.#push(client, random, tag, image);
        if (live) own.push({ live, image });
      } else if (dice < 0.6) await this.#pushIndex(client, random, tag);
      else if (dice < 0.7) await this.#revive(client, random, tag);
      else if (dice < 0.75) await this.#sign(client, random.pick(own).live);
      else if (dice < 0.85) await this.verify(client, random.pick(this.live));
      else {
        const [{ live, image }] = own.splice(random.between(0, own.length - 1), 1) as [(typeof own)[number]];
        await this.#delete(client, random, live, image);
      }
    }
  }

  #image(random: Random, repository = `app${random.between(1, 5)}`): Image {
    const architecture = random.pick(['amd64', 'arm64']);
    const config = Buffer.from(JSON.stringify({ os: 'linux', architecture, id: random.bytes(8).toString('hex') }));
    const layers = Array.from({ length: random.between(1, 3) }, () => random.pick(this.#layers));
    return { repository, data: manifestOf(config, layers), blobs: [config, ...layers] };
  }

  /** As clients do: what the registry says it has is not sent. @returns undefined when it took longer than the grace */
  async #push(client: RegistryClient, random: Random, tag: string, image: Image): Promise<Live | undefined> {
    const since = performance.now();
    for (const blob of image.blobs) await this.#provide(client, random, image.repository, blob);
    if (!(await this.#put(client, image.repository, tag, image.data, since))) return undefined;
    return this.#acknowledged(client, image.repository, tag, [image]);
  }

  async #provide(client: RegistryClient, random: Random, repository: string, blob: Buffer): Promise<void> {
    const digest = digestOf(blob);
    const { status } = await client.must([200, 404], 'HEAD', `/v2/${repository}/blobs/${digest}`);
    if (status === 200) {
      this.figures.skipped += 1;
      return;
    }
    const uploads = `/v2/${repository}/blobs/uploads/`;
    if (random.chance(0.5)) {
      const from = `app${random.between(1, 5)}`;
      const answer = await client.must([201, 202], 'POST', `${uploads}?mount=${digest}&from=${from}`);
      if (answer.status === 201) {
        this.figures.mounted += 1;
        return;
      }
      await client.must(204, 'DELETE', answer.headers.location!);
    }
    await client.must(201, 'POST', `${uploads}?digest=${digest}`, { body: blob });
  }

  /** @param since before the registry was asked for the first of what the manifest names */
  async #put(client: RegistryClient, repository: string, reference: string, data: Buffer, since: number) {
    const type = data.includes('"manifests"') ? OCI_INDEX : OCI_MANIFEST;
    const path = `/v2/${repository}/manifests/${reference}`;
    const answer = await client.must([201, 400], 'PUT', path, { headers: { 'content-type': type }, body: data });
    this.figures.pushes += 1;
    if (answer.status === 201) return true;
    const took = performance.now() - since;
    assert.ok(
      took > this.options.grace,
      `${repository}: what was there ${Math.round(took)} ms ago is gone: ${answer.body}`,
    );
    this.figures.late += 1;
    return false;
  }

  async #acknowledged(
    client: RegistryClient,
    repository: string,
    tag: string,
    images: readonly Image[],
    index?: Buffer,
  ) {
    const live: Live = {
      repository,
      tag,
      manifests: [...(index ? [index] : []), ...images.map(({ data }) => data)],
      blobs: images.flatMap(({ blobs }) => blobs.map(blob => digestOf(blob))),
      referrers: [],
    };
    await this.verify(client, live);
    this.live.push(live);
    return live;
  }

  /** Images by their digests, then the index that lists them. */
  async #pushIndex(client: RegistryClient, random: Random, tag: string): Promise<void> {
    const repository = `app${random.between(1, 5)}`;
    const images = [this.#image(random, repository), this.#image(random, repository)];
    const since = performance.now();
    for (const image of images) {
      for (const blob of image.blobs) await this.#provide(client, random, repository, blob);
      if (!(await this.#put(client, repository, digestOf(image.data), image.data, since))) return;
    }
    const index = indexOf(images.map(({ data }) => data));
    if (await this.#put(client, repository, tag, index, since))
      await this.#acknowledged(client, repository, tag, images, index);
  }

  /** What is about to be collected is needed again, without a word about its layers: as part of an index, or tagged. */
  async #revive(client: RegistryClient, random: Random, tag: string): Promise<void> {
    const [image] = this.#dead.splice(random.between(0, this.#dead.length - 1), 1);
    if (!image) return;
    const { repository, data } = image;
    const index = random.chance(0.5) ? indexOf([data]) : undefined;
    // Nobody has asked for it before: so it may be gone, or whole.
    if (!(await this.#put(client, repository, tag, index ?? data, Number.NEGATIVE_INFINITY))) return;
    this.figures.revived += 1;
    await this.#acknowledged(client, repository, tag, [image], index);
  }

  async #sign(client: RegistryClient, live: Live): Promise<void> {
    const config = Buffer.from('{}');
    const since = performance.now();
    await client.must(201, 'POST', `/v2/${live.repository}/blobs/uploads/?digest=${digestOf(config)}`, {
      body: config,
    });
    const subject = descriptorOf(live.manifests[0]!, OCI_MANIFEST);
    const signature = manifestOf(config, [], { subject, annotations: { id: `${++this.#count}` } });
    if (!(await this.#put(client, live.repository, digestOf(signature), signature, since))) return;
    live.referrers.push(digestOf(signature), digestOf(config));
    await this.verify(client, live);
  }

  async #delete(client: RegistryClient, random: Random, live: Live, image: Image): Promise<void> {
    this.live.splice(this.live.indexOf(live), 1);
    this.#deleted.add(live);
    this.figures.deletes += 1;
    const byTag = random.chance(0.7);
    const reference = byTag ? live.tag : digestOf(image.data);
    await client.must(202, 'DELETE', `/v2/${live.repository}/manifests/${reference}`);
    if (!byTag) return;
    this.#dead.push(image);
    for (const digest of live.referrers) this.signatures.add(digest);
  }

  /** Pulls all of it, from any process. */
  async verify(client: RegistryClient, live: Live): Promise<void> {
    const { repository, tag, manifests, blobs, referrers } = live;
    const get = async (kind: 'manifests' | 'blobs', reference: string) => {
      const { status, body } = await client.must([200, 404], 'GET', `/v2/${repository}/${kind}/${reference}`);
      // It may have been deleted meanwhile.
      if (status === 404)
        assert.ok(!this.live.includes(live), `${repository}:${tag} is broken: no ${kind} ${reference}`);
      return status === 200 ? digestOf(body) : undefined;
    };
    this.figures.pulls += 1;
    const expected = digestOf(manifests[0]!);
    assert.ok([expected, undefined].includes(await get('manifests', tag)));
    for (const data of manifests) await get('manifests', digestOf(data));
    for (const blob of blobs) assert.ok([blob, undefined].includes(await get('blobs', blob)));
    for (const [n, digest] of referrers.entries()) await get(n % 2 ? 'blobs' : 'manifests', digest);
  }
}
