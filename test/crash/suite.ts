import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import type { StorageDriver } from '../../src/storage/driver.js';
import { collect } from '../../src/store/collector.js';
import { Random } from '../support/random.js';
import { killAtRandom } from './killing.js';
import { LONG, Rig, type RigPlace, SEED } from './rig.js';
import { stressCollectors } from './stress.js';
import { noFindings, verify, verifyBlobs } from './verify.js';

/** `COUNT=20 node bin/test.js stores/azure-crash.test.ts` kills so often, and pushes five times as many images beside collectors. */
const COUNT = Number(process.env.COUNT ?? 0);

const MIB = 1024 * 1024;

/** An empty place of a service, for the program and for drivers. */
export interface CrashPlace extends RigPlace {
  /** Not yet opened. */
  connect(): StorageDriver;
  /** How much there is that belongs to no object, such as parts of what was never finished. */
  leftovers(): Promise<number>;
}

/**
 * Registers the tests of processes over a service that are killed, and that collect while others push.
 * @param makePlace an empty one, each time
 * @param options.pushes how many there are beside collectors, at least, unless `COUNT` says more
 * @param options.grace for how long (ms) what nothing refers to is left alone
 * @param options.alone whether one process alone may write there
 */
export function testCrashes(
  name: string,
  makePlace: () => Promise<CrashPlace>,
  { pushes, grace, alone = false }: { pushes: number; grace: number; alone?: boolean },
): void {
  const kills = COUNT || 2;
  const most = COUNT * 5 || (LONG ? 300 : pushes);
  describe(`over ${name}`, { timeout: 3_600_000 }, () => {
    const rigs: Rig[] = [];
    after(async () => {
      for (const rig of rigs) await rig.close();
    });
    const rigOver = (place: CrashPlace) => {
      const rig = new Rig(place);
      rigs.push(rig);
      return rig;
    };

    test(`killed ${kills} times, it loses nothing that it answered, and shows no half of anything`, async t => {
      t.diagnostic(`SEED=${SEED} repeats the choices`);
      const place = await makePlace();
      const rig = rigOver(place);
      const figures = { kills: 0, starting: 0, files: 0, ...noFindings() };
      const ledger = await killAtRandom(rig, new Random(SEED), figures, {
        most: kills,
        actions: 3,
        working: [0, 1000],
        ...(alone && { workers: [1] }),
        // Large enough for parts, where there is time.
        ...(COUNT > 0 && { large: [MIB / 4, 12 * MIB] }),
      });
      const server = await rig.start();
      const repositories = [...ledger.repositories.values()];
      await verify(server.client, repositories, figures);
      await rig.kill(server);

      const driver = place.connect();
      await driver.open();
      figures.files = await verifyBlobs(driver);
      // Times of some stores are whole seconds.
      await pause(1010);
      const { blobs, layers, uploads, problems } = await collect(driver, { grace: 0, uploads: { age: 0 } });
      await driver.close();
      assert.deepEqual(problems, []);
      const pushes = repositories.reduce((sum, { manifests }) => sum + manifests.size, 0);
      const collected = { blobs: blobs.removed, layers: layers.removed, uploads: uploads.removed };
      t.diagnostic(JSON.stringify({ ...figures, pushes, collected, leftovers: await place.leftovers() }));
    });

    test(`${alone ? 'a collector breaks' : 'three collectors break'} no image in ${most} pushes and more, and leave${alone ? 's' : ''} no garbage`, async t => {
      const place = await makePlace();
      await stressCollectors(t, rigOver(place), {
        ...{ pushes: most, grace, alone },
        kills: alone || LONG,
        connect: () => place.connect(),
      });
      t.diagnostic(`leftovers: ${await place.leftovers()}`);
    });
  });
}
