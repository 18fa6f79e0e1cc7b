import assert from 'node:assert/strict';
import type { IncomingMessage } from 'node:http';
import { describe, test } from 'node:test';
import { onlyActive } from '../../src/auth/accounts.js';
import { Authenticator } from '../../src/auth/authenticate.js';
import type { Identity } from '../../src/auth/identity.js';
import { makeMachineToken } from '../../src/auth/machine-tokens.js';
import { OutsideAuthenticator } from '../../src/auth/outside-authenticator.js';
import { usersMay } from '../../src/auth/policy.js';
import { Realms } from '../../src/auth/realms.js';
import type { RegistryError } from '../../src/errors.js';
import { identityFrom } from '../support/identity.js';

const request = (authorization?: string, remoteAddress = '192.0.2.1') =>
  ({
    headers: authorization === undefined ? {} : { authorization },
    rawHeaders: authorization === undefined ? [] : ['authorization', authorization],
    socket: { remoteAddress },
  }) as unknown as IncomingMessage;
const basic = (text: string) => `Basic ${Buffer.from(text).toString('base64')}`;
const alice: Identity = { kind: 'user', name: 'alice', bounds: [{ actions: ['pull'], on: ['team/app'] }] };

describe('authentication by an outside token server', () => {
  const outside = new OutsideAuthenticator({
    service: 'registry',
    realm: () => 'https://auth.lan/token',
    tokens: { identify: async token => (token === 'good' ? alice : undefined) },
  });
  const challenge = 'Bearer realm="https://auth.lan/token",service="registry"';
  const may = usersMay({ open: true });

  test('a token that counts', async () => assert.equal(await identityFrom(outside, request('Bearer good')), alice));

  test('any other token, and one of no form, is challenged', async () => {
    for (const token of ['bad', 'x'.repeat(13_000), 'a b', ''])
      await assert.rejects(identityFrom(outside, request(`Bearer ${token}`)), ({ status, headers }: RegistryError) => {
        assert.deepEqual([status, headers['WWW-Authenticate']], [401, `${challenge},error="invalid_token"`]);
        return true;
      });
  });

  test('without a token nothing is allowed, and the challenge names the scope', async () => {
    for (const authorization of [undefined, basic('alice:secret'), 'Basic Og==', 'Digest x']) {
      const nobody = await identityFrom(outside, request(authorization));
      for (const action of ['login', 'catalog', 'pull', 'push'] as const) assert.ok(!may(nobody, action, 'team/app'));
      const refused = outside.refusal(nobody, request(authorization), 'pull', { scope: 'repository:team/app:pull' });
      assert.equal(refused.headers['WWW-Authenticate'], `${challenge},scope="repository:team/app:pull"`);
      assert.equal(outside.refusal(nobody, request(), 'login', { scope: '' }).headers['WWW-Authenticate'], challenge);
    }
  });

  test('a token for something else hears what it would take', () => {
    const { status, headers, message } = outside.refusal(alice, request('Bearer good'), 'push', {
      scope: 'repository:b:pull,push',
    });
    assert.deepEqual([status, message], [401, 'you have no right to push here']);
    const scope = 'scope="repository:b:pull,push",error="insufficient_scope"';
    assert.equal(headers['WWW-Authenticate'], `${challenge},${scope}`);
  });

  test('a service that no header can carry', () => {
    for (const service of ['a"b', 'a\\b', 'a\r\nb', 'ä', ''])
      assert.throws(
        () => new OutsideAuthenticator({ service, realm: () => '', tokens: { identify: async () => alice } }),
        {
          name: 'OperatorError',
        },
      );
  });
});

describe("machines' tokens in place of passwords", () => {
  const token = makeMachineToken();
  const checks: string[] = [];
  const authenticator = new Authenticator({
    realms: new Realms([
      {
        name: 'r',
        covers: () => true,
        passwords: [
          {
            remembers: () => false,
            verify: async (user, password) => {
              checks.push(password);
              return user === 'ci' && password === 'secret';
            },
            find: name => ({ name, groups: [], version: 'v' }),
          },
        ],
        requests: [],
      },
    ]),
    machineTokens: {
      identify: async (user, { id, hash }) =>
        user === 'ci' && id === token.id && hash === token.hash
          ? { kind: 'user', name: 'ci', machineToken: id }
          : undefined,
    },
  });
  const status = (user: string, password: string, from?: string) =>
    identityFrom(authenticator, request(basic(`${user}:${password}`), from)).then(
      () => 200,
      (error: RegistryError) => [error.status, error.headers, JSON.stringify(error)],
    );

  test('are not hashed as passwords, and passwords are', async () => {
    assert.equal(await status('ci', token.secret), 200);
    await status('ci', makeMachineToken().secret);
    assert.deepEqual(checks, []);
    assert.equal(await status('ci', 'secret'), 200);
    await status('ci', token.secret.slice(0, -1));
    assert.deepEqual(checks, ['secret', token.secret.slice(0, -1)]);
  });

  test('wrong ones are answered as wrong passwords are, until there are too many; a right one always passes', async context => {
    // What is forgiven with time is not, here.
    context.mock.method(performance, 'now', () => 0);
    const from = '192.0.2.7';
    const wrong = () => makeMachineToken().secret;
    const answer = await status('ci', 'wrong', from);
    for (const refused of [wrong(), token.secret.replace(/.$/, end => (end === 'a' ? 'b' : 'a'))])
      assert.deepEqual(await status('ci', refused, from), answer);
    assert.deepEqual(await status('alice', token.secret, from), answer);
    let last: unknown;
    for (let i = 0; i < 10; i++) last = await status('ci', wrong(), from);
    assert.equal((last as unknown[])[0], 429);
    assert.equal(await status('ci', token.secret, from), 200);
  });
});

describe('accounts', () => {
  const by = new Map<string, Identity>(
    (['password', 'token', 'certificate', 'proxy', 'machine-token', 'outside', 'session'] as const).map(via => [
      via,
      { kind: 'user', name: 'alice', via },
    ]),
  );
  const active = new Set(['alice']);
  const inner = {
    authenticate: async ({ headers }: IncomingMessage) =>
      by.get(headers.authorization!) ?? ({ kind: 'anonymous' } as const),
    issueToken: async () => undefined,
    refusal: () => assert.fail(),
    unauthorized: () => ({ status: 401 }) as RegistryError,
  };
  const gate = onlyActive(inner, async user => active.has(user));

  for (const [via, identity] of by)
    test(`one that does not count is refused by ${via}`, async () => {
      active.add('alice');
      assert.equal(await identityFrom(gate, request(via)), identity);
      active.delete('alice');
      await assert.rejects(identityFrom(gate, request(via)), { status: 401 });
    });

  test('nobody has no account', async () =>
    assert.deepEqual(await identityFrom(gate, request('none')), { kind: 'anonymous' }));
});
