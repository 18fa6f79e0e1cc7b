import { writeSync } from 'node:fs';
import { systemCode } from '../../src/errors.js';
import { FilesystemDriver } from '../../src/storage/filesystem.js';

/**
 * A filesystem driver in a process of its own, for tests that trace or break its system calls:
 *
 *     node storage-process.js ROOT '[["write", "some/key", "content"], …]'
 *
 * Does one step after the other, and says of each on a line of its own what came of it, at the moment it did.
 */
export type Step =
  | readonly ['write' | 'unsettled' | 'create' | 'segment', key: string, content: string]
  | readonly ['settle' | 'remove' | 'removeAll' | 'get', key: string]
  | readonly ['assemble', key: string, ...segments: string[]];

/** What came of a step: its result, or the kind of StorageError, and what was logged so far. */
export interface Outcome {
  readonly step: string;
  readonly result?: unknown;
  readonly failed?: string;
  readonly message?: string;
}

const [root, steps] = process.argv.slice(2) as [string, string];

const say = (outcome: Outcome) => writeSync(1, `${JSON.stringify(outcome)}\n`);

const driver = new FilesystemDriver({ root, onFault: message => say({ step: 'fault', message }) });

async function take(step: Step): Promise<unknown> {
  switch (step[0]) {
    case 'write':
      return driver.write(step[1], Buffer.from(step[2]));
    case 'unsettled':
      return driver.write(step[1], Buffer.from(step[2]), { settled: false });
    case 'settle':
      return driver.settle([step[1]]);
    case 'create':
      return driver.create(step[1], Buffer.from(step[2]));
    case 'remove':
      return driver.remove(step[1]);
    case 'removeAll':
      return driver.removeAll(step[1]);
    case 'get':
      return (await driver.get(step[1]))?.toString();
    case 'assemble':
      return driver.assemble(step.slice(2), step[1]);
    case 'segment': {
      const writer = await driver.createSegment(step[1]);
      await writer.write(Buffer.from(step[2]));
      return writer.close();
    }
  }
}

async function attempt(name: string, action: () => Promise<unknown>): Promise<void> {
  try {
    say({ step: name, result: (await action()) ?? null });
  } catch (error) {
    const { kind, name: type, message } = error as Error & { kind?: string };
    say({ step: name, failed: kind ?? systemCode(error) ?? type, message });
  }
}

await attempt('open', () => driver.open());
for (const step of JSON.parse(steps) as Step[]) await attempt(`${step[0]} ${step[1]}`, () => take(step));
