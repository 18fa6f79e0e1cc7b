// `npm run bench`: set up, then measure in this same process; `-- bucket`, `-- login` and `-- growth` measure something else.
import { setup } from './setup.js';

setup({ tests: true });
const [name] = process.argv.slice(2);
const other = ['bucket', 'login', 'growth'].includes(name);
if (other) process.argv.splice(2, 1);
await import(`../dist/test/bench/${other ? name : 'table'}.js`);
