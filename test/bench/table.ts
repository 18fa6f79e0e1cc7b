import { compare } from './comparison.js';
import { KINDS } from './servers.js';
import { WORKLOADS } from './workloads.js';

/** `npm run bench`: ours beside other registries, a server of files and a bare handler. */
await compare({ command: 'npm run bench', servers: KINDS, workloads: WORKLOADS });
