import { PLACES } from './places.js';
import { testDriver } from './suite.js';

for (const [name, makePlace] of Object.entries(PLACES)) testDriver(name, makePlace);
