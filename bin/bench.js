// `npm run bench`: set up, then measure in this same process.
import { setup } from './setup.js';

setup({ tests: true });
await import('../dist/test/bench/throughput.js');
