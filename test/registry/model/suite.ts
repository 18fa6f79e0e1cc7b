import { test } from 'node:test';
import fc from 'fast-check';
import type { Place } from '../../storage/places.js';
import { Random } from '../../support/random.js';
import { clients, operations, prologue } from './operations.js';
import { Processes } from './processes.js';
import { Race, Slowness } from './race.js';
import { play } from './sequence.js';
import { makeUniverse, recipe } from './universe.js';
import { World } from './world.js';

/** For longer runs, and to see a failure again by the seed and the path that it has told. */
const { MODEL_RUNS, MODEL_SEED, MODEL_PATH } = process.env;

const parameters = (usual: number) => ({
  numRuns: Number(MODEL_RUNS ?? usual),
  ...(MODEL_SEED && { seed: Number(MODEL_SEED) }),
  ...(MODEL_PATH && { path: MODEL_PATH }),
});

/** Registers the tests of a registry against the reference, on one kind of storage. @param runs how many of each, unless told */
export function testModel(name: string, makePlace: () => Promise<Place>, runs = { alone: 10, atOnce: 8 }): void {
  test(`on the driver ${name}, a registry does what the reference model does`, async () => {
    const holds = fc.asyncProperty(recipe, operations, async (recipe, operations) => {
      const place = await makePlace();
      const processes = await Processes.start(place);
      try {
        const world = new World(makeUniverse(recipe));
        for (const operation of operations) await play(processes, world, operation);
        await processes.compare(world);
      } finally {
        await processes.stop();
        await place.remove();
      }
    });
    await fc.assert(holds, parameters(runs.alone));
  });

  test(`on the driver ${name}, what clients do at once has taken effect in some order`, async () => {
    const holds = fc.asyncProperty(recipe, prologue, clients, fc.nat(), async (recipe, prologue, clients, seed) => {
      const place = await makePlace();
      const slowness = new Slowness(new Random(seed));
      const processes = await Processes.start(place, driver => slowness.of(driver));
      try {
        const world = new World(makeUniverse(recipe));
        for (const operation of prologue) await play(processes, world, operation);
        const race = new Race(processes, world, slowness);
        await race.run(clients);
        await race.adopt();
        await processes.compare(world);
      } finally {
        await processes.stop();
        await place.remove();
      }
    });
    await fc.assert(holds, parameters(runs.atOnce));
  });
}
