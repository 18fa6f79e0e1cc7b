import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Progress } from '../../src/cli/progress.js';

/** A stream that collects, and a clock that stands still until it is told to go on. */
function make(t: { mock: typeof import('node:test').mock }, isTTY: boolean) {
  let now = 1_000_000;
  t.mock.method(performance, 'now', () => now);
  const written: string[] = [];
  const stream = { isTTY, write: (text: string) => written.push(text) > 0 };
  const take = () => written.splice(0).join('');
  const pass = (ms: number) => {
    now += ms;
  };
  return { progress: new Progress('verify', stream), take, pass };
}

const GIB = 2 ** 30;

test('a bar with an estimate on a terminal, drawn now and then', t => {
  const { progress, take, pass } = make(t, true);
  progress.update(0, 10 * GIB);
  assert.equal(take(), '');
  pass(500);
  progress.update(GIB, 10 * GIB);
  assert.equal(take(), `\r\x1b[Kverify [##${'-'.repeat(22)}] 10 %  1.00 GiB of 10.0 GiB`);
  pass(100);
  progress.update(2 * GIB, 10 * GIB);
  assert.equal(take(), '');
  pass(1_400);
  progress.update(5 * GIB, 10 * GIB);
  assert.match(take(), /\[#{12}-{12}\] 50 % {2}5\.00 GiB of 10\.0 GiB {2}2 s left$/);
  progress.clear();
  assert.equal(take(), '\r\x1b[K');
  progress.clear();
  assert.equal(take(), '', 'there is nothing to clear');
});

test('a line every ten seconds where there is none', t => {
  const { progress, take, pass } = make(t, false);
  pass(9_999);
  progress.update(1, 100);
  assert.equal(take(), '');
  pass(1);
  progress.update(1, 100);
  assert.equal(take(), 'registry-secure: verify: 1 %, 1 B of 100 B, 17 min left\n');
  pass(3_600_000);
  progress.update(20, 100);
  assert.match(take(), /20 %, 20 B of 100 B, 4 h 1 min left\n$/);
  progress.clear();
  assert.equal(take(), '');
});

test('nothing to do is no division by it', t => {
  const { progress, take, pass } = make(t, false);
  pass(10_000);
  progress.update(0, 0);
  assert.equal(take(), 'registry-secure: verify: 0 %, 0 B of 0 B\n');
});
