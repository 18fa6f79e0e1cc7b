import { after, before } from 'node:test';
import { testCrashes } from '../crash/suite.js';
import { FakeGcs } from '../support/fake-gcs.js';

let service: FakeGcs;
before(async () => {
  service = await FakeGcs.start();
});
after(() => service?.stop());

testCrashes('a bucket of Google', () => service.crashPlace(), { pushes: 12, grace: 4000 });
