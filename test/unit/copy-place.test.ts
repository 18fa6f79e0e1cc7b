import assert from 'node:assert/strict';
import { resolve } from 'node:path';
import { describe, test } from 'node:test';
import { bucketSettings } from '../../src/cli/bucket.js';
import { parseNamed, settingOf } from '../../src/cli/copy-place.js';
import { OperatorError } from '../../src/errors.js';
import { placeOf } from '../../src/storage/open.js';

function refused(what: () => unknown): string {
  try {
    what();
  } catch (error) {
    assert.ok(error instanceof OperatorError, String(error));
    assert.equal(error.exitCode, 2);
    return `${error.message}; ${error.fix}`;
  }
  throw new Error('it was taken');
}

describe('an object store as a place', () => {
  const KEYS = {
    REGISTRY_STORAGE_S3_REGION: 'eu-central-1',
    REGISTRY_STORAGE_AZURE_ACCOUNTNAME: 'images',
    REGISTRY_STORAGE_AZURE_ACCOUNTKEY: 'c2VjcmV0',
    REGISTRY_STORAGE_SWIFT_AUTHURL: 'https://keystone.example.com:5000/v3',
    REGISTRY_STORAGE_SWIFT_USERNAME: 'alice',
    REGISTRY_STORAGE_SWIFT_PASSWORD: 'hush-hush',
    // Of what is served, and not of what is named here.
    REGISTRY_STORAGE: 'filesystem',
    REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY: '/nowhere',
  };

  test('is named as the configuration names it, whatever is in its name', () => {
    for (const [url, place, setting] of [
      ['s3://images', 's3://images', 'storage.s3 with bucket: images'],
      ['s3://images/', 's3://images', 'storage.s3 with bucket: images'],
      ['gs://my_images.example.com/', 'gs://my_images.example.com', 'storage.gcs with bucket: my_images.example.com'],
      ['s3://images/a/../b', 's3://images/a/../b', 'storage.s3 with bucket: images, rootdirectory: /a/../b'],
      [
        'azure://$root/b',
        'azure://$root/b?accountname=images',
        'storage.azure with container: $root, rootdirectory: /b',
      ],
      [
        'swift://Images_of.Alice/P',
        'swift://Images_of.Alice/P',
        'storage.swift with container: Images_of.Alice, prefix: /P',
      ],
      ['swift://a%20%C3%BC%3A%40/%23%25', 'swift://a ü:@/#%', 'storage.swift with container: a ü:@, prefix: /#%'],
      ['swift://ü /é', 'swift://ü /é', 'storage.swift with container: ü , prefix: /é'],
    ] as const) {
      assert.deepEqual(parseNamed(url), { kind: 'bucket', place: url });
      const key = url.startsWith('azure:') ? 'realm=example.com' : 'chunksize=6MiB';
      assert.deepEqual(parseNamed(`${url}?${key}#team/app:v1`), {
        kind: 'bucket',
        place: `${url}?${key}`,
        repository: 'team/app',
        reference: 'v1',
      });
      assert.equal(placeOf(bucketSettings(url, KEYS)), place);
      assert.equal(settingOf(parseNamed(url)), setting);
    }
  });

  test('takes the keys of its section, before those of the variables', () => {
    const s3 = 's3://images/root?region=us-east-1&regionendpoint=http://minio:9000&chunksize=6MiB';
    assert.deepEqual(
      (({ bucket, region, regionendpoint, rootdirectory, chunksize }) => ({
        bucket,
        region,
        regionendpoint,
        rootdirectory,
        chunksize,
      }))(bucketSettings(s3, KEYS).s3!),
      {
        bucket: 'images',
        region: 'us-east-1',
        regionendpoint: 'http://minio:9000',
        rootdirectory: '/root',
        chunksize: 6 * 1024 * 1024,
      },
    );
    assert.equal(
      settingOf(parseNamed(s3)),
      'storage.s3 with bucket: images, rootdirectory: /root, region: us-east-1, regionendpoint: http://minio:9000, chunksize: 6MiB',
    );
    const azure = bucketSettings(
      'azure://registry?accountname=other&credentials.type=client_secret&credentials.clientid=c&credentials.tenantid=t',
      { ...KEYS, REGISTRY_STORAGE_AZURE_CREDENTIALS_SECRET: 'hush' },
    ).azure!;
    assert.deepEqual(
      [azure.accountname, azure.accountkey, azure.container, azure.rootdirectory, azure.credentials],
      ['other', 'c2VjcmV0', 'registry', '', { type: 'client_secret', clientid: 'c', tenantid: 't', secret: 'hush' }],
    );
    const { gcs } = bucketSettings('gs://images/root?keyfile=key.json', KEYS);
    assert.deepEqual([gcs?.bucket, gcs?.rootdirectory, gcs?.keyfile], ['images', '/root', resolve('key.json')]);
    assert.equal(bucketSettings('gs://images?keyfile=/etc/a+b.json', KEYS).gcs?.keyfile, '/etc/a+b.json');
    const { swift } = bucketSettings('swift://Images?tenant=Our%20project&chunksize=5MiB', {
      ...KEYS,
      REGISTRY_STORAGE_SWIFT_PREFIX: 'team',
    });
    assert.deepEqual(
      [swift?.container, swift?.tenant, swift?.chunksize, swift?.username, swift?.password, swift?.prefix],
      ['Images', 'Our project', 5 * 1024 * 1024, 'alice', 'hush-hush', 'team'],
    );
  });

  test('takes no secret, and nothing that it does not know', () => {
    for (const [url, message] of [
      ['s3://a?secretkey=hush', /^secretkey is a secret.*; set REGISTRY_STORAGE_S3_SECRETKEY$/],
      ['azure://a?accountkey=hush', /^accountkey is a secret.*; set REGISTRY_STORAGE_AZURE_ACCOUNTKEY$/],
      ['azure://a?credentials.secret=hush', /; set REGISTRY_STORAGE_AZURE_CREDENTIALS_SECRET$/],
      ['azure://a?connectionstring=hush', /^connectionstring is a secret/],
      ['gs://a?credentials.private_key=hush', /is a secret.*; set REGISTRY_STORAGE_GCS_CREDENTIALS$/],
      ['swift://a?password=hush', /; set REGISTRY_STORAGE_SWIFT_PASSWORD$/],
      ['swift://a?applicationcredentialsecret=hush', /; set REGISTRY_STORAGE_SWIFT_APPLICATIONCREDENTIALSECRET$/],
      ['gs://a?region=hush', /^region is no key of storage\.gcs; see docs\/configuration\.md$/],
      ['swift://a?rootdirectory=hush', /^rootdirectory is no key of storage\.swift/],
      ['swift://a?prefix=hush', /^the prefix stands before the \?/],
      ['azure://a?container=hush', /^the container stands before the \?/],
    ] as const) {
      const problem = refused(() => bucketSettings(url, KEYS));
      assert.match(problem, message);
      assert.doesNotMatch(problem, /hush/);
    }
    // Nor before it comes to that, when something else is wrong with it too.
    assert.doesNotMatch(
      refused(() => parseNamed('s3://100%?secretkey=hush#Bad Name')),
      /hush/,
    );
  });

  test('is no host, no user and no other scheme', () => {
    for (const [text, message] of [
      ['s3://minio:9000/images', /name of a bucket, with no user, host or port; write keys of storage\.s3 after a \?/],
      ['s3://key:hush@images/root', /^(?!.*hush).*with no user/],
      ['azure://images@hush.blob.core.windows.net', /^(?!.*hush).*name of a container, with no user/],
      ['gs://', /names no bucket; write gs:\/\/BUCKET$/],
      ['swift:///root#a:b', /names no container; write swift:\/\/CONTAINER$/],
      ['azure://?accountname=a', /names no container/],
      ['s3://100%', /has a % that no two hexadecimal digits follow; write % itself as %25/],
      ['s3://images/%zz', /has a %/],
      ['swift://a%ff', /has a %/],
      ['gcs://images', /is no place .* s3:\/\/, azure:\/\/, gs:\/\/ or swift:\/\/BUCKET#/],
      ['constructor://images', /is no place/],
    ] as const)
      assert.match(
        refused(() => parseNamed(text)),
        message,
      );
  });
});
