import { FilesystemDriver } from '../../src/storage/filesystem.js';
import type { S3Options } from '../../src/storage/s3/options.js';
import { S3Driver } from '../../src/storage/s3.js';
import { collect } from '../../src/store/collector.js';

/**
 * Collects garbage in a process of its own, again and again, without asking whether another one does, for tests that race
 * it:
 *
 *     node collect-process.js ROOT GRACE-MS
 *
 * Where the variable `OPTIONS` describes a bucket (S3Options as JSON), of that.
 *
 * Ends when standard input does, and says what the runs have removed.
 */
const [root, grace] = process.argv.slice(2) as [string, string];
const { OPTIONS } = process.env;
const driver = OPTIONS ? new S3Driver(JSON.parse(OPTIONS) as S3Options) : new FilesystemDriver({ root });
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
}
process.stdout.write(`${JSON.stringify(removed)}\n`);
