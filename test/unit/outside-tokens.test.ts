import assert from 'node:assert/strict';
import { createHash, createPublicKey, generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { calculateJwkThumbprint, exportJWK, SignJWT, UnsecuredJWT } from 'jose';
import { OutsideTokens } from '../../src/auth/outside-tokens.js';
import { within } from '../../src/auth/policy.js';
import { type Forged, forge } from '../support/forge.js';

const second = () => Math.floor(Date.now() / 1000);
const ec = () => generateKeyPairSync('ec', { namedCurve: 'P-256' });
const ALL = ['EdDSA', 'RS256', 'RS384', 'RS512', 'ES256', 'ES384', 'ES512', 'PS256', 'PS384', 'PS512'];

describe('tokens of an outside server', () => {
  let dir: string;
  let tokens: OutsideTokens;
  const listed = ec();
  const stranger = ec();
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const root = forge({ authority: true });
  const middle = forge({ issuer: root, authority: true });
  const direct = forge({ issuer: root });
  const chain = {
    root,
    middle,
    direct,
    leaf: forge({ issuer: middle }),
    below: forge({ issuer: direct }),
    over: forge({ issuer: root, from: -2, to: -1 }),
    foreign: forge(),
  };
  const x5c = (...certificates: Forged[]) => certificates.map(({ certificate }) => certificate.raw.toString('base64'));
  const files = () => ({ rootcertbundle: join(dir, 'root.crt'), jwks: join(dir, 'keys.json') });
  const open = (options: Partial<Parameters<typeof OutsideTokens.open>[0]> = {}) =>
    OutsideTokens.open({ issuer: 'auth', service: 'registry', algorithms: ALL, files: files(), ...options });
  const jwk = (key: KeyObject, kid?: string) => ({ ...key.export({ format: 'jwk' }), ...(kid && { kid }) });
  const writeKeys = (...keys: object[]) => writeFileSync(files().jwks, JSON.stringify({ keys }));

  before(async () => {
    dir = mkdtempSync(join(tmpdir(), 'registry-outside-'));
    writeFileSync(files().rootcertbundle, chain.root.pem);
    writeKeys(jwk(listed.publicKey, 'one'), jwk(rsa.publicKey, 'rsa'));
    tokens = await open();
  });
  after(() => rmSync(dir, { recursive: true }));

  const push = [{ type: 'repository', name: 'team/app', actions: ['pull', 'push'] }];
  /** A token as the server makes them, but for what is given. */
  const made = (header: object = {}, claims: object = {}, key: Parameters<SignJWT['sign']>[0] = listed.privateKey) =>
    new SignJWT({
      iss: 'auth',
      aud: 'registry',
      sub: 'alice',
      nbf: second(),
      iat: second(),
      exp: second() + 300,
      access: push,
      ...claims,
    })
      .setProtectedHeader({ alg: 'ES256', typ: 'JWT', kid: 'one', ...header })
      .sign(key);
  const alice = { kind: 'user', name: 'alice', via: 'outside' };
  const isAlice = async (token: string | Promise<string>, from = tokens) => {
    const { bounds, ...rest } = (await from.identify(await token))!;
    assert.deepEqual(rest, alice);
    assert.ok(bounds);
  };

  test('say who somebody is, and what may be done with them', async () => {
    const identity = (await tokens.identify(await made()))!;
    assert.deepEqual(await tokens.identify(await made()), identity);
    const may = ['list', 'pull', 'push', 'overwrite', 'delete', 'admin', 'login', 'catalog'] as const;
    const allowed = (repository: string) => may.filter(action => within(identity, action, repository));
    assert.deepEqual(allowed('team/app'), ['pull', 'push', 'overwrite', 'login']);
    for (const other of ['team/app2', 'team', 'team/app/x']) assert.deepEqual(allowed(other), ['login']);
  });

  test('each action is what it is in Distribution, and what is unknown is nothing', async () => {
    const rights = async (...access: unknown[]) => {
      const identity = (await tokens.identify(await made({}, { access })))!;
      return (['list', 'catalog', 'pull', 'push', 'delete', 'admin'] as const).filter(action =>
        within(identity, action, 'a/b'),
      );
    };
    const on = (actions: string[], name = 'a/b', type = 'repository') => ({ type, name, actions });
    assert.deepEqual(await rights(on(['pull'])), ['pull']);
    assert.deepEqual(await rights(on(['push'])), ['push'], 'a push alone does not read');
    assert.deepEqual(await rights(on(['delete'])), ['delete']);
    assert.deepEqual(await rights(on(['*'])), ['pull', 'push', 'delete', 'admin']);
    assert.deepEqual(await rights(on(['*'], 'catalog', 'registry')), ['list', 'catalog']);
    assert.deepEqual(await rights(on(['pull'], 'a/b', 'repository(plugin)'), on(['read', '__proto__'])), []);
    assert.deepEqual(await rights(on(['pull'], '**'), on(['pull'], 'a/*'), on(['pull'], '{user}')), [], 'no patterns');
    assert.deepEqual(await rights(), []);
  });

  test('one for nobody is good for what it says, and without that no login', async () => {
    const of = async (access: unknown) => (await tokens.identify(await made({}, { sub: '', access })))!;
    const puller = await of(push);
    assert.equal(puller.kind, 'anonymous');
    assert.ok(within(puller, 'pull', 'team/app') && within(puller, 'login') && !within(puller, 'pull', 'other'));
    for (const none of [[], null]) assert.ok(!within(await of(none), 'login'));
  });

  test('claims that are not understood are no token', async () => {
    for (const access of ['*', {}, [1], [null], [{ type: 'repository', name: 'a', actions: 'pull' }], [{ name: 'a' }]])
      assert.equal(await tokens.identify(await made({}, { access })), undefined, JSON.stringify(access));
    for (const sub of ['a\nb', 'x'.repeat(300), 7])
      assert.equal(await tokens.identify(await made({}, { sub })), undefined);
  });

  describe('are known by', () => {
    test('the kid of a key set', () => isAlice(made()));
    test("libtrust's id and the thumbprint of a certificate's key", async () => {
      const { key } = chain.root;
      const spki = createHash('sha256')
        .update(createPublicKey(key).export({ type: 'spki', format: 'der' }))
        .digest();
      const bits = [...spki.subarray(0, 30)].map(byte => byte.toString(2).padStart(8, '0')).join('');
      const base32 = bits.match(/.{5}/g)!.map(five => 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'[Number.parseInt(five, 2)]);
      const libtrust = base32.join('').match(/.{4}/g)!.join(':');
      await isAlice(made({ kid: libtrust }, {}, key));
      await isAlice(made({ kid: await calculateJwkThumbprint(await exportJWK(createPublicKey(key))) }, {}, key));
    });
    test('the key that they bring, where it is a known one', () =>
      isAlice(made({ kid: undefined, jwk: jwk(createPublicKey(chain.root.key)) }, {}, chain.root.key)));
    test('a chain to a root, by one certificate and by two', async () => {
      await isAlice(made({ kid: undefined, x5c: x5c(chain.direct) }, {}, chain.direct.key));
      await isAlice(made({ kid: undefined, x5c: x5c(chain.leaf, chain.middle) }, {}, chain.leaf.key));
      await isAlice(made({ kid: undefined, x5c: x5c(chain.leaf, chain.middle, chain.root) }, {}, chain.leaf.key));
      await isAlice(made({ kid: undefined, x5c: x5c(chain.root) }, {}, chain.root.key));
    });
    test('each algorithm that is allowed, with a key of its kind', async () => {
      for (const alg of ['RS256', 'PS512']) await isAlice(made({ alg, kid: 'rsa' }, {}, rsa.privateKey));
    });
    test('clocks that differ by less than a minute', async () => {
      await isAlice(made({}, { exp: second() - 50 }));
      await isAlice(made({}, { nbf: second() + 50 }));
    });
    test('one of several audiences', () => isAlice(made({}, { aud: ['other', 'registry'] })));
  });

  for (const [what, make] of [
    ['a foreign key by a known name', () => made({}, {}, stranger.privateKey)],
    ['an unknown name', () => made({ kid: 'two' })],
    ['no name', () => made({ kid: undefined })],
    ['a name that is no text', () => made({ kid: ['one'] })],
    [
      'a key that it brings along',
      () => made({ kid: undefined, jwk: jwk(stranger.publicKey) }, {}, stranger.privateKey),
    ],
    [
      'a key by a known name that it brings along',
      () => made({ kid: undefined, jwk: jwk(stranger.publicKey, 'one') }, {}, stranger.privateKey),
    ],
    [
      'the public key as a secret',
      () => made({ alg: 'HS256' }, {}, Buffer.from(listed.publicKey.export({ type: 'spki', format: 'pem' }))),
    ],
    ['another algorithm than its key is for', () => made({ alg: 'RS256' }, {}, rsa.privateKey)],
    ['no signature', async () => (await made()).replace(/[^.]*$/, '')],
    [
      'a changed claim',
      async () =>
        (await made()).replace(
          /\.[^.]*\./,
          `.${Buffer.from(JSON.stringify({ iss: 'auth', aud: 'registry', sub: 'root', exp: second() + 300 })).toString('base64url')}.`,
        ),
    ],
    [
      'alg none',
      async () =>
        new UnsecuredJWT({ access: push })
          .setSubject('alice')
          .setIssuer('auth')
          .setAudience('registry')
          .setExpirationTime('5m')
          .encode(),
    ],
    ['another issuer', () => made({}, { iss: 'other' })],
    ['no issuer', () => made({}, { iss: undefined })],
    ['another audience', () => made({}, { aud: 'other' })],
    ['no audience', () => made({}, { aud: undefined })],
    ['a time that is over', () => made({}, { exp: second() - 90 })],
    ['no end', () => made({}, { exp: undefined })],
    ['an end that is no time', () => made({}, { exp: 'never' })],
    ['a time that has not come', () => made({}, { nbf: second() + 90 })],
    [
      'a critical header that nobody knows',
      async () => {
        const header = { alg: 'ES256', kid: 'one', crit: ['odd'], odd: true };
        const text = `${Buffer.from(JSON.stringify(header)).toString('base64url')}.${(await made()).split('.')[1]}`;
        const key = { key: listed.privateKey, dsaEncoding: 'ieee-p1363' } as const;
        return `${text}.${sign('sha256', Buffer.from(text), key).toString('base64url')}`;
      },
    ],
    ['a certificate of nobody', () => made({ kid: undefined, x5c: x5c(chain.foreign) }, {}, chain.foreign.key)],
    ['a certificate beside the known name of another key', () => made({ x5c: x5c(chain.foreign) })],
    ['a chain with a link left out', () => made({ kid: undefined, x5c: x5c(chain.leaf) }, {}, chain.leaf.key)],
    [
      'a chain through a certificate that may issue none',
      () => made({ kid: undefined, x5c: x5c(chain.below, chain.direct) }, {}, chain.below.key),
    ],
    ['a certificate that is over', () => made({ kid: undefined, x5c: x5c(chain.over) }, {}, chain.over.key)],
    [
      'the certificate of somebody else',
      () => made({ kid: undefined, x5c: x5c(chain.direct) }, {}, stranger.privateKey),
    ],
    ['certificates that are none', () => made({ kid: undefined, x5c: ['AAAA'] })],
    ['an empty chain', () => made({ x5c: [] })],
    [
      'eleven certificates',
      () => made({ kid: undefined, x5c: Array(11).fill(x5c(chain.direct)[0]) }, {}, chain.direct.key),
    ],
    ['random bytes', async () => randomBytes(300).toString('base64url')],
  ] as ReadonlyArray<[string, () => Promise<string>]>)
    test(`of ${what} are nobody's`, async () => assert.equal(await tokens.identify(await make()), undefined));

  test('an algorithm that is not allowed', async () => {
    const only = await open({ algorithms: ['RS256'] });
    assert.equal(await only.identify(await made()), undefined);
    await isAlice(made({ alg: 'RS256', kid: 'rsa' }, {}, rsa.privateKey), only);
  });

  test('end with their time, remembered or not', async context => {
    const now = Date.now();
    context.mock.timers.enable({ apis: ['Date'], now });
    const token = await made();
    await isAlice(token);
    context.mock.timers.setTime(now + 355_000);
    await isAlice(token);
    context.mock.timers.setTime(now + 362_000);
    assert.equal(await tokens.identify(token), undefined);
  });

  test('end with their key; a file with a mistake changes nothing', async () => {
    const own = await open();
    const token = await made();
    await isAlice(token, own);
    for (const [wrong, message] of [
      ['{', /this is no JSON/],
      ['{"keys": []}', /no list of keys/],
      [JSON.stringify({ keys: [{ kty: 'oct', k: 'c2VjcmV0', kid: 'one' }] }), /key 1 is a secret/],
      [JSON.stringify({ keys: [jwk(listed.privateKey)] }), /key 1 is a private key/],
      [JSON.stringify({ keys: [jwk(listed.publicKey, 'a'), jwk(rsa.publicKey, 'a')] }), /key 2 has the same kid/],
      [
        JSON.stringify({ keys: [jwk(generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey)] }),
        /1024 bits is too short/,
      ],
      [JSON.stringify({ keys: [{ kty: 'EC', crv: 'P-256', x: 'AA', y: 'AA' }] }), /key 1 is no public key/],
    ] as const) {
      writeFileSync(files().jwks, wrong);
      await assert.rejects(
        own.reload(),
        (error: Error) => message.test(error.message) && !error.message.includes('c2Vj'),
      );
      await isAlice(token, own);
    }
    writeKeys(jwk(rsa.publicKey, 'rsa'));
    await own.reload();
    assert.equal(await own.identify(token), undefined);
    writeKeys(jwk(listed.publicKey, 'one'), jwk(rsa.publicKey, 'rsa'));
  });

  test('without a key nothing starts', async () => {
    writeFileSync(join(dir, 'empty.crt'), '');
    await assert.rejects(
      open({ files: { rootcertbundle: join(dir, 'empty.crt'), jwks: undefined } }),
      /no certificate/,
    );
    await assert.rejects(open({ files: { rootcertbundle: join(dir, 'none'), jwks: undefined } }), /ENOENT/);
  });
});
