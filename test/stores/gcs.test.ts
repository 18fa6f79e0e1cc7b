import { after, before, describe } from 'node:test';
import { SMALLEST_PART } from '../../src/storage/object/parts.js';
import { testModel } from '../registry/model/suite.js';
import { testFaults } from '../storage/faults.js';
import { testDriver } from '../storage/suite.js';
import { FakeGcs } from '../support/fake-gcs.js';

describe('on fake-gcs-server', () => {
  let service: FakeGcs;
  before(async () => {
    service = await FakeGcs.start();
  });
  after(() => service?.stop());

  testDriver('gcs', () => service.place({ chunkSize: SMALLEST_PART }));
  testModel('gcs', () => service.place(), { alone: 1, atOnce: 1 });
  testFaults('a bucket of Google', async () => {
    const bucket = await service.makeBucket();
    return {
      port: service.port,
      connect: endpoint =>
        service.driver(service.options(bucket, endpoint ? { endpoint } : {}), { chunkSize: SMALLEST_PART }),
    };
  });
});
