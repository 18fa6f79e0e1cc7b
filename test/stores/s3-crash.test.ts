import { after, before } from 'node:test';
import { testCrashes } from '../crash/suite.js';
import { Versitygw } from '../support/versitygw.js';

let service: Versitygw;
before(async () => {
  service = await Versitygw.start();
});
after(() => service?.stop());

testCrashes('a bucket', () => service.crashPlace(), { pushes: 16, grace: 4000 });
