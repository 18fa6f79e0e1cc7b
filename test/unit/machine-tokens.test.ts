import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { parseAllow } from '../../src/auth/bounds.js';
import type { Bound, Identity } from '../../src/auth/identity.js';
import { MachineTokens, makeMachineToken, type PresentedToken, presentedToken } from '../../src/auth/machine-tokens.js';
import { policyMay, usersMay, within } from '../../src/auth/policy.js';
import { parsePolicy } from '../../src/auth/policy-file.js';
import { Realms } from '../../src/auth/realms.js';
import { type Action, RIGHTS } from '../../src/auth/rights.js';
import type { CredentialSource } from '../../src/auth/source.js';
import { RegistryError } from '../../src/errors.js';

describe("a machine's token", () => {
  test('names itself, and shows every typing error', () => {
    const seen = new Set<string>();
    for (let i = 0; i < 100; i++) {
      const { id, secret, hash } = makeMachineToken();
      assert.match(secret, /^rst_[0-9a-z]{12}[0-9A-Za-z]{38}$/);
      assert.ok(Buffer.byteLength(secret) <= 72, 'any client takes it as a password');
      assert.deepEqual(presentedToken(secret), { id, hash, sound: true });
      seen.add(secret);
    }
    assert.equal(seen.size, 100);
    const { secret } = makeMachineToken();
    for (let at = 0; at < secret.length; at++)
      for (const other of 'a0Z') {
        const changed = secret.slice(0, at) + other + secret.slice(at + 1);
        assert.equal(presentedToken(changed)?.sound === true, changed === secret, changed);
      }
  });

  test('what has another form is a password', () => {
    const { secret } = makeMachineToken();
    for (const text of [
      '',
      'rst_',
      secret.slice(1),
      secret.slice(0, -1),
      `${secret}a`,
      ` ${secret}`,
      secret.replace('rst', 'RST'),
    ])
      assert.equal(presentedToken(text), undefined, text);
  });
});

describe("machines' tokens", () => {
  const { id, hash } = makeMachineToken();
  const token = {
    id,
    hash,
    user: 'ci',
    allow: ['pull:team/**'],
    expires: new Date(Date.now() + 600_000).toISOString(),
  };
  const records = new Map<string, typeof token>([[id, token]]);
  const asked: boolean[] = [];
  const used: string[] = [];
  const store = {
    find: async (name: string, last: boolean) => {
      asked.push(last);
      return records.get(name);
    },
    noteUse: async (name: string) => void used.push(name),
  };
  const users = new Set(['ci']);
  const realms = new Map([['r', { groups: ['dev'], version: 'v' }]]);
  const tokens = new MachineTokens(store, async user =>
    users.has(user) ? { kind: 'user', name: user, via: 'password', realms } : undefined,
  );
  const whole = {
    kind: 'user',
    name: 'ci',
    via: 'machine-token',
    machineToken: id,
    realms,
    bounds: [parseAllow('pull:team/**')],
  };

  test('say whose they are and what they are good for, and that they were used', async () => {
    assert.deepEqual(await tokens.identify('ci', { id, hash, sound: true }), whole);
    assert.deepEqual(await tokens.again('ci', id), whole);
    assert.deepEqual(used, [id, id]);
    assert.strictEqual((await tokens.again('ci', id))!.bounds, (await tokens.again('ci', id))!.bounds, 'compiled once');
  });

  test('count for their own user alone, while there is one', async () => {
    assert.equal(await tokens.identify('alice', { id, hash, sound: true }), undefined);
    assert.equal(await tokens.again('alice', id), undefined);
    users.delete('ci');
    assert.equal(await tokens.identify('ci', { id, hash, sound: true }), undefined);
    assert.equal(await tokens.again('ci', id), undefined);
    users.add('ci');
  });

  test('unknown, wrong, over and revoked ones take the same steps, down to the newest state', async context => {
    const other = makeMachineToken();
    const steps = async (shown: PresentedToken) => {
      asked.length = 0;
      assert.equal(await tokens.identify('ci', shown), undefined);
      return [...asked];
    };
    assert.deepEqual(await steps({ ...other, sound: true }), [false, true]);
    assert.deepEqual(await steps({ id, hash: other.hash, sound: true }), [false, true]);
    context.mock.timers.enable({ apis: ['Date'], now: Date.now() + 601_000 });
    assert.deepEqual(await steps({ id, hash, sound: true }), [false, true]);
    assert.equal(await tokens.again('ci', id), undefined);
    context.mock.timers.reset();
    assert.deepEqual(await steps({ id, hash, sound: false }), [], 'a typing error is looked up nowhere');
    records.delete(id);
    assert.deepEqual(await steps({ id, hash, sound: true }), [false, true]);
    records.set(id, token);
    asked.length = 0;
    assert.ok(await tokens.identify('ci', { id, hash, sound: true }));
    assert.deepEqual(asked, [false], 'a right one needs nothing newer');
  });
});

