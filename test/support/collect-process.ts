import { dirname } from 'node:path';
import { loadConfig } from '../../src/config/load.js';
import { storageOf } from '../../src/storage/open.js';
import { collect } from '../../src/store/collector.js';

/**
 * Collects garbage in a process of its own, again and again, without asking whether another one does, for tests that race
 * it:
 *
 *     node collect-process.js CONFIG GRACE-MS
 *
 * Says in a line of JSON after each run what all of them have removed. Ends when standard input does.
 */
const [file, grace] = process.argv.slice(2) as [string, string];
const { config } = loadConfig({ dir: dirname(file), file, env: {} });
const driver = await storageOf(config.storage, { readOnly: false });
await driver.open();
let running = true;
process.stdin.resume().once('end', () => {
  running = false;
});
const removed = { runs: 0, blobs: 0, layers: 0, manifests: 0 };
while (running) {
  const report = await collect(driver, { grace: Number(grace), untagged: true });
  removed.runs += 1;
  removed.blobs += report.blobs.removed;
  removed.layers += report.layers.removed;
  removed.manifests += report.manifests.removed;
  process.stdout.write(`${JSON.stringify(removed)}\n`);
}
await driver.close();
