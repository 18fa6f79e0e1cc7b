import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toYaml } from '../../src/config/display.js';
import { inspectConfig, loadConfig } from '../../src/config/load.js';
import { dataFolderOf, placeOf } from '../../src/storage/open.js';

const inspect = (env: NodeJS.ProcessEnv) => inspectConfig({ dir: '/x', env, standardFiles: false });
const problems = (env: NodeJS.ProcessEnv) =>
  inspect({ REGISTRY_STORAGE: 'azure', ...env }).problems.map(({ what, fix }) => `${what}; ${fix}`);

const CONTAINER = {
  REGISTRY_STORAGE_AZURE_ACCOUNTNAME: 'images',
  REGISTRY_STORAGE_AZURE_ACCOUNTKEY: 'c2VjcmV0',
  REGISTRY_STORAGE_AZURE_CONTAINER: 'registry',
};

test('a container needs its name and its account', () => {
  assert.deepEqual(problems({}), [
    'REGISTRY_STORAGE: storage.azure.accountname is not set; name the storage account (REGISTRY_STORAGE_AZURE_ACCOUNTNAME)',
    'REGISTRY_STORAGE: storage.azure.container is not set; name the container (REGISTRY_STORAGE_AZURE_CONTAINER)',
  ]);
  assert.deepEqual(problems(CONTAINER), []);
});

test('what cannot be meant is refused', () => {
  const cases: Array<[NodeJS.ProcessEnv, RegExp]> = [
    [{ REGISTRY_STORAGE_AZURE_ACCOUNTKEY: '§' }, /accountkey is not in base64/],
    [{ REGISTRY_STORAGE_AZURE_SERVICEURL: 'images.blob' }, /serviceurl is no URL/],
    [{ REGISTRY_STORAGE_AZURE_SERVICEURL: 'https://images.example/?sig=hush' }, /^(?!.*hush).*more than an address/],
    [{ REGISTRY_STORAGE_AZURE_CREDENTIALS_TYPE: 'password' }, /credentials\.type "password" is not known here/],
    [
      { REGISTRY_STORAGE_AZURE_ACCOUNTKEY: '', REGISTRY_STORAGE_AZURE_CREDENTIALS_TYPE: 'shared_key' },
      /accountkey is not set, and credentials\.type is shared_key/,
    ],
    [
      {
        REGISTRY_STORAGE_AZURE_CREDENTIALS_TYPE: 'client_secret',
        REGISTRY_STORAGE_AZURE_CREDENTIALS_CLIENTID: 'one',
        REGISTRY_STORAGE_AZURE_CREDENTIALS_TENANTID: 'two',
      },
      /credentials\.secret is not set, .*REGISTRY_STORAGE_AZURE_CREDENTIALS_SECRET/,
    ],
    [{ REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY: '/x' }, /storage\.azure is set beside storage\.filesystem; keep one/],
  ];
  for (const [env, message] of cases) {
    const found = problems({ ...CONTAINER, ...env });
    assert.equal(found.length, 1, found.join('\n'));
    assert.match(found[0]!, message);
  }
});

test('names of keys may hold a line, and secrets are never shown', () => {
  const env = {
    REGISTRY_STORAGE: 'azure',
    ...CONTAINER,
    REGISTRY_STORAGE_AZURE_ROOTDIRECTORY: '/team/images/',
    REGISTRY_STORAGE_AZURE_MAX_RETRIES: '3',
    REGISTRY_STORAGE_AZURE_COPY_STATUS_POLL_DELAY: '1s',
    REGISTRY_STORAGE_AZURE_CREDENTIALS_SECRET: 'hush-hush',
    REGISTRY_STORAGE_AZURE_SKIPVERIFY: 'true',
  };
  const loaded = loadConfig({ dir: '/x', env, standardFiles: false });
  const { storage } = loaded.config;
  assert.equal(storage.azure?.max_retries, 3);
  assert.equal(storage.azure?.copy_status_poll_delay, 1000);
  assert.equal(placeOf(storage), 'azure://registry/team/images?accountname=images');
  assert.equal(dataFolderOf(storage), undefined);
  assert.doesNotMatch(toYaml(loaded), /filesystem|c2VjcmV0|hush-hush/);
  assert.match(loaded.warnings.join('\n'), /REGISTRY_STORAGE_AZURE_SKIPVERIFY: .* lets anybody on the way/);
  assert.equal(loaded.warnings.length, 1);
});
