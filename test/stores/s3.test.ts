import { SMALLEST_PART } from '../../src/storage/object/parts.js';
import { testModel } from '../registry/model/suite.js';
import { testDriver } from '../storage/suite.js';
import { onEachS3 } from '../support/s3-services.js';

onEachS3(service => {
  // The smallest parts, so that what is copied and joined by parts is met soon.
  testDriver('s3', () => service().place({ chunkSize: SMALLEST_PART }));
  testModel('s3', () => service().place(), { alone: 3, atOnce: 3 });
});
