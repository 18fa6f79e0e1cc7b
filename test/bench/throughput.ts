import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Namespace } from '../support/namespace.js';
import { recipe, startPeer } from '../support/peer.js';
import { type Daemon, must, requireTools } from '../support/process.js';
import { program, Registry } from '../support/registry.js';
import type { Job, Result } from './load.js';

/**
 * `npm run bench`: throughput, CPU time and peak memory of big blobs over TLS, ours beside Debian's docker-registry and a
 * bare node:https handler (the limit of this machine and of the load generator). All of them have the same certificate,
 * password file and network device, run one at a time in turns, and log each request to a file. `--only push` or
 * `--only 'push 4'`, as often as wanted, runs those workloads only.
 */
const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    megabytes: { type: 'string', default: '300' },
    only: { type: 'string', multiple: true, default: [] },
    json: { type: 'boolean', default: false },
  },
});
const MIB = 1 << 20;
const bytes = Number(values.megabytes) * MIB;
const alice = { user: 'alice', password: 'correct horse' };

const WORKLOADS = [
  { kind: 'pull', clients: 1 },
  { kind: 'pull', clients: 4 },
  { kind: 'push', clients: 1 },
  { kind: 'push', clients: 4 },
  { kind: 'push and pull', clients: 8 },
] as const;

const workloads = WORKLOADS.filter(
  ({ kind, clients }) =>
    values.only.length === 0 || [kind, `${kind} ${clients}`].some(name => values.only.includes(name)),
);

/** One run of one workload on one server. */
interface Sample {
  readonly mibPerSecond: number;
  readonly cpuPerGib: number;
  readonly peakMib: number;
  /** CPU seconds of the load generator for each second of the run: near 1, it was the limit. */
  readonly generator: number;
}

interface Server {
  readonly name: string;
  readonly origin: string;
  readonly daemon: Daemon;
  /** Its volume; none for the bare handler. */
  readonly data?: string;
  /** The blob that is pulled. */
  digest: string;
}

const script = (name: string) => fileURLToPath(new URL(`./${name}.js`, import.meta.url));
const namespace = await Namespace.create();

async function startServers(): Promise<Server[]> {
  const certs = join(namespace.dir, 'certs');
  await namespace.must(program('init-certs', '--ip', namespace.ip, '--out', certs));
  // Apache's default cost, 5: the original pays it on every request.
  const htpasswd = join(namespace.dir, 'htpasswd');
  await namespace.must(['htpasswd', '-ciB', htpasswd, alice.user], { input: alice.password });
  const options = (port: number, name: string) => ({
    address: `${namespace.ip}:${port}`,
    data: join(namespace.dir, name),
    certs,
    htpasswd,
  });
  const ours = options(5001, 'ours');
  const theirs = options(5002, 'docker-registry');
  const pair = [join(certs, 'domain.crt'), join(certs, 'domain.key')];
  const bare = namespace.start('bare', [process.execPath, script('bare'), namespace.ip, '5003', ...pair, `${bytes}`]);
  const origin = `https://${namespace.ip}:`;
  await bare.ready(() => namespace.answers(`${origin}5003/`));
  const started = { name: 'ours', host: ours.address, env: recipe(ours) };
  return [
    {
      name: 'ours',
      origin: `${origin}5001`,
      ...ours,
      daemon: (await Registry.start(namespace, ['serve'], started)).daemon,
    },
    { name: 'docker-registry', origin: `${origin}5002`, ...theirs, daemon: await startPeer(namespace, theirs) },
    { name: 'bare node:https', origin: `${origin}5003`, daemon: bare },
  ].map(server => ({ ...server, digest: 'sha256:' }));
}

async function load(server: Server, work: Pick<Job, 'kind' | 'clients'>): Promise<Result> {
  const job: Job = {
    ...work,
    origin: server.origin,
    ca: readFileSync(join(namespace.dir, 'certs', 'ca.crt'), 'utf8'),
    authorization: `Basic ${Buffer.from(`${alice.user}:${alice.password}`).toString('base64')}`,
    repository: 'bench/blobs',
    bytes,
    digest: server.digest,
  };
  return JSON.parse(await namespace.must([process.execPath, script('load')], { input: JSON.stringify(job) }));
}

/** The process and all below it: a server may have workers. */
function family(pid: number): number[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ');
  return [pid, ...children.filter(Boolean).flatMap(child => family(Number(child)))];
}

