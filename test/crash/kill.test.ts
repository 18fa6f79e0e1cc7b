import { after, before, describe, test } from 'node:test';
import { Random } from '../support/random.js';
import { killAtRandom } from './killing.js';
import { LONG, Rig, SEED } from './rig.js';
import { noFindings, verify, verifyFiles } from './verify.js';

const KILLS = LONG ? 1000 : 60;
/** Registries at a time: while the one starts, the other works. */
const LANES = 2;
/** After so many kills a registry begins anew, lest looking at everything takes ever longer. */
const GENERATION = 50;

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
      const more = () => left > 0 && left-- > 0;
      const ledger = await killAtRandom(rig, random, figures, { most: GENERATION, more });
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
