import { after, before, describe } from 'node:test';
import { SMALLEST_PART } from '../../src/storage/object/parts.js';
import { testModel } from '../registry/model/suite.js';
import { testDriver } from '../storage/suite.js';
import { Versitygw } from '../support/versitygw.js';

describe('on versitygw', () => {
  let service: Versitygw;
  before(async () => {
    service = await Versitygw.start();
  });
  after(() => service?.stop());

  // The smallest parts, so that what is copied and joined by parts is met soon.
  testDriver('s3', () => service.place({ chunkSize: SMALLEST_PART }));
  testModel('s3', () => service.place(), { alone: 3, atOnce: 3 });
});
