import { after, before } from 'node:test';
import { testCrashes } from '../crash/suite.js';
import { Azurite } from '../support/azurite.js';

let service: Azurite;
before(async () => {
  service = await Azurite.start();
});
after(() => service?.stop());

testCrashes('a container of Azure', () => service.crashPlace(), { pushes: 8, grace: 4000 });
