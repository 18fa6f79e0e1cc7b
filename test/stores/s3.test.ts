import { after, before, describe } from 'node:test';
import { SMALLEST_PART } from '../../src/storage/object/parts.js';
import { testModel } from '../registry/model/suite.js';
import { testDriver } from '../storage/suite.js';
import type { S3Service } from '../support/s3-service.js';
import { S3_SERVICES } from '../support/s3-services.js';

for (const [name, start] of Object.entries(S3_SERVICES))
  describe(`on ${name}`, () => {
    let service: S3Service;
    before(async () => {
      service = await start();
    });
    after(() => service?.stop());

    // The smallest parts, so that what is copied and joined by parts is met soon.
    testDriver('s3', () => service.place({ chunkSize: SMALLEST_PART }));
    testModel('s3', () => service.place(), { alone: 3, atOnce: 3 });
  });
