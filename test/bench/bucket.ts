import { compare } from './comparison.js';
import { BUCKET_KINDS } from './servers.js';
import { BUCKET_WORKLOADS } from './workloads.js';

/** `npm run bench -- bucket`: ours over a bucket, beside ours over a folder and docker-registry over a bucket of the same store. */
await compare({ command: 'npm run bench -- bucket', servers: BUCKET_KINDS, workloads: BUCKET_WORKLOADS });
