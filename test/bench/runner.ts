import { must } from '../support/process.js';
import { type Bench, progress, type Running } from './bench.js';
import { LeftOut, type Workload } from './workloads.js';

/** One run of one workload on one server. */
export interface Sample {
  readonly value: number;
  /** CPU time of the server for each unit of work, as the workload counts it. */
  readonly cost: number | undefined;
  /** Peak memory of the server (MiB); see Usage. */
  readonly pss: number | undefined;
  readonly rss: number | undefined;
  /** Of the object store, where there is one: CPU time for each unit as `cost`, and requests for each push, pull or request. */
  readonly store?: { readonly cost: number; readonly requests: number };
  /** CPU seconds of the load generator for each second: near the number of its threads, it was the limit. */
  readonly generator: number;
}

/** All rounds of one workload. It can be written as JSON and read again. */
export interface Measured {
  readonly workload: Pick<Workload, 'name' | 'unit' | 'better' | 'cost'>;
  /** By server, a sample for each round. */
  readonly samples: Readonly<Record<string, readonly Sample[]>>;
  /** By server, why it has none. */
  readonly leftOut: Readonly<Record<string, string>>;
}

/** The server that has just worked is at an advantage, or the one that has rested: so each comes in each place. */
const rotated = <T>(all: readonly T[], by: number): T[] => all.map((_, index) => all[(index + by) % all.length]!);

/** Runs the workload on all servers in turn, as often as there are rounds. */
export async function measure(bench: Bench, workload: Workload, rounds: number): Promise<Measured> {
  const leftOut = new Map<string, string>();
  const samples = new Map<string, Sample[]>();
  const fitting: Running[] = [];
  const unlessLeftOut = async (server: Running, does: () => Promise<void>) => {
    try {
      await does();
    } catch (error) {
      if (!(error instanceof LeftOut)) throw new Error(`${workload.name}, ${server.name}: ${(error as Error).message}`);
      leftOut.set(server.name, error.message);
      samples.delete(server.name);
    }
  };
  for (const server of await bench.servers(workload.store)) {
    if (!workload.fits(server.kind)) continue;
    await unlessLeftOut(server, async () => {
      await workload.prepare?.(bench, server);
      fitting.push(server);
      samples.set(server.name, []);
    });
  }
  for (let round = 0; round < rounds; round++)
    for (const server of rotated(fitting, round)) {
      if (leftOut.has(server.name)) continue;
      progress(`${workload.name}, round ${round + 1} of ${rounds}: ${server.name}`);
      await unlessLeftOut(server, async () => {
        samples.get(server.name)!.push(await sample(bench, workload, server));
      });
    }
  const { name, unit, better, cost } = workload;
  return {
    workload: { name, unit, better, ...(cost && { cost }) },
    samples: Object.fromEntries(samples),
    leftOut: Object.fromEntries(leftOut),
  };
}

async function sample(bench: Bench, workload: Workload, server: Running): Promise<Sample> {
  // What an earlier run left to be written must not be paid for by this one.
  await must(['sync']);
  const end = bench.watch(server);
  const { value, work, usage: own, operations = work.amount } = await workload.run(bench, server);
  const all = end();
  const { cpu, pss, rss, store } = own ?? all;
  const perUnit = (workload.cost === 's/GiB' ? 1 : 1000) / work.amount;
  return {
    value,
    cost: workload.cost && cpu !== undefined ? cpu * perUnit : undefined,
    pss,
    rss,
    ...(store && { store: { cost: store.cpu * perUnit, requests: store.requests / operations } }),
    generator: work.cpu / work.seconds,
  };
}
