// `npm run bench`: set up, then measure in this same process. `npm run bench -- login` measures logins, not throughput.
import { setup } from './setup.js';

setup({ tests: true });
const login = process.argv[2] === 'login';
if (login) process.argv.splice(2, 1);
await import(login ? '../dist/test/bench/login.js' : '../dist/test/bench/throughput.js');
