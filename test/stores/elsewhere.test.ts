import { describe, test } from 'node:test';
import { SMALLEST_PART } from '../../src/storage/object/parts.js';
import type { S3Options } from '../../src/storage/s3/options.js';
import { S3Driver } from '../../src/storage/s3.js';
import { testModel } from '../registry/model/suite.js';
import type { Place } from '../storage/places.js';
import { testDriver } from '../storage/suite.js';

/** A bucket of any service, for whoever has one at hand. Each test works below a prefix of its own. */
const { S3_TEST_ENDPOINT, S3_TEST_BUCKET, S3_TEST_REGION = 'us-east-1' } = process.env;
const { S3_TEST_ACCESS_KEY, S3_TEST_SECRET_KEY } = process.env;

const MIB = 1024 * 1024;

let places = 0;

async function place(): Promise<Place> {
  const options: S3Options = {
    bucket: S3_TEST_BUCKET!,
    region: S3_TEST_REGION,
    endpoint: S3_TEST_ENDPOINT,
    pathStyle: true,
    credentials: { accessKeyId: S3_TEST_ACCESS_KEY!, secretAccessKey: S3_TEST_SECRET_KEY! },
    root: `registry-secure-test-${Date.now()}-${++places}`,
    secure: true,
    chunkSize: SMALLEST_PART,
    copy: { chunkSize: 8 * MIB, concurrency: 16, threshold: 8 * MIB },
    calm: 500,
  };
  const connect = () => new S3Driver(options);
  const remove = async () => {
    const driver = connect();
    for (const { name, folder } of await driver.list('docker')) if (folder) await driver.removeAll(`docker/${name}`);
    await driver.removeAll('registry-secure');
    await driver.close();
  };
  return { connect, remove, wholeSeconds: true };
}

if (S3_TEST_ENDPOINT)
  describe(`on ${S3_TEST_ENDPOINT}`, () => {
    testDriver('s3', place);
    testModel('s3', place, { alone: 3, atOnce: 3 });
  });
else test('on a service that S3_TEST_ENDPOINT names', { skip: 'it names none' }, () => {});
