import { AuditLog } from '../../src/audit/log.js';
import { Seals } from '../../src/audit/seals.js';
import { FilesystemDriver } from '../../src/storage/filesystem.js';

/**
 * Writes an audit log in a process of its own, for tests that kill it:
 *
 *     node audit-process.js DATA FOLDER [EVENTS]
 *
 * Without a number it records until it is killed, and says `ready` once the first events are written; with one it records
 * so many and ends at once, without closing the log.
 */
const [data, folder, events] = process.argv.slice(2) as [string, string, string?];
const driver = new FilesystemDriver({ root: data });
await driver.open();
const log = await AuditLog.open({
  folder,
  seals: (await Seals.open(driver, { make: true }))!,
  rotateSize: 20_000,
  rotateAge: 3_600_000,
  keep: 2 ** 40,
  program: 'test',
  report: { error: console.error, warn: console.error, info: console.error },
});
const event = (n: number) => ({ type: 'push', outcome: 'done' as const, who: 'alice', what: { n } });
const record = (n: number) => log.record(event(n));
if (events !== undefined) {
  for (let n = 1; n <= Number(events); n++) record(n);
  process.exit(0);
}
for (let n = 1; ; n++) {
  if (n !== 50) record(n);
  else {
    await log.recorded(event(n));
    process.stdout.write('ready\n');
  }
  await new Promise(setImmediate);
}
