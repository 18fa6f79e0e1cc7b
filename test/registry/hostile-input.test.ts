import { hostileInput } from '../support/hostile.js';
import { RegistryFixture } from '../support/registry-fixture.js';

for (const everythingByFramework of [false, true])
  hostileInput(`hostile input, by the ${everythingByFramework ? 'framework' : 'shorter way'}`, async root => {
    const registry = await RegistryFixture.start({
      root,
      everythingByFramework,
      limits: { manifestBytes: 256 * 1024 },
    });
    return Object.assign(registry, { as: (user: string) => `X-Test-User: ${user}\r\n` });
  });
