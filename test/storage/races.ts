import assert from 'node:assert/strict';
import type { StorageDriver } from '../../src/storage/driver.js';
import { collect } from './suite.js';

const SIDE_BY_SIDE = 6;

/** Begins to remove an object as stale, again and again; what it returns ends that. */
export type Remove = (key: string, before: Date) => () => Promise<void>;

/** Removers in this process, one for each driver. */
export function removing(drivers: readonly StorageDriver[]): Remove {
  return (key, before) => {
    let running = true;
    const loops = drivers.map(async driver => {
      while (running) await driver.removeStale(key, before);
    });
    return async () => {
      running = false;
      await Promise.all(loops);
    };
  };
}

/** A time at which the object is stale already, and everything that is done to it from now on is not. */
export async function stale(driver: StorageDriver, key: string): Promise<Date> {
  const { modified } = (await driver.stat(key))!;
  const before = new Date(modified.getTime() + 1);
  while (Date.now() < before.getTime()) await driver.stat(key);
  // Times of some stores are whole seconds: the next change must lie in a later one.
  if (modified.getTime() % 1000 === 0)
    while (Date.now() < modified.getTime() + 1000) await new Promise(resolve => setTimeout(resolve, 50));
  return before;
}

/**
 * Renews or replaces a stale object while others remove it: what is said to be there must be there from then on, for
 * every reader, at every moment.
 */
export async function raceRemovals(options: {
  at: string;
  drivers: readonly StorageDriver[];
  rounds: number;
  remove: Remove;
}): Promise<void> {
  const { at, drivers, rounds, remove } = options;
  const outcomes = { kept: 0, gone: 0 };
  const race = async (round: number) => {
    const key = `${at}/${round}/data`;
    const driver = drivers[round % drivers.length]!;
    const old = Buffer.from('old');
    await driver.write(key, old);
    const end = remove(key, await stale(driver, key));
    // A little later in each round, to meet the removal in each of its stages.
    for (let n = 0; n < round % 8; n++) await driver.stat(key);
    const renewed = round % 3 < 2 && (await driver.touch(key));
    if (renewed) outcomes.kept += 1;
    else {
      outcomes.gone += 1;
      await replace(driver, key, round);
    }
    const expected = renewed ? 'old' : 'new';
    const reads = drivers.map(async reader => {
      for (let n = 0; n < 8; n++) {
        assert.ok(await reader.stat(key), `round ${round}: stat ${n}`);
        assert.equal((await reader.get(key))?.toString(), expected, `round ${round}: get ${n}`);
        assert.ok(await reader.touch(key), `round ${round}: touch ${n}`);
        const stream = await reader.read(key);
        assert.equal((await collect(stream!)).toString(), expected, `round ${round}: read ${n}`);
      }
    });
    await Promise.all(reads).finally(end);
    assert.equal((await driver.get(key))?.toString(), expected, `round ${round}: at the end`);
    assert.deepEqual(await driver.list(`${at}/${round}`), [{ name: 'data', folder: false }]);
  };
  // Several side by side, since some stores must be waited for until their time has gone on.
  for (let round = 0; round < rounds; round += SIDE_BY_SIDE)
    await Promise.all(Array.from({ length: Math.min(SIDE_BY_SIDE, rounds - round) }, (_, n) => race(round + n)));
  assert.ok(outcomes.gone > 0, 'some were removed before');
}

async function replace(driver: StorageDriver, key: string, round: number): Promise<void> {
  if (round % 2) return driver.write(key, Buffer.from('new'));
  if (driver.createObject && round % 4) {
    const object = await driver.createObject(key);
    await object.write(Buffer.from('new'));
    await object.close();
    return;
  }
  const writer = await driver.createSegment(`${key}-segment`);
  await writer.write(Buffer.from('new'));
  await writer.close();
  await driver.assemble([`${key}-segment`], key);
  await writer.abort();
}
