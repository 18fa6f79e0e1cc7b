import assert from 'node:assert/strict';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { SignJWT, UnsecuredJWT } from 'jose';
import { ANONYMOUS } from '../../src/auth/identity.js';
import type { Realms } from '../../src/auth/realms.js';
import { Tokens } from '../../src/auth/tokens.js';

const key = { id: 'one', secret: randomBytes(32) };
const keys = { current: async () => key, find: async (id: string) => (id === key.id ? key : undefined) };
const alice = {
  kind: 'user',
  name: 'alice',
  via: 'token',
  realms: new Map([['r', { groups: ['dev'], version: 'v1' }]]),
} as const;
const request = {} as IncomingMessage;
const second = () => Math.floor(Date.now() / 1000);

describe('tokens', () => {
  const versions = new Map([['alice', 'v1']]);
  /** One realm, in which a user has the version that stands above, and a group. */
  const realms: Pick<Realms, 'member'> = {
    member: async (realm, user, version) =>
      realm === 'r' && versions.get(user) === version ? { groups: ['dev'], version } : undefined,
  };
  const tokens = new Tokens(keys, realms);
  const decoded = (part: string) => JSON.parse(Buffer.from(part, 'base64url').toString());

  test('say who somebody is, for at least a minute, and nothing else', async () => {
    const issued = await tokens.issue(alice);
    assert.equal(issued.access_token, issued.token);
    assert.ok(issued.expires_in >= 60);
    assert.ok(Math.abs(Date.parse(issued.issued_at) - Date.now()) < 60_000);
    assert.deepEqual(await tokens.identify(issued.token, request), alice);
    const [header, payload] = issued.token.split('.').map(part => (part.startsWith('ey') ? decoded(part) : part));
    assert.deepEqual(header, { alg: 'HS256', typ: 'registry+jwt', kid: 'one' });
    assert.deepEqual(Object.keys(payload).sort(), ['aud', 'exp', 'iat', 'iss', 'nbf', 'sub', 'versions']);
    assert.deepEqual(await tokens.identify((await tokens.issue(ANONYMOUS)).token, request), ANONYMOUS);
  });

  test('end with the credentials that they were given for, remembered or not', async () => {
    const { token } = await tokens.issue(alice);
    const fresh = new Tokens(keys, realms);
    assert.deepEqual(await tokens.identify(token, request), alice);
    for (const version of ['v2', undefined]) {
      if (version) versions.set('alice', version);
      else versions.delete('alice');
      assert.equal(await tokens.identify(token, request), undefined);
      assert.equal(await fresh.identify(token, request), undefined);
    }
    versions.set('alice', 'v1');
    assert.deepEqual(await fresh.identify(token, request), alice);
  });

  test("for a machine's token are good for as much, for as long, whatever becomes of the password", async () => {
    const machine = { kind: 'user', name: 'alice', via: 'machine-token', machineToken: 'abc' } as const;
    const bounded = { ...machine, bounds: [{ actions: ['pull'], on: ['a'] }] } as const;
    const known = new Map([['alice abc', bounded]]);
    const again = async (user: string, id: string) => known.get(`${user} ${id}`);
    const bound = new Tokens(keys, realms, { again });
    const { token } = await bound.issue(machine);
    assert.deepEqual(Object.keys(decoded(token.split('.')[1]!)).sort(), [
      'aud',
      'exp',
      'iat',
      'iss',
      'machine',
      'nbf',
      'sub',
    ]);
    assert.deepEqual(await bound.identify(token, request), bounded);
    versions.set('alice', 'v2');
    assert.deepEqual(await bound.identify(token, request), bounded);
    versions.set('alice', 'v1');
    known.clear();
    assert.equal(await bound.identify(token, request), undefined, 'revoked');
    assert.equal(await tokens.identify(token, request), undefined, 'where there are none');
  });

  test('end with their time, remembered or not', async context => {
    const now = Date.now();
    context.mock.timers.enable({ apis: ['Date'], now });
    const { token } = await tokens.issue(alice);
    assert.deepEqual(await tokens.identify(token, request), alice);
    context.mock.timers.setTime(now + 299_000);
    assert.deepEqual(await tokens.identify(token, request), alice);
    context.mock.timers.setTime(now + 301_000);
    assert.equal(await tokens.identify(token, request), undefined);
    assert.equal(await new Tokens(keys, realms).identify(token, request), undefined);
  });

  /** A token as ours are, but for what is given. */
  const forged = (
    { header = {}, claims = {} }: { header?: object; claims?: object },
    secret: Parameters<SignJWT['sign']>[0] = key.secret,
  ) =>
    new SignJWT({
      iss: 'registry-secure',
      aud: 'registry-secure',
      iat: second(),
      nbf: second() - 60,
      exp: second() + 300,
      sub: 'alice',
      versions: { r: 'v1' },
      ...claims,
    })
      .setProtectedHeader({ alg: 'HS256', typ: 'registry+jwt', kid: 'one', ...header })
      .sign(secret);

  test('the forgery is one but for what each of these changes', async () =>
    assert.deepEqual(await tokens.identify(await forged({}), request), alice));

  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  for (const [what, make] of [
    ['another key by the name of ours', () => forged({}, randomBytes(32))],
    ['a name of no key', () => forged({ header: { kid: 'two' } })],
    ['no name of a key', () => forged({ header: { kid: undefined } })],
    ['a key that it brings along', () => forged({ header: { alg: 'ES256', jwk: { kty: 'EC' } } }, privateKey)],
    ['another algorithm with our key', () => forged({ header: { alg: 'HS512' } }, randomBytes(64))],
    ['another type', () => forged({ header: { typ: 'JWT' } })],
    ['no type', () => forged({ header: { typ: undefined } })],
    ['another issuer', () => forged({ claims: { iss: 'x' } })],
    ['another audience', () => forged({ claims: { aud: 'x' } })],
    ['a time that is over', () => forged({ claims: { exp: second() - 1 } })],
    ['a time that has not come', () => forged({ claims: { nbf: second() + 300 } })],
    ['no end', () => forged({ claims: { exp: undefined } })],
    ["an odd machine's token", () => forged({ claims: { machine: ['abc'] } })],
    ["a machine's token that is not there", () => forged({ claims: { machine: 'abc' } })],
    ['another version', () => forged({ claims: { versions: { r: 'v0' } } })],
    ['no version', () => forged({ claims: { versions: undefined } })],
    ['another realm', () => forged({ claims: { versions: { other: 'v1' } } })],
    ['versions that are a list', () => forged({ claims: { versions: ['v1'] } })],
    ['an odd version', () => forged({ claims: { versions: { r: ['v1'] } } })],
    ['another user', () => forged({ claims: { sub: 'mallory' } })],
    ['no signature', async () => (await forged({})).replace(/[^.]*$/, '')],
    [
      'alg none',
      async () =>
        new UnsecuredJWT({ sub: 'alice', versions: { r: 'v1' } })
          .setIssuer('registry-secure')
          .setAudience('registry-secure')
          .setExpirationTime('5m')
          .encode(),
    ],
    [
      'claims of another token under its signature',
      async () => {
        const [one, two] = [await forged({}), await forged({ claims: { exp: second() + 9999 } })];
        return [one.split('.')[0], two.split('.')[1], one.split('.')[2]].join('.');
      },
    ],
  ] as const)
    test(`of ${what} is nobody's`, async () => assert.equal(await tokens.identify(await make(), request), undefined));

  test("whatever else a token is, it is nobody's, and breaks nothing", async () => {
    const { token } = await tokens.issue(alice);
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(
          fc.string(),
          fc.tuple(fc.base64String(), fc.base64String(), fc.base64String()).map(parts => parts.join('.')),
          fc.tuple(fc.nat(token.length - 1), fc.constantFrom('A', '.', 'z')).map(([at, character]) => {
            const changed = token.slice(0, at) + character + token.slice(at + 1);
            return changed === token ? '' : changed;
          }),
        ),
        async text => {
          const identity = await tokens.identify(text, request);
          // The last character of a signature has bits that count for nothing.
          if (text.slice(0, -1) !== token.slice(0, -1)) assert.equal(identity, undefined, text);
        },
      ),
      { numRuns: 300 },
    );
  });
});
