import { program } from '../support/registry.js';
import { type Bench, dropPushed, type Running } from './bench.js';
import { ACCEPT, paths } from './content.js';
import { watch } from './family.js';
import { repositoryName, tagName } from './load/store.js';
import { median } from './numbers.js';
import { OURS } from './servers.js';

/** How something grows with something else. */
export interface Curve {
  readonly name: string;
  /** What grows. */
  readonly of: string;
  readonly points: readonly number[];
  /** What is measured at each point, with its unit. */
  readonly series: readonly string[];
  /** One round at one point. @returns a number for each series */
  measure(bench: Bench, point: number): Promise<number[]>;
}

const STORE_SIZES = [1_000, 10_000, 100_000, 1_000_000];
const CLIENTS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];
const KIB = 1024;
const BLOB_SIZES = [KIB, 16 * KIB, 256 * KIB, 4 * KIB ** 2, 64 * KIB ** 2, KIB ** 3, 4 * KIB ** 3];

/** Of what a store holds in blobs: images of ten each in a repository of its own, and tags of one repository, as many as images. */
const BLOBS_OF_AN_IMAGE = 10;

const stores = new Map<number, Promise<string>>();

function storeOf(bench: Bench, blobs: number): Promise<string> {
  const known = stores.get(blobs);
  if (known) return known;
  const written = bench.volumeInMemory(`store-${blobs}`).then(async volume => {
    const images = blobs / BLOBS_OF_AN_IMAGE;
    await bench.write({ volume, repositories: images, tags: 1, blobs: BLOBS_OF_AN_IMAGE, more: images });
    return volume;
  });
  stores.set(blobs, written);
  return written;
}

/** A server of ours on that store, ended after the round: it has seen nothing of the store before. */
async function listing(bench: Bench, blobs: number, path: string): Promise<number[]> {
  const server = await bench.launch(bench.prepare(OURS, await storeOf(bench, blobs)));
  try {
    const end = watch(server.daemon.pid);
    const { seconds } = bench.options;
    const { times } = await bench.generators.run(server.origin, { kind: 'pages', paths: [path], seconds });
    return [median(times!), end().pss];
  } finally {
    await server.daemon.stop();
  }
}

async function command(bench: Bench, blobs: number, args: readonly string[]): Promise<number[]> {
  const volume = await storeOf(bench, blobs);
  const argv = program(...args, '--root', volume);
  const { seconds, cpu, times } = await bench.generators.run('', {
    kind: 'command',
    argv,
    env: {},
    cwd: bench.namespace.dir,
  });
  return [seconds, cpu, times![0]!];
}

const ours = async (bench: Bench): Promise<Running> => (await bench.servers('app')).find(({ kind }) => kind === OURS)!;

async function transfers(bench: Bench, how: 'push' | 'pull', bytes: number): Promise<number[]> {
  const server = await ours(bench);
  const end = watch(server.daemon.pid);
  const { times } = await bench.generators.run(server.origin, {
    kind: 'sizes',
    how,
    bytes,
    seconds: bench.options.seconds,
  });
  dropPushed(server, bench.held);
  return [median(times!), end().pss];
}

export const CURVES: readonly Curve[] = [
  {
    name: 'catalog page of 100',
    of: 'blobs in the store',
    points: STORE_SIZES,
    series: ['ms', 'MiB'],
    measure: (bench, blobs) => {
      const last = repositoryName(blobs / BLOBS_OF_AN_IMAGE / 2);
      return listing(bench, blobs, `/v2/_catalog?n=100&last=${encodeURIComponent(last)}`);
    },
  },
  {
    name: 'tags page of 100',
    of: 'blobs in the store',
    points: STORE_SIZES,
    series: ['ms', 'MiB'],
    measure: (bench, blobs) =>
      listing(bench, blobs, `/v2/tags/tags/list?n=100&last=${tagName(blobs / BLOBS_OF_AN_IMAGE / 2)}`),
  },
  {
    name: 'gc --dry-run',
    of: 'blobs in the store',
    points: STORE_SIZES,
    series: ['s', 'CPU s', 'MiB'],
    measure: (bench, blobs) => command(bench, blobs, ['gc', '--dry-run']),
  },
  {
    name: 'verify',
    of: 'blobs in the store',
    points: STORE_SIZES,
    series: ['s', 'CPU s', 'MiB'],
    measure: (bench, blobs) => command(bench, blobs, ['verify']),
  },
  {
    name: 'manifest by tag',
    of: 'connections that stay open',
    points: CLIENTS,
    series: ['ms for each request', 'p99 (ms)', 'MiB'],
    measure: async (bench, connections) => {
      const server = await ours(bench);
      const end = watch(server.daemon.pid);
      const { generators, held, options } = bench;
      const list = held.tags.map(tag => paths.tag(held, tag));
      const { seconds } = options;
      const work = await generators.keepAlive(server.origin, { paths: list, accept: ACCEPT, seconds, connections });
      return [(work.seconds / work.amount) * 1000, work.times![0]!, end().pss];
    },
  },
  ...(['push', 'pull'] as const).map(
    (how): Curve => ({
      name: `${how} of a blob`,
      of: 'bytes',
      points: BLOB_SIZES,
      series: ['ms', 'MiB'],
      measure: (bench, bytes) => transfers(bench, how, bytes),
    }),
  ),
];
