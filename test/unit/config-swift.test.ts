import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toYaml } from '../../src/config/display.js';
import { inspectConfig, loadConfig } from '../../src/config/load.js';
import { dataFolderOf, placeOf } from '../../src/storage/open.js';

const inspect = (env: NodeJS.ProcessEnv) => inspectConfig({ dir: '/x', env, standardFiles: false });
const problems = (env: NodeJS.ProcessEnv) =>
  inspect({ REGISTRY_STORAGE: 'swift', ...env }).problems.map(({ what, fix }) => `${what}; ${fix}`);

const CONTAINER = {
  REGISTRY_STORAGE_SWIFT_AUTHURL: 'https://keystone.example.com:5000/v3',
  REGISTRY_STORAGE_SWIFT_CONTAINER: 'images',
};
const USER = { REGISTRY_STORAGE_SWIFT_USERNAME: 'alice', REGISTRY_STORAGE_SWIFT_PASSWORD: 'hush-hush' };
const APPLICATION = {
  REGISTRY_STORAGE_SWIFT_APPLICATIONCREDENTIALID: '1',
  REGISTRY_STORAGE_SWIFT_APPLICATIONCREDENTIALSECRET: 'hush',
};

test('a container of Swift needs a login, by a user or an application credential', () => {
  assert.deepEqual(
    problems({}).map(problem => /storage\.swift\.\S+ is not set/.exec(problem)?.[0]),
    ['authurl', 'container', 'username', 'password'].map(name => `storage.swift.${name} is not set`),
  );
  assert.deepEqual(problems({ ...CONTAINER, ...USER }), []);
  assert.deepEqual(problems({ ...CONTAINER, ...APPLICATION }), []);
});

test('what cannot be meant is refused', () => {
  const cases: Array<[NodeJS.ProcessEnv, RegExp]> = [
    [{ REGISTRY_STORAGE_SWIFT_AUTHURL: 'keystone' }, /authurl is no URL/],
    [{ REGISTRY_STORAGE_SWIFT_AUTHURL: 'https://alice:hush@k/v3' }, /^(?!.*hush).*more than an address/],
    [{ REGISTRY_STORAGE_SWIFT_AUTHURL: 'https://k/v2.0' }, /version 2 of Keystone, which OpenStack has removed/],
    [{ REGISTRY_STORAGE_SWIFT_AUTHVERSION: '2' }, /version 2 of Keystone/],
    [{ ...APPLICATION, REGISTRY_STORAGE_SWIFT_AUTHVERSION: '1' }, /has no application credentials/],
    [{ REGISTRY_STORAGE_SWIFT_ENDPOINTTYPE: 'secret' }, /endpointtype "secret" is not known here/],
    [{ REGISTRY_STORAGE_SWIFT_CHUNKSIZE: '1000' }, /chunksize "1000" is too small/],
  ];
  for (const [env, message] of cases) {
    const found = problems({ ...CONTAINER, ...USER, ...env });
    assert.equal(found.length, 1, found.join('\n'));
    assert.match(found[0]!, message);
  }
});

test('what the variables of the original say counts, and secrets are never shown', () => {
  const env = {
    REGISTRY_STORAGE: 'swift',
    ...CONTAINER,
    ...USER,
    REGISTRY_STORAGE_SWIFT_PREFIX: '/team/images/',
    REGISTRY_STORAGE_SWIFT_SECRETKEY: 'hush-hush',
    REGISTRY_STORAGE_SWIFT_INSECURESKIPVERIFY: 'true',
  };
  const loaded = loadConfig({ dir: '/x', env, standardFiles: false });
  const { storage } = loaded.config;
  assert.equal(storage.swift?.chunksize, 20 * 1024 * 1024);
  assert.equal(placeOf(storage), 'swift://images/team/images');
  assert.equal(dataFolderOf(storage), undefined);
  assert.doesNotMatch(toYaml(loaded), /filesystem|hush-hush/);
  assert.match(loaded.warnings.join('\n'), /SWIFT_INSECURESKIPVERIFY: .* lets anybody on the way/);
  assert.equal(loaded.warnings.length, 1);
});
