import assert from 'node:assert/strict';
import type { IncomingMessage } from 'node:http';
import { beforeEach, describe, mock, test } from 'node:test';
import { Authenticator } from '../../src/auth/authenticate.js';
import { ANONYMOUS, type Identity } from '../../src/auth/identity.js';
import { Realms } from '../../src/auth/realms.js';
import type { CredentialSource, RequestSource } from '../../src/auth/source.js';
import { Tokens } from '../../src/auth/tokens.js';
import { RegistryError } from '../../src/errors.js';
import { identityFrom } from '../support/identity.js';

/** Users in memory, with an account of the checks that it was asked for. */
class Users implements CredentialSource {
  checks = 0;
  down = false;
  readonly #right = new Set<string>();

  constructor(
    readonly passwords: Map<string, string>,
    private readonly groups: readonly string[] = [],
  ) {}

  remembers = (user: string, password: string) =>
    this.#right.has(`${user} ${password}`) && this.passwords.get(user) === password;
  async verify(user: string, password: string): Promise<boolean> {
    if (this.down) throw new RegistryError('UNAVAILABLE');
    this.checks++;
    const right = this.passwords.get(user) === password;
    if (right) this.#right.add(`${user} ${password}`);
    return right;
  }
  find(name: string) {
    if (this.down) throw new RegistryError('UNAVAILABLE');
    const password = this.passwords.get(name);
    return password === undefined ? undefined : { name, groups: this.groups, version: `of ${password}` };
  }
}

const byHeader = (via: RequestSource['via']): RequestSource => ({
  via,
  identify: ({ headers }) => {
    const name = headers[`x-${via}`];
    return typeof name === 'string' ? { name, groups: [via], version: `of ${name}` } : undefined;
  },
});

const basic = (user: string, password: string) => ({
  authorization: `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`,
});
function request(headers: Record<string, string> = {}): IncomingMessage {
  const rawHeaders = Object.entries(headers).flat();
  return { headers, rawHeaders, socket: { remoteAddress: '192.0.2.1' } } as unknown as IncomingMessage;
}

