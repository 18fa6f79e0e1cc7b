// `npm start`: set up, then `registry-secure up` in this same process, so that signals reach it.
import { setup } from './setup.js';

setup();
// In its arguments too, which those of the processes show that it starts.
process.argv.splice(2, 0, 'up');
const { main } = await import('../dist/src/cli/index.js');
await main(process.argv.slice(2));
