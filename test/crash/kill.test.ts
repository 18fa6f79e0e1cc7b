import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { Random } from '../support/random.js';
import { Ledger, type RepositoryLedger } from './ledger.js';
import { LONG, Rig, SEED } from './rig.js';
import { noFindings, verify, verifyFiles } from './verify.js';
import { Worker } from './workload.js';

const KILLS = LONG ? 1000 : 60;
/** Registries at a time: while the one starts, the other works. */
const LANES = 2;
/** After so many kills a registry begins anew, lest looking at everything takes ever longer. */
const GENERATION = 50;
const WORKERS = 3;
const SHARED = ['shared/one', 'shared/two'];
/** How many repositories that were looked at before are looked at again after each kill. */
const SAMPLE = 5;

describe('killed at random moments', () => {
  const rigs: Rig[] = [];
  before(() => {
    for (let lane = 0; lane < LANES; lane++) rigs.push(new Rig());
  });
  after(() => Promise.all(rigs.map(rig => rig.close())));

  test(`${KILLS} times, it loses nothing that it answered, and shows no half of anything`, async t => {
    t.diagnostic(`SEED=${SEED} repeats the choices`);
    const random = new Random(SEED);
    const figures = { kills: 0, starting: 0, files: 0, ...noFindings() };
    let left = KILLS;

    const lane = async (rig: Rig, random: Random): Promise<void> => {
      while (left > 0) await generation(rig, random);
    };

    const generation = async (rig: Rig, random: Random): Promise<void> => {
      const ledger = new Ledger();
      const touched = new Set<RepositoryLedger>();
      const repository = (name: string) => {
        const one = ledger.repository(name);
        touched.add(one);
        return one;
      };
      const workers = Array.from(
        { length: WORKERS },
        (_, index) => new Worker(`worker${index}`, random.fork(), repository, SHARED),
      );
      for (let kills = 0; kills < GENERATION && left > 0; kills++) {
        left--;
        figures.kills++;
        if (random.chance(0.1)) {
          figures.starting++;
          await rig.killStarting(random.between(50, 700));
          continue;
        }
        const server = await rig.start({ workers: random.pick([1, 2]) });
        for (let n = 0; n < SAMPLE && ledger.repositories.size > 0; n++)
          touched.add(random.pick([...ledger.repositories.values()]));
        await verify(server.client, touched, figures);
        touched.clear();
        const working = Promise.all(workers.map(worker => worker.work(server.client)));
        // Nobody loses the server before it is killed.
        await Promise.race([working.then(([lost]) => assert.fail(lost)), pause(random.between(10, 400))]);
        if (random.chance(0.3)) {
          rig.killWorker(server, random);
          await pause(random.between(0, 200));
        }
        await rig.kill(server);
        await working;
      }
      const server = await rig.start();
      await verify(server.client, ledger.repositories.values(), figures);
      await rig.kill(server);
      figures.files += await verifyFiles(server.root);
      rig.wipe();
    };

    const lanes = rigs.map(async rig => {
      try {
        await lane(rig, random.fork());
      } finally {
        // If this one failed, the others need not go on.
        left = 0;
      }
    });
    await Promise.allSettled(lanes);
    await Promise.all(lanes);
    t.diagnostic(JSON.stringify(figures));
  });
});
