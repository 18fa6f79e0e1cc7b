import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { AuditFolder } from '../support/audit.js';
import { fillBlocks } from '../support/full.js';
import { Rig } from './rig.js';

let rig: Rig;
before(() => {
  rig = new Rig();
});
after(() => rig.close());

const until = async (condition: () => boolean) => {
  while (!condition()) await new Promise(resolve => setTimeout(resolve, 20));
};

test('an audit log on a full disk goes on when there is room, whole, and without a line that is torn', {
  timeout: 240_000,
}, async t => {
  const disk = await rig.mount('audit', '-t', 'tmpfs', '-o', 'size=2m', 'audit');
  const audit = await AuditFolder.create(t);
  const log = await audit.open({ folder: join(disk, 'log'), rotateSize: 100_000 });
  const filler = join(disk, 'filler');
  let recorded = 0;
  const record = async (count: number) => {
    for (let n = 0; n < count; n++) {
      log.record({ type: 'push', outcome: 'done', what: { n: recorded++ } });
      if (n % 50 === 0) await new Promise(setImmediate);
    }
  };
  await record(500);
  for (let round = 1; round <= 3; round++) {
    await fillBlocks(filler);
    // What is left of the last block of the file takes a part of a batch. No more waits than the log keeps, however slow the disk.
    while (audit.reported.length < 2 * round - 1) {
      await record(99);
      await log.recorded({ type: 'push', outcome: 'done', what: { n: recorded++ } });
    }
    assert.match(audit.reported.at(-1)!, /cannot be written/);
    await rm(filler, { recursive: true });
    await until(() => audit.reported.length === 2 * round);
    assert.match(audit.reported.at(-1)!, /is written again/);
  }
  await log.close();
  const { report, findings, notes } = await audit.verify(join(disk, 'log'));
  assert.deepEqual([findings, notes], [[], []]);
  assert.ok(report.files > 1);
  const numbers = (await audit.events(join(disk, 'log'))).flatMap(({ type, what }) =>
    type === 'push' ? [(what as { n: number }).n] : [],
  );
  assert.deepEqual(
    numbers,
    Array.from({ length: recorded }, (_, n) => n),
  );
});