/** User and system time so far, in seconds (proc(5): fields 14 and 15, in ticks of 10 ms). */
function cpuSeconds(pid: number): number {
  const ticks = (one: number) => {
    const fields = readFileSync(`/proc/${one}/stat`, 'utf8')
      .replace(/^.*\) /, '')
      .split(' ');
    return Number(fields[11]) + Number(fields[12]);
  };
  return family(pid).reduce((sum, one) => sum + ticks(one), 0) / 100;
}

/** Peak resident memory since `forgetPeak`. Of several processes it is the sum of their peaks, so never too little. */
function peakMib(pid: number): number {
  const peak = (one: number) => Number(/^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${one}/status`, 'utf8'))?.[1]);
  return family(pid).reduce((sum, one) => sum + peak(one), 0) / 1024;
}

function forgetPeak(pid: number): void {
  for (const one of family(pid)) writeFileSync(`/proc/${one}/clear_refs`, '5');
}

async function measure(server: Server, work: Pick<Job, 'kind' | 'clients'>): Promise<Sample> {
  const { pid } = server.daemon;
  // What an earlier run left to be written must not be paid for by this one.
  await must(['sync']);
  forgetPeak(pid);
  const before = cpuSeconds(pid);
  const { seconds, cpu } = await load(server, work);
  const moved = (work.clients * bytes * (work.kind === 'push and pull' ? 2 : 1)) / MIB;
  const sample = {
    mibPerSecond: moved / seconds,
    cpuPerGib: ((cpuSeconds(pid) - before) / moved) * 1024,
    peakMib: peakMib(pid),
    generator: cpu / seconds,
  };
  if (work.kind !== 'pull' && server.data) dropPushed(server, server.data);
  return sample;
}

/** Only the blob that is pulled stays, or the disk would fill. */
function dropPushed(server: Server, data: string): void {
  const blobs = join(data, 'docker', 'registry', 'v2', 'blobs', 'sha256');
  for (const entry of readdirSync(blobs, { recursive: true, encoding: 'utf8' }))
    if (/^..\/[0-9a-f]{64}$/.test(entry) && !server.digest.endsWith(entry.slice(3)))
      rmSync(join(blobs, entry), { recursive: true });
}

/** The server that has just worked is at an advantage, or the one that has rested: so each comes in each place. */
const rotated = <T>(all: readonly T[], by: number): T[] => all.map((_, index) => all[(index + by) % all.length]!);

const median = (numbers: readonly number[]) => [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)]!;
const spread = (numbers: readonly number[], digits = 0) =>
  [Math.min(...numbers), median(numbers), Math.max(...numbers)].map(number => number.toFixed(digits)).join(' / ');

try {
  requireTools('docker-registry', 'htpasswd');
  const servers = await startServers();
  for (const server of servers) {
    const [digest] = (await load(server, { kind: 'push', clients: 1 })).digests;
    server.digest = digest!;
  }
  const report = [];
  for (const work of workloads) {
    const samples = new Map<string, Sample[]>(servers.map(server => [server.name, []]));
    for (let round = 0; round < Number(values.rounds); round++)
      for (const server of rotated(servers, round)) samples.get(server.name)!.push(await measure(server, work));
    const peer = samples.get('docker-registry')!;
    // Of one round, since the machine may be busier in the next.
    const ratio = (of: readonly Sample[], key: 'mibPerSecond' | 'cpuPerGib') =>
      `${median(of.map((sample, round) => sample[key] / peer[round]![key])).toFixed(2)}x`;
    for (const [name, of] of samples) {
      const pick = (key: keyof Sample) => of.map(sample => sample[key]);
      report.push({
        workload: `${work.kind} ${values.megabytes} MiB, ${work.clients} at once`,
        server: name,
        'MiB/s (min / median / max)': spread(pick('mibPerSecond')),
        'to docker-registry': ratio(of, 'mibPerSecond'),
        'CPU s/GiB': median(pick('cpuPerGib')).toFixed(2),
        'CPU to docker-registry': ratio(of, 'cpuPerGib'),
        'peak MiB': Math.max(...pick('peakMib')).toFixed(0),
        'generator CPU': median(pick('generator')).toFixed(2),
      });
    }
  }
  const [cpu] = cpus();
  const machine = `${cpus().length} x ${cpu?.model}, Node ${process.versions.node}, ${values.rounds} rounds`;
  if (values.json) console.log(JSON.stringify({ machine, report }, null, 2));
  else {
    console.log(machine);
    console.table(report);
  }
} finally {
  await namespace.close();
}
