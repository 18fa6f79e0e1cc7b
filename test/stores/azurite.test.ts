import { after, before, describe } from 'node:test';
import { SMALLEST_PART } from '../../src/storage/object/parts.js';
import { testModel } from '../registry/model/suite.js';
import { testDriver } from '../storage/suite.js';
import { Azurite } from '../support/azurite.js';

describe('on azurite', () => {
  let service: Azurite;
  before(async () => {
    service = await Azurite.start();
  });
  after(() => service?.stop());

  testDriver('azure', () => service.place({ chunkSize: SMALLEST_PART }));
  testModel('azure', () => service.place(), { alone: 1, atOnce: 1 });
});