describe('realms', () => {
  let staff: Users;
  let rest: Users;
  let realms: Realms;
  let authenticator: Authenticator;
  beforeEach(() => {
    staff = new Users(
      new Map([
        ['alice', 'one'],
        ['both', 'same'],
      ]),
      ['dev'],
    );
    rest = new Users(
      new Map([
        ['bob', 'two'],
        ['both', 'same'],
        ['alice', 'another alice'],
      ]),
    );
    realms = new Realms([
      { name: 'Staff', covers: name => name.startsWith('team/'), passwords: [staff], requests: [] },
      {
        name: 'Shown',
        covers: name => name.startsWith('shown/'),
        passwords: [],
        requests: [byHeader('proxy'), byHeader('certificate')],
      },
      { name: 'Rest', covers: () => true, passwords: [rest], requests: [] },
    ]);
    authenticator = new Authenticator({ realms, welcomesAnonymous: () => true });
  });

  const who = (headers: Record<string, string>, ...repositories: string[]) =>
    identityFrom(authenticator, request(headers), repositories);
  const refusal = (headers: Record<string, string>, ...repositories: string[]) =>
    who(headers, ...repositories).then(
      identity => assert.fail(JSON.stringify(identity)),
      (error: RegistryError) => error,
    );
  const realmsOf = (identity: Identity) =>
    identity.kind === 'user' ? [...(identity.realms ?? []).keys()] : identity.kind;

  test('the first that covers a repository decides there; without a repository, any', async () => {
    assert.deepEqual(realmsOf(await who(basic('alice', 'one'), 'team/app')), ['Staff']);
    assert.deepEqual(realmsOf(await who(basic('bob', 'two'), 'app')), ['Rest']);
    assert.deepEqual(realmsOf(await who(basic('alice', 'one'))), ['Staff']);
    assert.deepEqual(realmsOf(await who(basic('both', 'same'))), ['Staff', 'Rest']);
    assert.deepEqual(realmsOf(await who(basic('both', 'same'), 'app')), ['Rest'], 'no other is asked');
  });

  test('a user of another realm is nobody, a wrong password a mistake', async () => {
    assert.equal(await who(basic('alice', 'one'), 'app'), ANONYMOUS);
    assert.equal(await who(basic('bob', 'two'), 'team/app'), ANONYMOUS);
    assert.equal(await who(basic('bob', 'two'), 'shown/app'), ANONYMOUS);
    for (const repositories of [['app'], ['team/app'], ['shown/app'], []])
      assert.equal((await refusal(basic('alice', 'wrong'), ...repositories)).status, 401);
  });

  test('for several repositories, as a token may be for, those realms count where it is right', async () => {
    assert.deepEqual(realmsOf(await who(basic('both', 'same'), 'team/a', 'b')), ['Staff', 'Rest']);
    assert.deepEqual(realmsOf(await who(basic('bob', 'two'), 'team/a', 'b')), ['Rest']);
    assert.equal(await who(basic('bob', 'two'), 'team/a', 'team/b'), ANONYMOUS);
  });

  test('what is right in one realm is not checked in another each time, nor counted as a failure', async () => {
    for (let count = 0; count < 50; count++) {
      assert.deepEqual(realmsOf(await who(basic('alice', 'one'))), ['Staff']);
      assert.equal(await who(basic('alice', 'one'), 'app'), ANONYMOUS);
    }
    assert.deepEqual([staff.checks, rest.checks], [1, 1]);
    // Nor does that keep a new password from being tried.
    rest.passwords.set('alice', 'one');
    assert.deepEqual(realmsOf(await who(basic('alice', 'one'), 'app')), ['Rest']);
  });

  test('nobody is looked for before the limiter has let them pass', async context => {
    // What is forgiven with time is not, here.
    context.mock.method(performance, 'now', () => 0);
    assert.ok(await identityFrom(authenticator, request(basic('both', 'same'))));
    assert.ok(await identityFrom(authenticator, request(basic('bob', 'two'))), 'so something wrong is remembered');
    const looked = [staff, rest].map(users => mock.method(users, 'find'));
    for (let count = 0; count < 150; count++) await refusal(basic(`made-up-${count}`, 'x'));
    const before = looked.map(find => find.mock.callCount());
    assert.equal((await refusal(basic('made-up', 'x'))).status, 429);
    assert.deepEqual(
      looked.map(find => find.mock.callCount()),
      before,
    );
  });

  test('wrong everywhere counts once, and is not remembered', async context => {
    // What is forgiven with time is not, here.
    context.mock.method(performance, 'now', () => 0);
    const answers: number[] = [];
    for (let count = 0; count < 12; count++) answers.push((await refusal(basic('alice', 'wrong'))).status);
    assert.deepEqual(answers, [...Array(10).fill(401), 429, 429]);
    assert.deepEqual([staff.checks, rest.checks], [10, 10]);
  });

  test('a realm that cannot say keeps out only its own', async context => {
    // What is forgiven with time is not, here.
    context.mock.method(performance, 'now', () => 0);
    staff.down = true;
    assert.equal((await refusal(basic('alice', 'one'), 'team/app')).status, 503);
    assert.equal((await refusal(basic('alice', 'one'))).status, 503);
    assert.deepEqual(realmsOf(await who(basic('bob', 'two'))), ['Rest']);
    assert.deepEqual(realmsOf(await who(basic('bob', 'two'), 'app')), ['Rest']);
    assert.equal((await refusal(basic('bob', 'wrong'), 'app')).status, 401);
    // Guesses at another realm are no cheaper for it.
    let last = 0;
    for (let count = 0; count < 15; count++) last = (await refusal(basic('bob', `guess ${count}`))).status;
    assert.equal(last, 429);
  });

  test('the sources of a realm are asked in order, and one behind another that is down still counts', async () => {
    const [first, second] = [
      new Users(new Map([['alice', 'one']]), ['first']),
      new Users(
        new Map([
          ['alice', 'one'],
          ['admin', 'x'],
        ]),
      ),
    ];
    const one = new Realms([{ name: 'r', covers: () => true, passwords: [first, second], requests: [] }]);
    const asked = new Authenticator({ realms: one });
    const identity = await identityFrom(asked, request(basic('alice', 'one')));
    assert.deepEqual(identity.kind === 'user' && identity.realms?.get('r'), { groups: ['first'], version: '0:of one' });
    assert.equal(second.checks, 0);
    first.down = true;
    assert.equal((await identityFrom(asked, request(basic('admin', 'x')))).kind, 'user');
    await assert.rejects(identityFrom(asked, request(basic('admin', 'y'))), { status: 503 });
  });

  test('the challenge names the realm', async () => {
    const closed = new Authenticator({ realms });
    for (const [repositories, name] of [
      [['team/app'], 'Staff'],
      [['app'], 'Rest'],
      [[], 'Rest'],
    ] as const) {
      const challenge = (error: RegistryError) =>
        error.headers['WWW-Authenticate'] === `Basic realm="${name}", charset="UTF-8"`;
      await assert.rejects(identityFrom(closed, request(), repositories), challenge);
      const [repository = ''] = repositories;
      assert.ok(challenge(closed.refusal(ANONYMOUS, request(), 'pull', { repository, scope: '' })));
    }
  });

  test('a proxy counts before a password, that before a certificate; and each only where its realm is', async () => {
    const all = { 'x-proxy': 'p', 'x-certificate': 'c', ...basic('bob', 'two') };
    const { 'x-proxy': _, ...without } = all;
    const name = async (headers: Record<string, string>, ...repositories: string[]) => {
      const identity = await who(headers, ...repositories);
      return identity.kind === 'user' ? `${identity.via} ${identity.name}` : identity.kind;
    };
    assert.equal(await name(all, 'shown/app'), 'proxy p');
    assert.equal(await name(without, 'shown/app'), 'anonymous', 'bob of another realm');
    assert.equal(await name({ 'x-certificate': 'c' }, 'shown/app'), 'certificate c');
    assert.equal(await name(all, 'app'), 'password bob');
    assert.equal(await name({ 'x-certificate': 'c' }, 'app'), 'anonymous');
    assert.equal(await name(all), 'proxy p');
    assert.equal((await refusal({ 'x-certificate': 'c', ...basic('bob', 'wrong') }, 'shown/app')).status, 401);
  });

  test('a token is good in the realms of its user, as long as each has the same credentials', async () => {
    const key = { id: 'k', secret: new Uint8Array(32) };
    const tokens = new Tokens({ current: async () => key, find: async () => key }, realms);
    authenticator = new Authenticator({ realms, tokens, welcomesAnonymous: () => true });
    const bearer = async (headers: Record<string, string>, ...repositories: string[]) => {
      const issued = await authenticator.issueToken(await who(headers, ...repositories));
      return { authorization: `Bearer ${issued!.token}` };
    };
    const both = await bearer(basic('both', 'same'));
    assert.deepEqual(realmsOf(await who(both)), ['Staff', 'Rest']);
    const one = await bearer(basic('both', 'same'), 'team/app');
    assert.deepEqual(realmsOf(await who(one, 'team/app')), ['Staff']);
    assert.equal(await who(one, 'app'), ANONYMOUS, 'it was not given for that realm');
    staff.passwords.delete('both');
    assert.deepEqual(realmsOf(await who(both)), ['Rest']);
    assert.equal((await refusal(one, 'team/app')).status, 401);
    rest.down = true;
    assert.equal((await refusal(both, 'app')).status, 503);
    // That of a certificate goes with the certificate.
    const shown = await bearer({ 'x-certificate': 'c' }, 'shown/app');
    assert.deepEqual(realmsOf(await who({ ...shown, 'x-certificate': 'c' }, 'shown/app')), ['Shown']);
    assert.equal((await refusal(shown, 'shown/app')).status, 401);
    assert.equal((await refusal({ ...shown, 'x-certificate': 'd' }, 'shown/app')).status, 401);
  });
});
