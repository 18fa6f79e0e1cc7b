import { createInterface } from 'node:readline';
import { FilesystemDriver } from '../../src/storage/filesystem.js';

/**
 * Removes stale objects in a process of its own, for tests that race it:
 *
 *     node stale-process.js ROOT
 *
 * A line `KEY TIME` on standard input has it remove KEY as stale before TIME (milliseconds), again and again; `stop` ends
 * that, and is answered by a line with the number of tries.
 */
const driver = new FilesystemDriver({ root: process.argv[2]! });
await driver.open();
process.stdout.write('ready\n');

let running = false;
let loop: Promise<number> = Promise.resolve(0);
for await (const line of createInterface({ input: process.stdin })) {
  if (line === 'stop') {
    running = false;
    process.stdout.write(`${await loop}\n`);
    continue;
  }
  const [key, before] = line.split(' ') as [string, string];
  running = true;
  loop = remove(key, new Date(Number(before)));
}

async function remove(key: string, before: Date): Promise<number> {
  let tries = 0;
  for (; running; tries++) {
    await driver.removeStale(key, before);
    // Lets the next line come in.
    await new Promise(setImmediate);
  }
  return tries;
}
