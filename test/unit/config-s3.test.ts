import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { parseAllDocuments } from 'yaml';
import { toYaml } from '../../src/config/display.js';
import { inspectConfig, loadConfig } from '../../src/config/load.js';
import { dataFolderOf, placeOf } from '../../src/storage/open.js';
import { CHECKOUT } from '../support/checkout.js';

const inspect = (env: NodeJS.ProcessEnv) => inspectConfig({ dir: '/x', env, standardFiles: false });
const problems = (env: NodeJS.ProcessEnv) =>
  inspect({ REGISTRY_STORAGE: 's3', ...env }).problems.map(({ what, fix }) => `${what}; ${fix}`);

const BUCKET = { REGISTRY_STORAGE_S3_BUCKET: 'images', REGISTRY_STORAGE_S3_REGION: 'eu-central-1' };

test('a bucket needs its name and its region', () => {
  assert.deepEqual(problems({}), [
    'REGISTRY_STORAGE: storage.s3.bucket is not set; name the bucket (REGISTRY_STORAGE_S3_BUCKET)',
    'REGISTRY_STORAGE: storage.s3.region is not set; name the region of the bucket (REGISTRY_STORAGE_S3_REGION), such as eu-central-1',
  ]);
  assert.deepEqual(problems(BUCKET), []);
  assert.deepEqual(
    problems({ REGISTRY_STORAGE_S3_BUCKET: 'images', REGISTRY_STORAGE_S3_REGIONENDPOINT: 'minio:9000' }),
    [],
    'another service has regions of its own',
  );
});

test('what cannot be meant is refused', () => {
  const cases: Array<[NodeJS.ProcessEnv, RegExp]> = [
    [{ REGISTRY_STORAGE_S3_ACCESSKEY: 'a' }, /secretkey is not set, and the other key is; set both/],
    [{ REGISTRY_STORAGE_S3_SECRETKEY: 's' }, /accesskey is not set, and the other key is; set both/],
    [{ REGISTRY_STORAGE_S3_V4AUTH: 'false' }, /v4auth asks for signatures of version 2, which are not made here/],
    [{ REGISTRY_STORAGE_S3_CHUNKSIZE: '1048576' }, /chunksize "1048576" is too small; write a size from 5MiB to 5GiB/],
    [{ REGISTRY_STORAGE_S3_STORAGECLASS: 'GLACIER' }, /storageclass "GLACIER" is not known here/],
    [{ REGISTRY_STORAGE_S3_REGIONENDPOINT: 'http://' }, /regionendpoint is no URL/],
    [{ REGISTRY_STORAGE_S3_REGIONENDPOINT: 'https://alice:hush@minio' }, /^(?!.*hush).*more than an address/],
    [{ REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY: '/x' }, /storage\.s3 is set beside storage\.filesystem; keep one/],
  ];
  for (const [env, message] of cases) {
    const found = problems({ ...BUCKET, ...env });
    assert.equal(found.length, 1, found.join('\n'));
    assert.match(found[0]!, message);
  }
});

test('the variables of the original say where images are, and its words count', () => {
  const env = {
    REGISTRY_STORAGE: 's3',
    ...BUCKET,
    REGISTRY_STORAGE_S3_ROOTDIRECTORY: '/team/images/',
    REGISTRY_STORAGE_S3_STORAGECLASS: 'STANDARD_IA',
  };
  const { storage } = inspect(env).config!;
  assert.equal(placeOf(storage), 's3://images/team/images');
  assert.equal(dataFolderOf(storage), undefined);
  assert.equal(storage.s3?.storageclass, 'standard_ia');
  assert.equal(storage.s3?.chunksize, 10 * 1024 * 1024);
});

test('keys are never shown, and what lets others in is warned of', () => {
  const env = {
    REGISTRY_STORAGE: 's3',
    ...BUCKET,
    REGISTRY_STORAGE_S3_ACCESSKEY: 'AKIAEXAMPLE',
    REGISTRY_STORAGE_S3_SECRETKEY: 'wJalrXUtnFEMI',
    REGISTRY_STORAGE_S3_SESSIONTOKEN: 'FwoGZXIvYXdz',
    REGISTRY_STORAGE_S3_SKIPVERIFY: 'true',
  };
  const loaded = loadConfig({ dir: '/x', env, standardFiles: false });
  assert.doesNotMatch(toYaml(loaded), /filesystem/, 'which could not be named beside it');
  assert.doesNotMatch(toYaml(loaded), /AKIAEXAMPLE|wJalrXUtnFEMI|FwoGZXIvYXdz/);
  assert.match(
    loaded.warnings.join('\n'),
    /REGISTRY_STORAGE_S3_SKIPVERIFY: storage\.s3\.skipverify lets anybody on the way/,
  );
});

test('the configuration of docs/scale.md is understood, and what it gives to Kubernetes is YAML', async () => {
  const text = readFileSync(join(CHECKOUT, 'docs/scale.md'), 'utf8');
  const [config, kubernetes] = [...text.matchAll(/^```yaml\n([\s\S]*?)^```$/gm)].map(([, block]) => block!);
  const dir = mkdtempSync(join(tmpdir(), 'scale-'));
  try {
    const file = join(dir, 'config.yml');
    writeFileSync(file, config!);
    const { problems, warnings } = inspectConfig({ dir, file, env: {}, standardFiles: false });
    assert.deepEqual([problems, warnings], [[], []]);
  } finally {
    rmSync(dir, { recursive: true });
  }
  const documents = parseAllDocuments(kubernetes!);
  assert.deepEqual(
    documents.map(document => [document.errors, (document.toJS() as { kind: string }).kind]),
    [
      [[], 'Deployment'],
      [[], 'Service'],
    ],
  );
});
