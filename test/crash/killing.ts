import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';
import type { Random } from '../support/random.js';
import { Ledger, type RepositoryLedger } from './ledger.js';
import type { Rig } from './rig.js';
import { type Findings, verify } from './verify.js';
import { Worker } from './workload.js';

const WORKERS = 3;
const SHARED = ['shared/one', 'shared/two'];
/** How many repositories that were looked at before are looked at again after each kill. */
const SAMPLE = 5;

export interface KillOptions {
  /** How many kills there are at most. */
  readonly most: number;
  /** Asked before each. */
  readonly more?: () => boolean;
  /** How many processes share its port: one of these. One or two unless told. */
  readonly workers?: readonly number[];
  /** How much clients have done each time before; nothing unless told. */
  readonly actions?: number;
  /** For how long it works after that, at least and at most. In milliseconds. */
  readonly working?: readonly [number, number];
  /** Of the layers that do not fit into the buffers of a connection: their sizes, at least and at most. */
  readonly large?: readonly [number, number] | undefined;
}

/**
 * Starts the program and kills it while clients work with it, again and again, and looks each time at what they have touched.
 * @returns what they have done; the last of it is yet to be looked at
 */
export async function killAtRandom(
  rig: Rig,
  random: Random,
  figures: Findings & { kills: number; starting: number },
  options: KillOptions,
): Promise<Ledger> {
  const { most, more = () => true, workers: counts = [1, 2], actions = 0, large } = options;
  const [shortest, longest] = options.working ?? [10, 400];
  const ledger = new Ledger();
  const touched = new Set<RepositoryLedger>();
  const repository = (name: string) => {
    const one = ledger.repository(name);
    touched.add(one);
    return one;
  };
  const workers = Array.from(
    { length: WORKERS },
    (_, index) => new Worker(`worker${index}`, random.fork(), repository, SHARED, large),
  );
  for (let kills = 0; kills < most && more(); kills++) {
    figures.kills++;
    if (random.chance(0.1)) {
      figures.starting++;
      await rig.killStarting(random.between(50, 700));
      continue;
    }
    const server = await rig.start({ workers: random.pick(counts) });
    for (let n = 0; n < SAMPLE && ledger.repositories.size > 0; n++)
      touched.add(random.pick([...ledger.repositories.values()]));
    await verify(server.client, touched, figures);
    touched.clear();
    const done = () => workers.reduce((sum, worker) => sum + worker.done, 0);
    const before = done();
    const working = Promise.all(workers.map(worker => worker.work(server.client)));
    // Nobody loses the server before it is killed.
    const goesOn = working.then(([lost]) => assert.fail(lost));
    while (done() < before + actions) await Promise.race([goesOn, pause(20)]);
    await Promise.race([goesOn, pause(random.between(shortest, longest))]);
    if (random.chance(0.3)) {
      rig.killWorker(server, random);
      await pause(random.between(0, 200));
    }
    await rig.kill(server);
    await working;
  }
  return ledger;
}
