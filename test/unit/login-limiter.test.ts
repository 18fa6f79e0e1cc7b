import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import { LoginLimiter, networkOf } from '../../src/auth/login-limiter.js';
import type { RegistryError } from '../../src/errors.js';

/** Seconds that one must wait; 0 where a check is allowed. */
function wait(limiter: LoginLimiter, user: string, network: string): number {
  try {
    limiter.admit(user, network);
    return 0;
  } catch (error) {
    assert.equal((error as RegistryError).status, 429);
    return Number((error as RegistryError).headers['Retry-After']);
  }
}

function fail(limiter: LoginLimiter, times: number, user: string | ((i: number) => string), network: string): void {
  for (let i = 0; i < times; i++) limiter.failed(typeof user === 'string' ? user : user(i), network);
}

/** A clock that stands still unless it is told to move on. */
function clock(context: TestContext): (seconds: number) => void {
  let at = 1000;
  context.mock.method(performance, 'now', () => at);
  return seconds => {
    at += seconds * 1000;
  };
}

describe('failed logins', () => {
  test('ten of one user are free, then one each six seconds', context => {
    const pass = clock(context);
    const limiter = new LoginLimiter();
    fail(limiter, 9, 'alice', 'a');
    assert.equal(wait(limiter, 'alice', 'a'), 0);
    fail(limiter, 1, 'alice', 'a');
    assert.equal(wait(limiter, 'alice', 'a'), 6);
    pass(5);
    assert.equal(wait(limiter, 'alice', 'a'), 1);
    pass(1.01);
    assert.equal(wait(limiter, 'alice', 'a'), 0);
    fail(limiter, 1, 'alice', 'a');
    assert.equal(wait(limiter, 'alice', 'a'), 6);
    pass(60);
    fail(limiter, 9, 'alice', 'a');
    assert.equal(wait(limiter, 'alice', 'a'), 0, 'all are forgiven after a minute');
  });

  test('checks that were under way together make the wait longer', context => {
    clock(context);
    const limiter = new LoginLimiter();
    fail(limiter, 12, 'alice', 'a');
    assert.equal(wait(limiter, 'alice', 'a'), 18);
  });

  test('are those of one user, however the name is spelled', context => {
    clock(context);
    const limiter = new LoginLimiter();
    fail(limiter, 10, i => (i % 2 ? 'Alice' : 'aLICE'), 'a');
    assert.ok(wait(limiter, 'alice', 'a') > 0);
  });

  test('say nothing about another user or another network', context => {
    clock(context);
    const limiter = new LoginLimiter();
    fail(limiter, 20, 'alice', 'a');
    assert.equal(wait(limiter, 'bob', 'a'), 0);
    assert.equal(wait(limiter, 'alice', 'b'), 0);
  });

  test('of a hundred names from one network stop that network, and no other', context => {
    const pass = clock(context);
    const limiter = new LoginLimiter();
    fail(limiter, 100, i => `user${i}`, 'a');
    assert.equal(wait(limiter, 'alice', 'a'), 1);
    assert.equal(wait(limiter, 'alice', 'b'), 0);
    pass(1.01);
    assert.equal(wait(limiter, 'alice', 'a'), 0);
  });

  test('are forgotten with the right password, but for what the network owes', context => {
    clock(context);
    const limiter = new LoginLimiter();
    fail(limiter, 9, 'alice', 'a');
    limiter.succeeded('alice', 'a');
    fail(limiter, 9, 'alice', 'a');
    assert.equal(wait(limiter, 'alice', 'a'), 0);
    fail(limiter, 82, i => `user${i}`, 'a');
    assert.equal(wait(limiter, 'carol', 'a'), 1);
  });

  test('of more names than are kept take no more memory', context => {
    clock(context);
    const limiter = new LoginLimiter();
    fail(limiter, 10, 'alice', 'first');
    fail(limiter, 30_000, i => `user${i}`, 'a');
    assert.equal(wait(limiter, 'alice', 'first'), 0, 'forgotten, which only forgives');
  });
});

test('a network is an IPv4 address, or the first half of an IPv6 address', () => {
  const networks: Record<string, string> = {
    '192.0.2.7': '192.0.2.7',
    '::ffff:192.0.2.7': '192.0.2.7',
    '2001:db8:1:2:3:4:5:6': '2001:db8:1:2',
    '2001:db8:1:2::1': '2001:db8:1:2',
    '2001:db8::1': '2001:db8:0:0',
    '::1': '0:0:0:0',
    'fe80::1%eth0': 'fe80:0:0:0',
    '': '',
  };
  for (const [address, network] of Object.entries(networks)) assert.equal(networkOf(address), network, address);
  assert.equal(networkOf(undefined), '');
});
