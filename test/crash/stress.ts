import assert from 'node:assert/strict';
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Readable, Writable } from 'node:stream';
import type { TestContext } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Digest } from '../../src/reference.js';
import type { StorageDriver } from '../../src/storage/driver.js';
import { collect } from '../../src/store/collector.js';
import { layout } from '../../src/store/layout.js';
import { Random } from '../support/random.js';
import { type Answer, Lost, RegistryClient } from '../support/registry-client.js';
import { descriptorOf, digestOf, indexOf, manifestOf, OCI_INDEX, OCI_MANIFEST } from '../support/registry-fixture.js';
import { childrenOf, LONG, type Rig, SEED, type Server } from './rig.js';
import { blobsOf } from './verify.js';

const WORKERS = 4;

/** How long what has to happen is waited for (ms). */
const PATIENCE = 300_000;
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
  /** How many at least; it goes on until something was collected, and there is an image that was pushed in time. */
  readonly pushes: number;
  /** For how long what nothing refers to is left alone, in milliseconds. */
  readonly grace: number;
  /** Whether workers are killed; a remover that dies holds up whoever writes the same, on some storage for half a minute. */
  readonly kills: boolean;
  /** Whether one process alone may write there. Then that one collects, and is started again where it was killed. */
  readonly alone?: boolean | undefined;
  /** Of the same storage. */
  readonly connect: () => StorageDriver;
}

/**
 * Pushes, pulls, deletes and mounts by one process and by two workers, which may be killed, while three collectors run, or by one
 * process alone: none of it breaks an image, and in the end nothing is left but what images need.
 */
export async function stressCollectors(t: TestContext, rig: Rig, options: StressOptions): Promise<void> {
  const { pushes, grace, alone = false, connect } = options;
  t.diagnostic(`SEED=${SEED} repeats the choices`);
  const env = {
    REGISTRY_STORAGE_MAINTENANCE_GC_INTERVAL: '100ms',
    REGISTRY_STORAGE_MAINTENANCE_GC_GRACE: `${grace}ms`,
    REGISTRY_STORAGE_MAINTENANCE_GC_UNTAGGED: 'true',
  };
  const servers = [await rig.start({ env }), ...(alone ? [] : [await rig.start({ env, workers: 2 })])];
  const beside = alone ? undefined : new Collector(rig, grace);
  const random = new Random(SEED);
  const removed = () => beside?.removed ?? removedBy(servers);
  const stress = new Stress(random, servers, { ...options, hasCollected: () => removed().blobs > 0 });
  const kill = async () => {
    if (alone) return killAll(rig, servers, stress, { ...options, env });
    return killWorkers(servers[1]!, stress, pushes);
  };
  try {
    await Promise.all([
      ...Array.from({ length: WORKERS }, (_, n) => stress.work(n, random.fork())),
      ...(options.kills ? [kill()] : []),
    ]);
  } finally {
    await beside?.end();
  }
  const running = alone ? servers.slice(-1) : servers;
  for (const live of stress.live) await stress.verify(running[0]!.client, live);
  for (const server of running) await rig.kill(server);
  const errors = servers.flatMap(({ process }) => process.stderr.match(/.*level=error.*/g) ?? []);
  assert.deepEqual(
    errors.map(line => /msg="a worker has ended; .* worker=(\d) .*signal=SIGKILL/.exec(line)?.[1] ?? line),
    // The first is the one that collects.
    options.kills && !alone ? ['1', '2'] : [],
  );

  // What is left when all has become old is what the images need, byte for byte.
  // Times of some stores are whole seconds.
  await pause(1010);
  const driver = connect();
  await driver.open();
  const last = await collect(driver, { grace: 0, untagged: true });
  assert.deepEqual(last.problems, []);
  const left = await blobsOf(driver);
  await driver.close();
  const needed = new Set<string>(
    stress.live.flatMap(live => [...live.manifests.map(data => digestOf(data)), ...live.blobs, ...live.referrers]),
  );
  assert.deepEqual(
    left.filter(digest => !needed.has(digest) && !stress.signatures.has(digest)),
    [],
    'garbage is left',
  );
  assert.deepEqual(
    [...needed].filter(digest => !left.some(other => other === digest)),
    [],
    'nothing is missing',
  );

  t.diagnostic(JSON.stringify({ ...stress.figures, live: stress.live.length, ...removed() }));
  assert.ok(removed().blobs > 0, 'it did collect');
  assert.ok(stress.live.length > 0, 'some image was pushed in time');
  const { skipped, mounted, revived } = stress.figures;
  assert.ok(skipped > 0, 'what is dangerous did happen');
  // A short run need not meet all of it.
  assert.ok(pushes < 100 || (mounted > 0 && (revived > 0 || !LONG)), 'so did the rest');
}

interface Removed {
  readonly runs: number;
  readonly blobs: number;
}

/** A third one, which asks nobody whether another collects. */
class Collector {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  readonly #ended: Promise<unknown>;
  #output = '';

  constructor(rig: Rig, grace: number) {
    this.#child = spawn(process.execPath, [COLLECTOR, rig.config, String(grace)], {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { ...process.env, ...rig.env },
    });
    this.#child.stdout.on('data', data => (this.#output += data));
    this.#ended = once(this.#child, 'close');
  }

  async end(): Promise<void> {
    this.#child.stdin.end();
    await this.#ended;
  }

  /** By the runs that are over. */
  get removed(): Removed {
    // What is behind the last end of a line may still be on its way.
    const last = this.#output.split('\n').at(-2);
    return last === undefined ? { runs: 0, blobs: 0 } : (JSON.parse(last) as Removed);
  }
}

