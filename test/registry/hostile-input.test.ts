import { hostileInput } from '../support/hostile.js';
import { RegistryFixture } from '../support/registry-fixture.js';

hostileInput('hostile input, through the real listener and application', async root => {
  const registry = await RegistryFixture.start({ root, limits: { manifestBytes: 256 * 1024 } });
  return Object.assign(registry, { as: (user: string) => `X-Test-User: ${user}\r\n` });
});
