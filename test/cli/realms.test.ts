import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { hashSync } from 'bcryptjs';
import { LocalRegistry } from '../support/local-registry.js';

const POLICY = `rules:
  - {who: [anonymous], may: [pull], on: ["public/**"]}
  - {who: [authenticated], may: [push], on: ["**"]}
`;

describe('realms of a served registry', { timeout: 120_000 }, () => {
  let dir: string;
  let registry: LocalRegistry;
  before(async () => {
    dir = mkdtempSync(join(tmpdir(), 'registry-secure-realms-'));
    writeFileSync(join(dir, 'policy.yml'), POLICY);
    for (const [file, user, password] of [
      ['team', 'alice', 'one'],
      ['rest', 'bob', 'two'],
    ] as const)
      writeFileSync(join(dir, file), `${user}:${hashSync(password, 4)}\n`);
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

  test('who is removed from the file of a realm is out within a second, and no other', async () => {
    writeFileSync(join(dir, 'team'), '# nobody\n');
    await registry.until(async () => (await status('GET', `/v2/team/app/${BLOB}`, 'alice:one')) === 401);
    assert.equal(await status('GET', `/v2/app/${BLOB}`, 'bob:two'), 200);
  });
});
