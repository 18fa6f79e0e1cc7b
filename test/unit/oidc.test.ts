import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { exportJWK, generateKeyPair, type JWTPayload, SignJWT } from 'jose';
import { type LoginAttempt, OidcError, OidcProvider } from '../../src/auth/oidc.js';
import { selfSigned } from '../support/pair.js';

const CALLBACK = 'https://registry.example:5000/api/v1/session/callback';

/** Whatever the provider of a test is to say; each test changes a part of it. */
interface Says {
  issuer?: string;
  claims?: JWTPayload;
  token?: string;
  userinfo?: unknown;
  status?: number;
}

/** A provider that lies, over TLS on loopback: what a real one would never send. */
describe('what an OpenID Connect provider says', () => {
  const pair = selfSigned();
  let says: Says = {};
  let issuer: string;
  let keys: Awaited<ReturnType<typeof generateKeyPair>>;
  const asked: URLSearchParams[] = [];
  const server = createServer({ cert: pair.certificate, key: pair.key }, async (request, response) => {
    const send = (value: unknown, status = says.status ?? 200) =>
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value));
    switch (request.url) {
      case '/.well-known/openid-configuration':
        return send({
          issuer: says.issuer ?? issuer,
          authorization_endpoint: `${issuer}/auth`,
          token_endpoint: `${issuer}/token`,
          jwks_uri: `${issuer}/jwks`,
          userinfo_endpoint: `${issuer}/userinfo`,
          id_token_signing_alg_values_supported: ['RS256', 'none', 'HS256'],
        });
      case '/jwks':
        return send({ keys: [{ ...(await exportJWK(keys.publicKey)), alg: 'RS256', use: 'sig', kid: 'one' }] });
      case '/userinfo':
        return send(says.userinfo ?? { sub: 'subject', preferred_username: 'dora', groups: 'staff' });
      default: {
        let body = '';
        for await (const chunk of request) body += chunk;
        asked.push(new URLSearchParams(body));
        return send({ access_token: 'a', token_type: 'Bearer', id_token: says.token ?? (await idToken({})) });
      }
    }
  });
  const now = () => Math.floor(Date.now() / 1000);
  const usual = () => ({
    iss: issuer,
    aud: 'registry',
    sub: 'subject',
    iat: now(),
    exp: now() + 60,
    nonce: attempt.nonce,
    preferred_username: 'dora',
    groups: ['staff', 7, 'a\u0308'],
  });
  const idToken = (claims: JWTPayload, key = keys.privateKey) =>
    new SignJWT({ ...usual(), ...says.claims, ...claims }).setProtectedHeader({ alg: 'RS256', kid: 'one' }).sign(key);
  let attempt: LoginAttempt;
  const provider = (more: Partial<ConstructorParameters<typeof OidcProvider>[0]> = {}) =>
    new OidcProvider({
      issuer,
      clientId: 'registry',
      clientSecret: 'secret',
      scopes: ['profile'],
      usernameClaim: 'preferred_username',
      groupsClaim: 'groups',
      ca: pair.certificate,
      ...more,
    });

  before(async () => {
    keys = await generateKeyPair('RS256');
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
    issuer = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  after(() => new Promise(resolve => server.close(resolve)));

  /** Begins a login, has the provider say something, and comes back. */
  async function login(saying: Says | (() => Promise<Says>), from = provider(), query = 'code=c&state=STATE') {
    says = {};
    const begun = await from.begin(CALLBACK);
    attempt = begun.attempt;
    says = typeof saying === 'function' ? await saying() : saying;
    return from.finish(CALLBACK, query.replace('STATE', attempt.state), attempt);
  }
  const refuses = (kind: OidcError['kind'], task: Promise<unknown>, what: string) =>
    assert.rejects(task, error => error instanceof OidcError && error.kind === kind, what);

  test('is asked for with PKCE, state and nonce, other ones each time', async () => {
    says = {};
    const [first, second] = [await provider().begin(CALLBACK), await provider().begin(CALLBACK)];
    const query = new URL(first.url).searchParams;
    assert.equal(query.get('redirect_uri'), CALLBACK);
    assert.equal(query.get('scope'), 'openid profile');
    assert.equal(query.get('code_challenge_method'), 'S256');
    const challenge = createHash('sha256').update(first.attempt.verifier).digest('base64url');
    assert.deepEqual(
      [query.get('code_challenge'), query.get('state'), query.get('nonce')],
      [challenge, first.attempt.state, first.attempt.nonce],
    );
    for (const name of ['state', 'nonce', 'verifier'] as const)
      assert.notEqual(first.attempt[name], second.attempt[name]);
    assert.deepEqual(await login({}), { issuer, subject: 'subject', name: 'dora', groups: ['staff', 'ä'] });
    const token = asked.at(-1)!;
    assert.deepEqual([token.get('code_verifier'), token.get('redirect_uri')], [attempt.verifier, CALLBACK]);
  });

  test('is refused: another nonce, issuer or audience, one that is over, or that nobody has signed', async () => {
    const other = await generateKeyPair('RS256');
    const text = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const lies: Record<string, () => Promise<Says>> = {
      'another nonce': async () => ({ claims: { nonce: 'other' } }),
      'no nonce': async () => ({ claims: { nonce: undefined } as never }),
      'another issuer': async () => ({ claims: { iss: 'https://evil.example' } }),
      'another audience': async () => ({ claims: { aud: 'another' } }),
      'one for several': async () => ({ claims: { aud: ['registry', 'another'], azp: 'another' } }),
      'one that is over': async () => ({ claims: { exp: now() - 60 } }),
      'one from the future': async () => ({ claims: { iat: now() + 600, nbf: now() + 600 } }),
      'no end': async () => ({ claims: { exp: undefined } as never }),
      'a foreign key': async () => ({ token: await idToken({}, other.privateKey) }),
      'alg none': async () => ({ token: `${text({ alg: 'none' })}.${text(usual())}.` }),
      'alg none with the key named': async () => ({ token: `${text({ alg: 'none', kid: 'one' })}.${text(usual())}.` }),
      'the secret as the key': async () => ({
        token: await new SignJWT(usual()).setProtectedHeader({ alg: 'HS256' }).sign(Buffer.from('secret'.repeat(6))),
      }),
      'a changed one': async () => {
        const [head, , signature] = (await idToken({})).split('.');
        return { token: `${head}.${text({ ...usual(), preferred_username: 'root' })}.${signature}` };
      },
      'no token': async () => ({ token: '' }),
      nobody: async () => ({ claims: { preferred_username: undefined } as never, userinfo: { sub: 'subject' } }),
      'a name that is none': async () => ({ claims: { preferred_username: 'a:b' } }),
      'a name that is a list': async () => ({ claims: { preferred_username: ['dora'] } }),
      "another one's details": async () => ({
        claims: { preferred_username: undefined } as never,
        userinfo: { sub: 'other', preferred_username: 'root' },
      }),
    };
    for (const [what, lie] of Object.entries(lies)) await refuses('refused', login(lie), what);
    await refuses('refused', login({}, provider(), 'code=c&state=other'), 'another state');
    await refuses('refused', login({}, provider(), 'code=c'), 'no state');
    await refuses('refused', login({}, provider(), 'error=access_denied&state=STATE'), 'a refusal');
    await refuses('refused', login({}, provider(), 'code=c&state=STATE&iss=https://evil.example'), 'another iss');
  });

  test('is asked for more where the token says no more than who it is', async () => {
    const bare = { preferred_username: undefined, groups: undefined } as never;
    assert.deepEqual(await login({ claims: bare }), { issuer, subject: 'subject', name: 'dora', groups: ['staff'] });
    const email = { usernameClaim: 'email' };
    await refuses('refused', login({ claims: { email: 'a@b.c' } }, provider(email)), 'an address that is not verified');
    const verified = { claims: { email: 'a@b.c', email_verified: true } };
    assert.equal((await login(verified, provider(email))).name, 'a@b.c');
  });

  test('is unavailable: nobody there, another issuer, an error, a certificate that nobody vouches for', async () => {
    says = { issuer: 'https://evil.example' };
    await refuses('unavailable', provider().begin(CALLBACK), 'another issuer');
    says = { status: 500 };
    const ours = provider();
    await refuses('unavailable', ours.begin(CALLBACK), 'an error');
    says = {};
    assert.ok((await ours.begin(CALLBACK)).url, 'the next login tries again');
    await refuses('unavailable', provider({ ca: selfSigned().certificate }).begin(CALLBACK), 'a foreign authority');
    await refuses('unavailable', provider({ issuer: 'https://127.0.0.1:1' }).begin(CALLBACK), 'nobody');
    await refuses('unavailable', login({ status: 503 }), 'an error at the end');
  });
});
