import { after, before } from 'node:test';
import { SMALLEST_PART } from '../../src/storage/object/parts.js';
import { testFaults } from '../storage/faults.js';
import { Azurite } from '../support/azurite.js';

let service: Azurite;
before(async () => {
  service = await Azurite.start();
});
after(() => service?.stop());

testFaults('a container', async () => {
  const container = await service.makeContainer();
  return {
    port: service.port,
    connect: endpoint =>
      service.driver(service.options(container, endpoint ? { endpoint } : {}), { chunkSize: SMALLEST_PART }),
  };
});
