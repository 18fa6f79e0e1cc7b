import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { Random } from '../support/random.js';
import { Disk } from './disk.js';
import { Ledger, now, type RepositoryLedger } from './ledger.js';
import { LONG, Rig, SEED } from './rig.js';
import { noFindings, verify, verifyFiles } from './verify.js';
import { ACTIONS, Worker } from './workload.js';

/** On each file system. */
const CUTS = LONG ? 250 : 10;
const WORKERS = 3;
const SHARED = ['shared/one', 'shared/two'];
/** How many repositories of before are looked at again after each cut. */
const SAMPLE = 10;

describe('power cuts', () => {
  let rig: Rig;
  before(() => {
    rig = new Rig();
  });
  after(() => rig.close());

  for (const kind of ['ext4', 'xfs'] as const)
    test(`${CUTS} on ${kind} lose nothing that was answered`, async t => {
      t.diagnostic(`SEED=${SEED} repeats the choices`);
      const random = new Random(SEED);
      const figures = { cuts: 0, files: 0, ...noFindings() };
      const disk = await Disk.create(rig, kind);
      const server = await rig.start({ root: join(disk.folder, 'data') });
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
      const cut = async () => {
        const until = now();
        const image = await disk.cut();
        return { image, moment: { until, reach: now() } };
      };
      /** At once after an answer: nothing that came later can have flushed what it promised. */
      const cutAfter = async (action: (typeof ACTIONS)[number]) => {
        await workers[0]!.does(action, server.client);
        return cut();
      };
      const cutAmid = async () => {
        let working = true;
        const work = Promise.all(workers.map(worker => worker.work(server.client, () => working)));
        await Promise.race([work, pause(random.between(10, 200))]);
        const done = await cut();
        working = false;
        for (const lost of await work) assert.ifError(lost);
        return done;
      };
      for (let n = 0; n < CUTS; n++) {
        const action = ACTIONS[n % (ACTIONS.length + 2)];
        const { image, moment } = await (action === undefined ? cutAmid() : cutAfter(action));
        figures.cuts++;
        const all = [...ledger.repositories.values()];
        for (let more = 0; more < SAMPLE; more++) touched.add(random.pick(all));
        // Of an upload that is still open only a later flush of something else reaches the disk, and not all of it.
        for (const one of all) if ([...one.uploads].some(({ ended }) => ended > moment.until)) touched.add(one);
        await disk.inspect(image, async folder => {
          const root = join(folder, 'data');
          const revived = await rig.start({ root });
          await verify(revived.client, touched, figures, moment);
          await rig.kill(revived);
          figures.files += await verifyFiles(root);
        });
        touched.clear();
      }
      await rig.kill(server);
      t.diagnostic(JSON.stringify(figures));
    });
});
