import { setTimeout as sleep } from 'node:timers/promises';
import { digestOf } from '../support/content.js';
import { type Bench, dropPushed, PUSHED, type Running, renew, type Store } from './bench.js';
import { ACCEPT, type Holdings, paths } from './content.js';
import type { Usage } from './family.js';
import { LARGE, REFERRERS } from './files.js';
import { repositoryName } from './load/store.js';
import type { Upload } from './load/transfers.js';
import type { Work } from './load/work.js';
import { quantile } from './numbers.js';
import type { Kind } from './servers.js';

/** One thing that is measured. */
export interface Workload {
  readonly name: string;
  readonly unit: 'requests/s' | 'images/s' | 'operations/s' | 'MiB/s' | 'ms' | 'MiB';
  readonly better: 'more' | 'less';
  /** What its CPU time is counted by; none where it tells nothing. */
  readonly cost?: 'ms/request' | 'ms/image' | 'ms/operation' | 's/GiB' | 'ms';
  readonly store: Store;
  /** The commands that it needs, and the package of Debian that brings each. */
  readonly needs?: Readonly<Record<string, string>>;
  /** Whether it says anything of that kind of server. */
  fits(kind: Kind): boolean;
  /** Before the first round. @throws LeftOut */
  prepare?(bench: Bench, server: Running): Promise<void>;
  run(bench: Bench, server: Running): Promise<Outcome>;
}

export interface Outcome {
  readonly value: number;
  readonly work: Work;
  /** How many pushes, pulls or requests it was, where the work is counted otherwise. */
  readonly operations?: number;
  /** Of the server, where it is not the one that is watched. */
  readonly usage?: Partial<Usage>;
}

/** The server has nothing that this workload could measure; the message says what. */
export class LeftOut extends Error {}

const perSecond = (work: Work): Outcome => ({ value: work.amount / work.seconds, work });
const mibPerSecond = (work: Work): Outcome => ({ value: (work.amount * 1024) / work.seconds, work });
const any = () => true;
const pushes = (kind: Kind) => kind.pushes;
const registries = (kind: Kind) => kind.holds === 'volume';

function keepAlive(name: string, path: (held: Holdings) => string | string[]): Workload {
  return {
    name,
    unit: 'requests/s',
    better: 'more',
    cost: 'ms/request',
    store: 'app',
    needs: { wrk: 'wrk' },
    fits: any,
    run: async ({ generators, held, options: { seconds } }, { origin }) =>
      perSecond(await generators.keepAlive(origin, { paths: [path(held)].flat(), accept: ACCEPT, seconds })),
  };
}

function newConnections(name: string, path: (held: Holdings) => string): Workload {
  return {
    name: `${name}, a connection each`,
    unit: 'requests/s',
    better: 'more',
    cost: 'ms/request',
    store: 'app',
    needs: { openssl: 'openssl' },
    fits: any,
    run: async ({ generators, held, options: { seconds } }, { origin, kind, place }) => {
      const bytes = held.image.manifest.length;
      const work = await generators.newConnections(origin, { path: path(held), accept: ACCEPT, seconds, bytes });
      if (kind.resumed?.(place)) throw new Error('sessions were resumed, so that not each request had a handshake');
      return perSecond(work);
    },
  };
}

function pull(clients: number, first: boolean): Workload {
  const load = ({ generators, held, options: { bytes } }: Bench, { origin }: Running) =>
    generators.run(origin, { kind: 'pull', path: paths.blob(held, held.big.digest), clients, bytes });
  return {
    name: `${first ? 'first pull' : 'pull'}, ${clients} at once`,
    unit: 'MiB/s',
    better: 'more',
    cost: 's/GiB',
    store: 'app',
    fits: any,
    prepare: async (bench, server) => {
      // Each of its processes looks at a blob by itself.
      if (!first) for (let warm = 0; warm < 4; warm++) await load(bench, server);
    },
    run: async (bench, server) => {
      if (first && registries(server.kind) && !renew(server, bench.held.big.digest))
        throw new LeftOut('its blobs are no files that could be made new');
      return { ...mibPerSecond(await load(bench, server)), operations: clients };
    },
  };
}

