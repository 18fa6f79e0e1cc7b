import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toYaml } from '../../src/config/display.js';
import { inspectConfig, loadConfig } from '../../src/config/load.js';
import { gcsRefusal } from '../../src/storage/gcs/failure.js';
import { ServiceError } from '../../src/storage/object/requests.js';
import { dataFolderOf, placeOf } from '../../src/storage/open.js';

const inspect = (env: NodeJS.ProcessEnv) => inspectConfig({ dir: '/x', env, standardFiles: false });
const problems = (env: NodeJS.ProcessEnv) =>
  inspect({ REGISTRY_STORAGE: 'gcs', ...env }).problems.map(({ what, fix }) => `${what}; ${fix}`);

test('a bucket of Google needs its name, and one login', () => {
  assert.deepEqual(problems({}), [
    'REGISTRY_STORAGE: storage.gcs.bucket is not set; name the bucket (REGISTRY_STORAGE_GCS_BUCKET)',
  ]);
  const bucket = { REGISTRY_STORAGE_GCS_BUCKET: 'images' };
  assert.deepEqual(problems(bucket), []);
  const two = { REGISTRY_STORAGE_GCS_KEYFILE: '/key.json', REGISTRY_STORAGE_GCS_CREDENTIALS_CLIENT_EMAIL: 'a@b' };
  assert.match(problems({ ...bucket, ...two }).join(), /credentials is set beside storage\.gcs\.keyfile; keep one/);
  assert.match(problems({ ...bucket, REGISTRY_STORAGE_GCS_CHUNKSIZE: '1000' }).join(), /chunksize "1000" is too small/);
});

test('what the variables of the original say counts, and a key is never shown', () => {
  const env = {
    REGISTRY_STORAGE: 'gcs',
    REGISTRY_STORAGE_GCS_BUCKET: 'images',
    REGISTRY_STORAGE_GCS_ROOTDIRECTORY: '/team/images/',
    REGISTRY_STORAGE_GCS_CREDENTIALS_PRIVATE_KEY: 'hush-hush',
    REGISTRY_STORAGE_GCS_CHUNKSIZE: '5242880',
  };
  const loaded = loadConfig({ dir: '/x', env, standardFiles: false });
  const { storage } = loaded.config;
  assert.deepEqual(storage.gcs?.credentials, { private_key: 'hush-hush' });
  assert.equal(storage.gcs?.chunksize, 5_242_880);
  assert.equal(placeOf(storage), 'gs://images/team/images');
  assert.equal(dataFolderOf(storage), undefined);
  assert.doesNotMatch(toYaml(loaded), /filesystem|hush-hush/);
  assert.deepEqual(loaded.warnings, []);
});

test('what Google answers where the fake has no word has a way out, too', () => {
  const cases: Array<[number | undefined, string, RegExp, RegExp]> = [
    [401, 'authError', /refuses the credentials/, /storage\.gcs\.keyfile, .*clock/],
    [403, 'forbidden', /refuses access to the bucket images/, /Storage Object User.*READONLY_ENABLED/],
    [404, 'notFound', /there is no bucket images/, /gcloud storage buckets create/],
    [undefined, 'SELF_SIGNED_CERT_IN_CHAIN', /is not trusted/, /NODE_EXTRA_CA_CERTS/],
    [412, 'orgPolicy', /cannot be used: orgPolicy: No\. \(HTTP 412\)/, /check storage\.gcs/],
  ];
  for (const [status, code, message, fix] of cases) {
    const refusal = gcsRefusal({ bucket: 'images', root: '' }, new ServiceError({ status, code, message: 'No.' }));
    assert.match(refusal.message, message);
    assert.match(refusal.fix!, fix);
  }
});
