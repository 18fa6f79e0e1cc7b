import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { S3Driver } from '../../src/storage/s3.js';
import { killAtRandom } from '../crash/killing.js';
import { LONG, Rig, SEED } from '../crash/rig.js';
import { stressCollectors } from '../crash/stress.js';
import { noFindings, verify, verifyFiles } from '../crash/verify.js';
import { Random } from '../support/random.js';
import { Versitygw } from '../support/versitygw.js';

const KILLS = Number(process.env.COUNT ?? 2);
const PUSHES = LONG ? 300 : 16;

describe('over a bucket', { timeout: 3_600_000 }, () => {
  let service: Versitygw;
  const rigs: Rig[] = [];
  before(async () => {
    service = await Versitygw.start();
  });
  after(async () => {
    for (const rig of rigs) await rig.close();
    await service?.stop();
  });

  function rigOver(bucket: string): Rig {
    const { region, endpoint, credentials } = service.options(bucket);
    const s3 = {
      ...{ bucket, region, regionendpoint: endpoint },
      ...{ accesskey: credentials!.accessKeyId, secretkey: credentials!.secretAccessKey },
    };
    const rig = new Rig({ storage: { s3 }, root: join(service.dir, 'data', bucket) });
    rigs.push(rig);
    return rig;
  }

  test(`killed ${KILLS} times, it loses nothing that it answered, and shows no half of anything`, async t => {
    t.diagnostic(`SEED=${SEED} repeats the choices`);
    const rig = rigOver(service.makeBucket());
    const figures = { kills: 0, starting: 0, files: 0, ...noFindings() };
    const ledger = await killAtRandom(rig, new Random(SEED), figures, { most: KILLS, working: [500, 1500] });
    const server = await rig.start();
    await verify(server.client, ledger.repositories.values(), figures);
    await rig.kill(server);
    figures.files = await verifyFiles(server.root);
    t.diagnostic(JSON.stringify(figures));
  });

  test(`three collectors break no image in ${PUSHES} pushes and more, and leave no garbage`, t => {
    const bucket = service.makeBucket();
    const options = service.options(bucket);
    const env = { OPTIONS: JSON.stringify(options) };
    return stressCollectors(t, rigOver(bucket), {
      pushes: PUSHES,
      lasting: 12_000,
      grace: 4000,
      kills: LONG,
      connect: () => new S3Driver(options),
      env,
    });
  });
});