function push(clients: number, upload: Upload): Workload {
  return {
    name: `${upload} push, ${clients} at once`,
    unit: 'MiB/s',
    better: 'more',
    cost: 's/GiB',
    store: 'app',
    fits: pushes,
    run: async ({ generators, held, options: { bytes } }, server) => {
      const job = { kind: 'push', repository: PUSHED, upload, clients, bytes } as const;
      const work = await generators.run(server.origin, job);
      dropPushed(server, held);
      return { ...mibPerSecond(work), operations: clients };
    },
  };
}

const MANY = 16;

/** To a server of its own, so that its memory is theirs. One of the blobs is pulled afterwards, and must be what was pushed. */
function manyPushes(upload: Upload): Workload {
  return {
    ...push(MANY, upload),
    run: (bench, of) =>
      byItself(bench, of, async server => {
        const { generators, options } = bench;
        const sent = { repository: PUSHED, upload, clients: MANY, bytes: options.bytes };
        const end = bench.watch(server);
        const work = await generators.run(server.origin, { kind: 'push', ...sent });
        const usage = end();
        const digest = work.pushed!;
        const path = `/v2/${PUSHED}/blobs/${digest}`;
        await generators.run(server.origin, { kind: 'pull', path, clients: 1, bytes: options.bytes, digest });
        return { ...mibPerSecond(work), operations: MANY, usage };
      }),
  };
}

const HEADS: Workload = {
  name: 'blob HEAD',
  unit: 'requests/s',
  better: 'more',
  cost: 'ms/request',
  store: 'app',
  fits: any,
  run: async ({ generators, held, options: { seconds } }, { origin }) => {
    const blobs = held.image.layers.map(data => paths.blob(held, digestOf(data)));
    return perSecond(await generators.run(origin, { kind: 'heads', paths: blobs, clients: 16, seconds }));
  },
};

function images(clients: number): Workload {
  return {
    name: `small images, ${clients} at once`,
    unit: 'images/s',
    better: 'more',
    cost: 'ms/image',
    store: 'app',
    fits: pushes,
    run: async ({ generators, options: { seconds } }, { origin }) =>
      perSecond(await generators.run(origin, { kind: 'images', clients, seconds })),
  };
}

const MIXED: Workload = {
  name: 'mixed, 8 at once',
  unit: 'operations/s',
  better: 'more',
  cost: 'ms/operation',
  store: 'app',
  fits: pushes,
  run: async ({ generators, held, options: { seconds } }, server) => {
    const pulled = [paths.tag(held, 'v0'), paths.blob(held, held.small.digest)] as const;
    const work = await generators.run(server.origin, { kind: 'mixed', clients: 8, seconds, pulled });
    dropPushed(server, held);
    return perSecond(work);
  },
};

function latency(name: string, pushing: number): Workload {
  return {
    name: `p99 of a manifest, ${name}`,
    unit: 'ms',
    better: 'less',
    store: 'app',
    fits: pushing > 0 ? pushes : any,
    run: async ({ generators, held, options: { bytes, seconds } }, server) => {
      const beside = { kind: 'push', repository: PUSHED, upload: 'streamed', clients: pushing, bytes } as const;
      const work = await generators.run(server.origin, {
        kind: 'latency',
        path: paths.tag(held, 'v0'),
        accept: ACCEPT,
        every: 10,
        seconds: 2 * seconds,
        ...(pushing > 0 && { beside }),
      });
      dropPushed(server, held);
      return { value: quantile(work.times!, 0.99), work };
    },
  };
}

/** The median of pages that are asked for alone, one after the other. */
function pages(
  name: string,
  store: Store,
  of: (held: Holdings) => readonly string[],
  more: Partial<Workload> = {},
): Workload {
  return {
    name,
    unit: 'ms',
    better: 'less',
    cost: 'ms/request',
    store,
    fits: any,
    run: async ({ generators, held, options: { seconds } }, { origin }) => {
      const work = await generators.run(origin, { kind: 'pages', paths: of(held), seconds });
      return { value: quantile(work.times!, 0.5), work };
    },
    ...more,
  };
}

const half = LARGE.repositories / 2;
const after = (index: number) => `/v2/_catalog?n=100&last=${encodeURIComponent(repositoryName(index))}`;
const LISTED = `${LARGE.repositories} repositories`;

