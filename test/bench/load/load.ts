import { text } from 'node:stream/consumers';
import { isMainThread, parentPort, workerData } from 'node:worker_threads';
import { type CommandJob, command } from './command.js';
import type { Target } from './connection.js';
import { type Heads, heads, type Latency, latency, type Pages, pages } from './requests.js';
import { type Referrers, referrers, type Seed, seed } from './seed.js';
import { type Sizes, sizes } from './sizes.js';
import { type Slow, slow } from './slow.js';
import { type Start, start } from './start.js';
import { type StoreJob, store } from './store.js';
import { type Images, images, type Mixed, mixed, type Pull, type Push, pull, push } from './transfers.js';
import type { Work } from './work.js';

/** What one run of the load generator does. */
export type Job =
  | Pull
  | Push
  | Images
  | Mixed
  | Heads
  | Latency
  | Pages
  | Slow
  | Start
  | Seed
  | Referrers
  | StoreJob
  | Sizes
  | CommandJob;

/** Its standard input, as JSON; its standard output is the Work as JSON. */
export interface Order {
  readonly target: Target;
  readonly job: Job;
}

function carryOut({ target, job }: Order): Promise<Work> {
  switch (job.kind) {
    case 'pull':
      return pull(target, job);
    case 'push':
      return push(target, job);
    case 'images':
      return images(target, job);
    case 'mixed':
      return mixed(target, job);
    case 'heads':
      return heads(target, job);
    case 'latency':
      return latency(target, job);
    case 'pages':
      return pages(target, job);
    case 'slow':
      return slow(target, job);
    case 'start':
      return start(target, job);
    case 'sizes':
      return sizes(target, job);
    case 'command':
      return command(job);
    case 'store':
      return store(job);
    case 'seed':
      return seed(target, job);
    case 'referrers':
      return referrers(target, job);
  }
}

if (isMainThread) process.stdout.write(JSON.stringify(await carryOut(JSON.parse(await text(process.stdin)))));
else parentPort!.postMessage(await carryOut(workerData));
