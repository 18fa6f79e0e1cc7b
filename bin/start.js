// `npm start`: set up, then `registry-secure up` in this same process, so that signals reach it.
import { setup } from './setup.js';

setup();
const { main } = await import('../dist/src/cli/index.js');
await main(['up', ...process.argv.slice(2)]);