/** What servers tell of their own collectors. */
function removedBy(servers: readonly Server[]): Removed {
  const runs = servers.flatMap(({ process }) => [...process.stderr.matchAll(/msg="collected garbage" .*blobs=(\d+)/g)]);
  return { runs: runs.length, blobs: runs.reduce((sum, [, blobs]) => sum + Number(blobs), 0) };
}

/** Kills the one process there is after each third of the pushes, in whatever it is doing, and starts another. */
async function killAll(
  rig: Rig,
  servers: Server[],
  stress: Stress,
  { pushes, connect, env }: Pick<StressOptions, 'pushes' | 'connect'> & { env: NodeJS.ProcessEnv },
): Promise<void> {
  for (const part of [1 / 3, 2 / 3]) {
    while (stress.figures.pushes < pushes * part) await pause(5);
    await stress.without(async () => {
      await rig.kill(servers.at(-1)!);
      // For ten minutes nobody knows that it is dead, and collects.
      const driver = connect();
      await driver.open();
      await driver.remove(layout.collectorLease);
      await driver.close();
      servers.push(await rig.start({ env }));
      return servers.at(-1)!.process.port;
    });
  }
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
  /** Until when there is nobody to ask. */
  absence: Promise<void> | undefined;

  override async must(
    statuses: number | readonly number[],
    ...request: Parameters<RegistryClient['send']>
  ): Promise<Answer> {
    for (let lost = 0; ; lost++)
      try {
        await this.absence;
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
  readonly #clients: readonly Persistent[];
  #count = 0;
  readonly #end = performance.now() + PATIENCE;

  constructor(
    random: Random,
    servers: readonly Server[],
    private readonly options: Pick<StressOptions, 'pushes' | 'grace'> & { readonly hasCollected: () => boolean },
  ) {
    this.#clients = servers.map(({ client: { port, options } }) => new Persistent(port, options));
    this.#layers = Array.from({ length: 16 }, (_, n) => random.bytes(n % 4 ? 2_000 * (n + 1) : 300_000));
  }

  /** Has clients wait until the server is back. @param start tells its port */
  async without(start: () => Promise<number>): Promise<void> {
    const port = start();
    for (const client of this.#clients)
      client.absence = port.then(port => {
        client.port = port;
      });
    await port;
  }

  async work(worker: number, random: Random): Promise<void> {
    const own: Array<{ live: Live; image: Image }> = [];
    while (this.#goesOn()) {
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

  #goesOn(): boolean {
    const { pushes, skipped } = this.figures;
    if (pushes < this.options.pushes) return true;
    const hasMet = skipped > 0 && this.live.length > 0 && this.options.hasCollected();
    return performance.now() < this.#end && !hasMet;
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

  /**
   * @param since before the registry was asked for the first of what the manifest names
   * @returns false when it took longer than the grace
   */
  async #put(client: RegistryClient, repository: string, reference: string, data: Buffer, since: number) {
    const { grace } = this.options;
    const type = data.includes('"manifests"') ? OCI_INDEX : OCI_MANIFEST;
    const manifests = `/v2/${repository}/manifests`;
    const begun = performance.now();
    const answer = await client.must([201, 400], 'PUT', `${manifests}/${reference}`, {
      headers: { 'content-type': type },
      body: data,
    });
    const now = performance.now();
    this.figures.pushes += 1;
    if (answer.status === 201 && now - begun <= grace) return true;
    this.figures.late += 1;
    // What it names may have been collected while it was stored: nobody was promised an image that takes so long.
    if (answer.status === 201) await client.must([202, 404], 'DELETE', `${manifests}/${digestOf(data)}`);
    else
      assert.ok(
        now - since > grace,
        `${repository}: what was there ${Math.round(now - since)} ms ago is gone: ${answer.body}`,
      );
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
