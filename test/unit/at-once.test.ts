import assert from 'node:assert/strict';
import { test } from 'node:test';
import { allDone } from '../../src/at-once.js';

test('allDone tells a failure when nothing is under way any more', async () => {
  let finish: (() => void) | undefined;
  const slow = new Promise<void>(resolve => {
    finish = resolve;
  });
  let told = false;
  const all = allDone([Promise.reject(new Error('no')), slow]).finally(() => {
    told = true;
  });
  const refused = assert.rejects(all, /^Error: no$/);
  await new Promise(resolve => setImmediate(resolve));
  assert.equal(told, false);
  finish!();
  await refused;
  await allDone([]);
});
