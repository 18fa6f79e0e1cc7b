import assert from 'node:assert/strict';
import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { UnsecuredJWT } from 'jose';
import { LocalRegistry } from '../support/local-registry.js';
import { mintToken, startTokenServer, type TokenServerOptions } from '../support/token-server.js';

const GRANTS = {
  alice: {
    'repository:team/app': ['pull', 'push'],
    'registry:catalog': ['*'],
    'repository:team/gone': ['pull', 'delete'],
  },
  '': { 'repository:public/app': ['pull'] },
};

/** A registry whose users only a token server knows, and that server: as a client goes through both. */
describe('an outside token server', () => {
  let dir: string;
  let env: NodeJS.ProcessEnv;
  let registry: LocalRegistry;
  let server: { url: string; close(): void };
  const pair = () => generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const [first, second, stranger] = [pair(), pair(), pair()];
  const options: TokenServerOptions = {
    issuer: 'auth.lan',
    service: 'registry.lan',
    key: first.privateKey,
    header: { kid: 'first' },
    users: { alice: 'secret' },
    grants: GRANTS,
  };
  const publish = (...keys: Array<[string, KeyObject]>) =>
    writeFileSync(
      join(dir, 'keys.json'),
      JSON.stringify({ keys: keys.map(([kid, key]) => ({ ...key.export({ format: 'jwk' }), kid })) }),
    );
  const start = (more: NodeJS.ProcessEnv = {}) =>
    LocalRegistry.start(dir, ['serve', '--dir', dir], { env: { ...env, ...more } });

  before(async () => {
    dir = mkdtempSync(join(tmpdir(), 'registry-secure-outside-'));
    server = await startTokenServer(options);
    publish(['first', first.publicKey]);
    env = {
      REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY: join(dir, 'data'),
      REGISTRY_STORAGE_DELETE_ENABLED: 'true',
      REGISTRY_AUTH: 'token',
      REGISTRY_AUTH_TOKEN_REALM: server.url,
      REGISTRY_AUTH_TOKEN_SERVICE: 'registry.lan',
      REGISTRY_AUTH_TOKEN_ISSUER: 'auth.lan',
      REGISTRY_AUTH_TOKEN_JWKS: join(dir, 'keys.json'),
    };
    registry = await start();
  });
  after(async () => {
    await registry?.stop();
    server?.close();
    rmSync(dir, { recursive: true, force: true });
  });

  const ask = async (path: string, bearer?: string, method = 'GET', from = registry) => {
    const { status, challenge } = await from.call(method, path, bearer === undefined ? {} : { token: bearer });
    return [status, challenge] as const;
  };
  const challenge = (...more: string[]) =>
    [`Bearer realm="${server.url}"`, 'service="registry.lan"', ...more].join(',');
  /** What a client does with a challenge. */
  const comply = async (header: string, credentials?: string): Promise<string> => {
    const [, realm, service, scope] = /realm="([^"]+)",service="([^"]+)"(?:,scope="([^"]+)")?/.exec(header)!;
    const query = new URLSearchParams({ service: service!, ...(scope && { scope }) });
    const headers = credentials ? { Authorization: `Basic ${Buffer.from(credentials).toString('base64')}` } : undefined;
    const response = await fetch(`${realm}?${query}`, headers ? { headers } : {});
    assert.equal(response.status, 200);
    return ((await response.json()) as { token: string }).token;
  };

  test('there is no other way in', async () => {
    assert.deepEqual(await ask('/v2/'), [401, challenge()]);
    const basic = await registry.call('GET', '/v2/', { auth: 'alice:secret' });
    assert.deepEqual([basic.status, basic.challenge], [401, challenge()]);
    assert.deepEqual(await ask('/token'), [404, undefined]);
  });

  test('each challenge names what it takes, and a token for it is enough', async () => {
    for (const [method, path, scope, answer] of [
      ['GET', '/v2/team/app/tags/list', 'repository:team/app:pull', 404],
      ['POST', '/v2/team/app/blobs/uploads/', 'repository:team/app:pull,push', 202],
      ['GET', '/v2/_catalog', 'registry:catalog:*', 200],
      ['DELETE', '/api/v1/repositories/team/gone', 'repository:team/gone:pull,delete', 404],
    ] as const) {
      const [status, header] = await ask(path, undefined, method);
      assert.deepEqual([status, header], [401, challenge(`scope="${scope}"`)]);
      assert.equal((await ask(path, await comply(header!, 'alice:secret'), method))[0], answer, path);
      const insufficient = challenge(`scope="${scope}"`, 'error="insufficient_scope"');
      assert.deepEqual(await ask(path, await comply(challenge(), 'alice:secret'), method), [401, insufficient]);
    }
  });

  test('a login is a token for nothing; without a password there is what is public', async () => {
    assert.deepEqual(await ask('/v2/', await comply(challenge(), 'alice:secret')), [200, undefined]);
    const anonymous = await comply(challenge('scope="repository:public/app:pull"'));
    assert.equal((await ask('/v2/public/app/tags/list', anonymous))[0], 404);
    assert.equal((await ask('/v2/public/app/blobs/uploads/', anonymous, 'POST'))[0], 401);
    assert.equal((await ask('/v2/team/app/tags/list', anonymous))[0], 401);
  });

  const pull = [{ type: 'repository', name: 'team/app', actions: ['pull'] }];
  for (const [what, make] of [
    ['a forged one', () => mintToken({ ...options, key: stranger.privateKey }, 'alice', pull)],
    ['one of another issuer', () => mintToken({ ...options, issuer: 'x' }, 'alice', pull)],
    ['one for another audience', () => mintToken({ ...options, service: 'x' }, 'alice', pull)],
    ['one of an unknown key', () => mintToken({ ...options, header: { kid: 'other' } }, 'alice', pull)],
    [
      'one of alg none',
      async () =>
        new UnsecuredJWT({ access: pull })
          .setIssuer('auth.lan')
          .setAudience('registry.lan')
          .setExpirationTime('5m')
          .encode(),
    ],
    ['one that is too long', async () => `a.${'b'.repeat(12_500)}.c`],
    ['no token at all', async () => 'x'],
  ] as const)
    test(`${what} is refused with the challenge`, async () =>
      assert.deepEqual(await ask('/v2/team/app/tags/list', await make()), [401, challenge('error="invalid_token"')]));

  test('keys are read again: a new one counts, and an old one no more', async () => {
    const [old, next] = await Promise.all([
      mintToken(options, 'alice', pull),
      mintToken({ ...options, key: second.privateKey, header: { kid: 'second' } }, 'alice', pull),
    ]);
    const status = async (token: string) => (await ask('/v2/team/app/tags/list', token))[0];
    assert.deepEqual([await status(old), await status(next)], [404, 401]);
    publish(['second', second.publicKey]);
    await registry.until(async () => (await status(next)) === 404);
    assert.equal(await status(old), 401);
    writeFileSync(join(dir, 'keys.json'), '{"keys": []}');
    await registry.until(() => /kept the old keys of the token server/.test(registry.stderr));
    assert.equal(await status(next), 404);
    publish(['first', first.publicKey]);
    await registry.until(async () => (await status(old)) === 404);
  });

  test('an account that is disabled here is let in no more', async () => {
    const token = await mintToken(options, 'alice', pull);
    assert.equal((await ask('/v2/team/app/tags/list', token))[0], 404);
    const account = (verb: string) => LocalRegistry.run(dir, ['user', verb, 'alice', '--dir', dir], { env });
    assert.equal((await account('disable')).status, 0);
    await registry.until(async () => (await ask('/v2/team/app/tags/list', token))[0] === 401);
    assert.equal((await account('enable')).status, 0);
    await registry.until(async () => (await ask('/v2/team/app/tags/list', token))[0] === 404);
  });

  test('a policy narrows what tokens say; autoredirect leads to the host that was asked for, where it is this one', async () => {
    writeFileSync(join(dir, 'policy.yml'), 'rules: [{who: [user:alice], may: [pull], on: ["team/**"]}]\n');
    const narrowed = await start({
      REGISTRY_ACCESS_POLICY: join(dir, 'policy.yml'),
      REGISTRY_AUTH_TOKEN_AUTOREDIRECT: 'true',
    });
    try {
      const all = ['team/app', 'other'].map(name => ({ type: 'repository', name, actions: ['pull', 'push'] }));
      const token = await mintToken(options, 'alice', all);
      assert.equal((await ask('/v2/team/app/tags/list', token, 'GET', narrowed))[0], 404);
      assert.equal((await ask('/v2/other/tags/list', token, 'GET', narrowed))[0], 401);
      assert.equal((await ask('/v2/team/app/blobs/uploads/', token, 'POST', narrowed))[0], 401);
      const [, header] = await ask('/v2/', undefined, 'GET', narrowed);
      assert.equal(header, `Bearer realm="https://127.0.0.1:${narrowed.port}/auth/token",service="registry.lan"`);
      const spoofed = await narrowed.call('GET', '/v2/', { headers: { Host: 'evil.example' } });
      assert.equal(spoofed.challenge, challenge());
    } finally {
      await narrowed.stop();
    }
  });
});
