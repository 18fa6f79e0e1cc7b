import { after, before, describe, test } from 'node:test';
import { FilesystemDriver } from '../../src/storage/filesystem.js';
import { LONG, Rig } from './rig.js';
import { stressCollectors } from './stress.js';

const PUSHES = LONG ? 10_000 : 300;

describe('the collector beside pushes, pulls, deletes and mounts', () => {
  let rig: Rig;
  before(() => {
    rig = new Rig();
  });
  after(() => rig.close());

  test(`breaks no image in ${PUSHES} pushes to one process and to two workers that are killed, with three collectors`, {
    timeout: 3_600_000,
  }, t => {
    const connect = () => new FilesystemDriver({ root: `${rig.dir}/data` });
    return stressCollectors(t, rig, { pushes: PUSHES, grace: 1500, kills: true, connect });
  });
});
