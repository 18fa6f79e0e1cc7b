import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import { test } from 'node:test';
import { Locks } from '../../src/store/locks.js';

/** An action that ends when it is told to, and what ran in which order. */
function actions() {
  const log: string[] = [];
  const start = (name: string) => {
    const gate = new EventEmitter();
    const run = async () => {
      log.push(`${name} began`);
      try {
        await once(gate, 'end');
        return name;
      } finally {
        log.push(`${name} ended`);
      }
    };
    return { run, end: () => gate.emit('end'), fail: () => gate.emit('error', new Error(name)) };
  };
  return { log, start };
}

const turn = () => new Promise(resolve => setImmediate(resolve));

test('shared holders run together, exclusive ones alone and in order', async () => {
  const { log, start } = actions();
  const locks = new Locks();
  const [one, two, alone, late, elsewhere] = ['one', 'two', 'alone', 'late', 'elsewhere'].map(start);
  const all = [
    locks.shared('r', one!.run),
    locks.shared('r', two!.run),
    locks.exclusive('r', alone!.run),
    locks.shared('r', late!.run),
    locks.exclusive('other', elsewhere!.run),
  ];
  await turn();
  assert.deepEqual(log.splice(0), ['one began', 'two began', 'elsewhere began']);
  two!.end();
  await turn();
  assert.deepEqual(log.splice(0), ['two ended']);
  one!.end();
  await turn();
  assert.deepEqual(log.splice(0), ['one ended', 'alone began']);
  alone!.end();
  await turn();
  assert.deepEqual(log.splice(0), ['alone ended', 'late began']);
  late!.end();
  elsewhere!.end();
  assert.deepEqual(await Promise.all(all), ['one', 'two', 'alone', 'late', 'elsewhere']);
});

test('a holder that fails fails alone', async () => {
  const { log, start } = actions();
  const locks = new Locks();
  const [bad, worse, good] = ['bad', 'worse', 'good'].map(start);
  const results = Promise.allSettled([
    locks.exclusive('r', bad!.run),
    locks.shared('r', worse!.run),
    locks.exclusive('r', good!.run),
  ]);
  await turn();
  bad!.fail();
  await turn();
  worse!.fail();
  await turn();
  good!.end();
  assert.deepEqual(
    (await results).map(({ status }) => status),
    ['rejected', 'rejected', 'fulfilled'],
  );
  assert.deepEqual(log, ['bad began', 'bad ended', 'worse began', 'worse ended', 'good began', 'good ended']);
});
