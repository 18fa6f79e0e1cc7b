import type { S3Options } from '../../src/storage/s3/options.js';
import { S3Driver } from '../../src/storage/s3.js';
import { whileAlone } from '../../src/store/collector-lease.js';

/**
 * A collector that has begun and never ends, until it is killed: it holds the lease of the bucket that the variable `OPTIONS`
 * describes (S3Options as JSON). Prints `holding` when it does.
 */
const driver = new S3Driver(JSON.parse(process.env.OPTIONS!) as S3Options);
await driver.open();
await whileAlone(driver, async () => {
  process.stdout.write('holding\n');
  await new Promise(resolve => process.stdin.resume().once('end', resolve));
});
await driver.close();
