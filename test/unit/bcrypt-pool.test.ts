import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { getPriority } from 'node:os';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { describe, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { hashSync } from 'bcryptjs';
import { BcryptPool } from '../../src/auth/bcrypt-pool.js';
import type { RegistryError } from '../../src/errors.js';

const hash = hashSync('secret', 4);
const check = (password: string, network = '192.0.2.1') => ({ passwords: [password], hash, cost: 4, network });

const threads = () => readdirSync('/proc/self/task');

/** That of a thread which has ended meanwhile is the highest there is. */
function priorityOf(thread: string): number {
  try {
    return getPriority(Number(thread));
  } catch {
    return -20;
  }
}

describe('the bcrypt thread', () => {
  test('right, wrong, one of two, each spelling of the hash', async () => {
    const pool = new BcryptPool();
    assert.equal(await pool.check(check('secret')), true);
    assert.equal(await pool.check(check('Secret')), false);
    assert.equal(await pool.check({ ...check('wrong'), passwords: ['wrong', 'secret'] }), true);
    for (const spelling of ['$2a$', '$2b$', '$2y$'])
      assert.equal(await pool.check({ ...check('secret'), hash: hash.replace('$2b$', spelling) }), true);
  });

  const tooMany = (error: RegistryError) => {
    assert.equal(error.status, 429);
    assert.match(error.headers['Retry-After']!, /^[1-9]\d*$/);
    return true;
  };

  test('32 checks wait behind the one that runs; the next is told when to come back', async () => {
    const pool = new BcryptPool();
    const taken = Array.from({ length: 33 }, (_, i) => pool.check(check('secret', `192.0.2.${i % 5}`)));
    await assert.rejects(pool.check(check('secret', '198.51.100.1')), tooMany);
    assert.ok((await Promise.all(taken)).every(Boolean));
    assert.equal(await pool.check(check('secret')), true);
  });

  test('8 of them may be of one network: others find a place beside it', async () => {
    const pool = new BcryptPool();
    const taken = Array.from({ length: 9 }, () => pool.check(check('secret')));
    await assert.rejects(pool.check(check('secret')), tooMany);
    taken.push(pool.check(check('secret', '198.51.100.1')));
    assert.ok((await Promise.all(taken)).every(Boolean));
  });

  test('a thread that dies fails its own check only, and another takes over', async () => {
    const pool = new BcryptPool();
    assert.equal(await pool.check(check('secret')), true);
    const poison = pool.check({ ...check(''), passwords: [undefined as unknown as string] });
    const behind = pool.check(check('secret'));
    await assert.rejects(poison, { code: 'UNAVAILABLE', status: 503 });
    assert.equal(await behind, true);
  });

  test('a thread that stays idle ends, and the next check starts another', async () => {
    const pool = new BcryptPool(50);
    for (let time = 0; time < 2; time++) {
      // Those of other pools may end meanwhile.
      const before = threads();
      const checked = pool.check(check('secret'));
      const started = threads().filter(thread => !before.includes(thread));
      assert.equal(await checked, true);
      assert.equal(started.length, 1);
      for (const deadline = Date.now() + 60_000; threads().includes(started[0]!); await pause(10))
        assert.ok(Date.now() < deadline);
    }
  });

  test('yields to the rest of the process, which keeps its own priority', {
    skip: process.platform !== 'linux' && 'no other system has a priority for each thread',
  }, async () => {
    const before = getPriority();
    const pool = new BcryptPool();
    assert.equal(await pool.check(check('secret')), true);
    assert.equal(getPriority(), before);
    const priorities = threads().map(priorityOf);
    assert.ok(Math.max(...priorities) >= Math.min(19, before + 5), priorities.join());
    assert.equal(await pool.check(check('secret')), true);
  });

  test('the event loop goes on meanwhile', async () => {
    const pool = new BcryptPool();
    const slow = { ...check('wrong'), cost: 11 };
    await pool.check(check('secret'));
    const delay = monitorEventLoopDelay({ resolution: 5 });
    delay.enable();
    const started = performance.now();
    await Promise.all([pool.check(slow), pool.check(slow)]);
    const took = performance.now() - started;
    delay.disable();
    assert.ok(took > 50, `the checks were work: ${took} ms`);
    // Half of the time, at least: a busy machine may keep this thread waiting now and then.
    assert.ok(delay.percentile(50) / 1e6 < took / 4, `median ${delay.percentile(50) / 1e6} ms of ${took} ms`);
  });
});