describe('a token in several realms', () => {
  const down = new RegistryError('UNAVAILABLE');
  const source = (find: CredentialSource['find']): CredentialSource => ({
    remembers: () => false,
    verify: async () => false,
    find,
  });
  const of = (...names: string[]) =>
    source(name => (names.includes(name) ? { name, groups: ['dev'], version: 'v' } : undefined));
  const broken = source(async () => Promise.reject(down));
  const realm = (name: string, prefix: string, ...passwords: CredentialSource[]) => ({
    name,
    covers: (repository: string) => repository.startsWith(prefix),
    passwords,
    requests: [],
  });

  test('is its user where that one is known, and nobody elsewhere, nowhere without its bounds', async () => {
    const realms = new Realms([
      realm('one', 'one/', of('ci')),
      realm('two', 'two/', of('alice')),
      realm('all', '', of('ci')),
    ]);
    const known = (await realms.known('ci'))!;
    assert.deepEqual([...known.realms!.keys()], ['one', 'all']);
    assert.equal(await realms.known('zoe'), undefined);
    const rules = parsePolicy(
      'rules: [{who: [user:ci], may: [push], on: ["**"]}, {who: [anonymous], may: [pull], on: ["**"]}]',
      'policy.yml',
    );
    const may = realms.decide(policyMay(rules, { open: false }));
    const ci = { ...known, bounds: [parseAllow('push:*/a')] };
    const allowed = (repository: string) => (['pull', 'push'] as const).filter(action => may(ci, action, repository));
    assert.deepEqual(allowed('one/a'), ['pull', 'push']);
    assert.deepEqual(allowed('two/a'), ['pull'], 'as anybody, within its bounds');
    assert.deepEqual(allowed('three/a'), ['pull', 'push']);
    for (const beyond of ['one/b', 'two/b', 'three/b']) assert.deepEqual(allowed(beyond), []);
    assert.deepEqual(realms.within(ci, realms.of(['two/a'])), { kind: 'anonymous', bounds: ci.bounds });
  });

  test('counts while one source that knows its user answers, and is put off while none can tell', async () => {
    const somewhere = new Realms([realm('one', 'one/', broken), realm('all', '', broken, of('ci'))]);
    assert.deepEqual([...(await somewhere.known('ci'))!.realms!.keys()], ['all']);
    await assert.rejects(somewhere.known('zoe'), down);
  });
});

describe('bounds', () => {
  test('what --allow takes', () => {
    assert.deepEqual(parseAllow('push:team/**'), { actions: RIGHTS.push, on: ['team/**'] });
    for (const [text, message] of [
      ['pull', /no right on repositories/],
      ['read:a', /"read" is no right/],
      ['pull:', /is no pattern/],
      ['pull:A', /matches no repository/],
      ['pull:a:b', /is no pattern/],
      ['__proto__:a', /is no right/],
    ] as const)
      assert.throws(() => parseAllow(text), message);
  });

  const names = ['team/app', 'team/web', 'a', 'users/ci/x', 'other'];
  const actions: Action[] = ['login', 'catalog', 'list', 'pull', 'push', 'overwrite', 'delete', 'admin'];
  const policy = parsePolicy(
    `rules:
  - {who: [user:ci], may: [push], on: ["team/**"]}
  - {who: [anonymous], may: [pull], on: [a]}
  - {who: [authenticated], may: [admin], on: ["users/{user}/*"]}
`,
    'policy.yml',
  );
  const right = fc.constantFrom(...(Object.keys(RIGHTS) as Array<keyof typeof RIGHTS>));
  const bound = fc
    .tuple(right, fc.constantFrom('**', 'team/*', 'team/app', 'a', 'users/{user}/*', 'nothing'))
    .map(([may, pattern]): Bound => parseAllow(`${may}:${pattern}`));

  test('never give what the policy does not, and never keep what both allow', () =>
    fc.assert(
      fc.property(
        fc.array(bound, { maxLength: 4 }),
        fc.constantFrom(policyMay(policy, { open: false }), usersMay({ open: false })),
        fc.constantFrom('ci', 'alice'),
        fc.constantFrom(...names),
        fc.constantFrom(...actions),
        (bounds, may, name, repository, action) => {
          const whole: Identity = { kind: 'user', name };
          const bounded: Identity = { ...whole, bounds };
          assert.equal(
            may(bounded, action, repository),
            may(whole, action, repository) && within(bounded, action, repository),
          );
          assert.ok(within(whole, action, repository), 'without bounds nothing is narrowed');
        },
      ),
      { numRuns: 1000 },
    ));

  test('of nobody with nothing allow not even a login', () => {
    const open = usersMay({ open: true });
    for (const action of actions) assert.equal(open({ kind: 'anonymous', bounds: [] }, action, 'a'), false, action);
    assert.equal(open({ kind: 'user', name: 'alice', bounds: [] }, 'login'), true);
  });
});
