import { after, before, describe } from 'node:test';
import { testCrashes } from '../crash/suite.js';
import type { S3Service } from '../support/s3-service.js';
import { S3_SERVICES } from '../support/s3-services.js';

for (const [name, start] of Object.entries(S3_SERVICES))
  describe(`on ${name}`, () => {
    let service: S3Service;
    before(async () => {
      service = await start();
    });
    after(() => service?.stop());

    testCrashes('a bucket', () => service.crashPlace(), { pushes: 16, grace: 4000 });
  });