const REFERRERS_PAGE = pages(`referrers, ${REFERRERS} of one image`, 'app', held => [paths.referrers(held)], {
  prepare: async (bench, server) => {
    if (!registries(server.kind)) return;
    if ((await bench.status(server, paths.referrers(bench.held))) !== 200) throw new LeftOut('it knows no referrers');
    await bench.generators.run(server.origin, { kind: 'referrers', count: REFERRERS });
  },
});

function startUp(name: string, store: 'empty' | 'large'): Workload {
  return {
    name: `start-up, ${name}`,
    unit: 'ms',
    better: 'less',
    cost: 'ms',
    store: store === 'large' ? 'large' : 'app',
    fits: store === 'large' ? registries : any,
    run: async (bench, { kind }) => {
      const { place, origin } = bench.prepare(kind, store === 'large' ? await bench.large() : undefined);
      const work = await bench.generators.run(origin, { kind: 'start', ...kind.command(place) });
      return { value: work.seconds * 1000, work: { ...work, cpu: 0 }, usage: { cpu: work.cpu } };
    },
  };
}

/** Measures a server of its own, which has done nothing else, on the volume of one that runs. */
async function byItself(bench: Bench, of: Running, during: (server: Running) => Promise<Outcome>): Promise<Outcome> {
  const server = await bench.launch(bench.prepare(of.kind, of.place.volume));
  try {
    return await during(server);
  } finally {
    await server.daemon.stop();
    dropPushed(server, bench.held);
  }
}

function memory(name: string, during: (bench: Bench, server: Running) => Promise<Work>): Workload {
  return {
    name: `memory, ${name}`,
    unit: 'MiB',
    better: 'less',
    store: 'app',
    fits: any,
    run: (bench, of) =>
      byItself(bench, of, async server => {
        const end = bench.watch(server);
        const work = await during(bench, server);
        const usage = end();
        return { value: usage.pss, work, usage };
      }),
  };
}

async function idle(): Promise<Work> {
  await sleep(3000);
  return { amount: 1, seconds: 3, cpu: 0 };
}

const CROWD = 100;

function crowd({ generators, held }: Bench, { origin, kind }: Running): Promise<Work> {
  return generators.run(origin, {
    kind: 'slow',
    pushes: kind.pushes ? CROWD : 0,
    pulls: CROWD,
    repository: PUSHED,
    path: paths.blob(held, held.big.digest),
    seconds: 20,
  });
}

export const WORKLOADS: readonly Workload[] = [
  keepAlive('manifest by tag', held => held.tags.map(tag => paths.tag(held, tag))),
  keepAlive('manifest by digest', paths.manifest),
  newConnections('manifest by tag', held => paths.tag(held, 'v0')),
  newConnections('manifest by digest', paths.manifest),
  HEADS,
  keepAlive('tags list', paths.tags),
  images(1),
  images(4),
  ...[1, 4, 16].map(clients => pull(clients, true)),
  ...[1, 4, 16].map(clients => pull(clients, false)),
  ...[1, 4].map(clients => push(clients, 'whole')),
  ...[1, 4].map(clients => push(clients, 'streamed')),
  MIXED,
  latency('alone', 0),
  latency('beside 4 pushes', 4),
  REFERRERS_PAGE,
  memory('idle', idle),
  memory(`${CROWD} slow pushes and ${CROWD} slow pulls`, crowd),
  startUp('empty', 'empty'),
  startUp(LISTED, 'large'),
  pages(`catalog page, ${LISTED}`, 'large', () => [after(0), after(half), after(LARGE.repositories - 200)]),
  pages(`tags page, ${LISTED}`, 'large', () => [`/v2/${repositoryName(half)}/tags/list`]),
];

/** What is measured through a bucket. */
export const BUCKET_WORKLOADS: readonly Workload[] = [
  keepAlive('manifest by tag', held => held.tags.map(tag => paths.tag(held, tag))),
  images(1),
  images(4),
  ...[1, 4].map(clients => pull(clients, false)),
  ...[1, 4].map(clients => push(clients, 'whole')),
  ...[1, 4].map(clients => push(clients, 'streamed')),
  manyPushes('whole'),
  manyPushes('streamed'),
];
