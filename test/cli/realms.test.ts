import assert from 'node:assert/strict';
import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { hashSync } from 'bcryptjs';
import { LocalRegistry } from '../support/local-registry.js';

const POLICY = `rules:
  - {who: [anonymous], may: [pull], on: ["public/**"]}
  - {who: [authenticated], may: [push], on: ["**"]}
  - {who: [user:root], may: [admin], on: ["**"]}
`;

describe('realms of a served registry', () => {
  let dir: string;
  let registry: LocalRegistry;
  before(async () => {
    dir = mkdtempSync(join(tmpdir(), 'registry-secure-realms-'));
    writeFileSync(join(dir, 'policy.yml'), POLICY);
    for (const [file, user, password] of [
      ['team', 'alice', 'one'],
      ['rest', 'bob', 'two'],
      // Two people, who have a name in common.
      ['team', 'root', 'of the team'],
      ['rest', 'root', 'of the rest'],
    ] as const)
      appendFileSync(join(dir, file), `${user}:${hashSync(password, 4)}\n`);
    registry = await LocalRegistry.start(dir, ['up', '--dir', dir], {
      env: {
        REGISTRY_AUTH_REALMS_0_NAME: 'Team',
        REGISTRY_AUTH_REALMS_0_REPOSITORIES: 'team/**',
        REGISTRY_AUTH_REALMS_0_SOURCES_0_HTPASSWD_PATH: join(dir, 'team'),
        REGISTRY_AUTH_HTPASSWD_REALM: 'Rest',
        REGISTRY_AUTH_HTPASSWD_PATH: join(dir, 'rest'),
        REGISTRY_ACCESS_POLICY: join(dir, 'policy.yml'),
      },
    });
    for (const [auth, repository] of [
      ['alice:one', 'team/app'],
      ['bob:two', 'app'],
      ['bob:two', 'public/app'],
    ] as const) {
      const path = `/v2/${repository}/blobs/uploads/?digest=sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824`;
      assert.equal((await registry.call('POST', path, { auth, body: 'hello' })).status, 201, repository);
    }
  });
  after(async () => {
    registry.child.kill('SIGTERM');
    await registry.exited;
    rmSync(dir, { recursive: true, force: true });
  });

  const status = async (method: string, path: string, auth?: string) =>
    (await registry.call(method, path, auth === undefined ? {} : { auth })).status;
  const json = async (path: string, auth: string) =>
    JSON.parse((await registry.call('GET', path, { auth })).body.toString());
  const BLOB = 'blobs/sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824';

  test('a user of any may log in, and is nobody in the repositories of another', async () => {
    for (const auth of ['alice:one', 'bob:two']) assert.equal(await status('GET', '/v2/', auth), 200);
    for (const auth of ['alice:two', 'bob:one']) assert.equal(await status('GET', '/v2/', auth), 401);
    assert.equal(await status('GET', `/v2/team/app/${BLOB}`, 'alice:one'), 200);
    assert.equal(await status('GET', `/v2/team/app/${BLOB}`, 'bob:two'), 401);
    assert.equal(await status('GET', `/v2/app/${BLOB}`, 'alice:one'), 401);
    assert.equal(await status('GET', `/v2/public/app/${BLOB}`, 'alice:one'), 200, 'as for anybody');
    assert.equal(await status('GET', `/v2/public/app/${BLOB}`, 'alice:wrong'), 401);
  });

  test('lists and mounts show what the user of each realm may see', async () => {
    assert.deepEqual((await json('/v2/_catalog', 'alice:one')).repositories, ['public/app', 'team/app']);
    assert.deepEqual((await json('/v2/_catalog', 'bob:two')).repositories, ['app', 'public/app']);
    const found = (await json('/v1/search', 'alice:one')).results as Array<{ name: string }>;
    assert.deepEqual(found.map(({ name }) => name).sort(), ['public/app', 'team/app']);
    const mount = (from: string) => `/v2/team/new/blobs/uploads/?mount=${BLOB.slice('blobs/'.length)}&from=${from}`;
    assert.equal(await status('POST', mount('app'), 'alice:one'), 202);
    assert.equal(await status('POST', mount('public/app'), 'alice:one'), 201);
  });

  test('a token is of the realms of its scopes', async () => {
    const token = async (auth: string, ...scopes: string[]) => {
      const query = scopes.map(scope => `&scope=repository:${scope}:pull,push`).join('');
      return (await json(`/token?service=registry-secure${query}`, auth)).token as string;
    };
    const by = async (token: string, repository: string) =>
      (await registry.call('GET', `/v2/${repository}/${BLOB}`, { token })).status;
    const alice = await token('alice:one', 'team/app');
    assert.deepEqual([await by(alice, 'team/app'), await by(alice, 'app')], [200, 401]);
    // As docker asks where it may mount: the scopes in the order of their names.
    const both = await token('bob:two', 'team/app', 'app');
    assert.deepEqual([await by(both, 'app'), await by(both, 'team/app')], [200, 401]);
    const nobody = await token('bob:two', 'team/app');
    assert.deepEqual([await by(nobody, 'public/app'), await by(nobody, 'app')], [200, 401]);
    assert.equal(await status('GET', '/token?scope=repository:team/app:pull', 'alice:wrong'), 401);
    const anywhere = await token('bob:two');
    assert.deepEqual([await by(anywhere, 'app'), await by(anywhere, 'team/app')], [200, 401]);
  });

  test("a machine's token is of the realms that its maker is of, and of no namesake's", async () => {
    const administers = async (auth: string) => (await registry.call('GET', '/api/v1/accounts', { auth })).status;
    const made = async (login: string) => {
      const answer = await registry.call('POST', '/api/v1/tokens', {
        auth: login,
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ allow: ['admin:**'] }),
      });
      assert.equal(answer.status, 201);
      const { id, secret } = JSON.parse(answer.body.toString()) as { id: string; secret: string };
      const auth = `root:${secret}`;
      // The list of tokens that it is looked up in may be a moment old.
      await registry.until(async () => (await status('GET', '/v2/', auth)) === 200);
      return { id, auth };
    };
    assert.deepEqual([await administers('root:of the team'), await administers('root:of the rest')], [403, 200]);
    const team = await made('root:of the team');
    assert.equal(await administers(team.auth), 403);
    assert.equal(await status('GET', `/v2/app/${BLOB}`, team.auth), 401);
    assert.equal(await status('GET', `/v2/team/app/${BLOB}`, team.auth), 200);
    const { token } = await json('/token?scope=repository:app:pull', team.auth);
    assert.equal((await registry.call('GET', `/v2/app/${BLOB}`, { token })).status, 401, 'nor by way of /token');
    const rest = await made('root:of the rest');
    assert.equal(await administers(rest.auth), 200);
    assert.equal(await status('GET', `/v2/team/app/${BLOB}`, rest.auth), 401);
    const ids = async (auth: string) =>
      ((await json('/api/v1/tokens', auth)).tokens as Array<{ id: string }>).map(({ id }) => id);
    assert.deepEqual(await ids('root:of the team'), [team.id]);
    assert.equal(await status('DELETE', `/api/v1/tokens/${rest.id}`, 'root:of the team'), 404);
    assert.equal(await status('DELETE', `/api/v1/tokens/${team.id}`, 'root:of the team'), 204);
  });

  test('who is removed from the file of a realm is out within a second, and no other', async () => {
    writeFileSync(join(dir, 'team'), '# nobody\n');
    await registry.until(async () => (await status('GET', `/v2/team/app/${BLOB}`, 'alice:one')) === 401);
    assert.equal(await status('GET', `/v2/app/${BLOB}`, 'bob:two'), 200);
  });
});
