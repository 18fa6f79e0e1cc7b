import { after, before, describe } from 'node:test';
import { testModel } from '../registry/model/suite.js';
import { testDriver } from '../storage/suite.js';
import { Versitygw } from '../support/versitygw.js';

describe('on versitygw', () => {
  let service: Versitygw;
  before(async () => {
    service = await Versitygw.start();
  });
  after(() => service?.stop());

  testDriver('s3', () => service.place());
  testModel('s3', () => service.place(), { alone: 4, atOnce: 4 });
});
