import { Worker } from 'node:worker_threads';
import { Connection, type Target } from './connection.js';
import type { Job } from './load.js';
import { byEach, during, timed, type Work } from './work.js';

export interface Latency {
  readonly kind: 'latency';
  readonly path: string;
  readonly accept: string;
  /** For how long one request is sent every so many ms, whether the ones before are answered or not. */
  readonly seconds: number;
  readonly every: number;
  /** What runs in another thread meanwhile, and decides instead how long. */
  readonly beside?: Job;
}

export interface Pages {
  readonly kind: 'pages';
  /** Asked for one after the other, again and again. */
  readonly paths: readonly string[];
  readonly seconds: number;
}

/** Asks for blobs again and again on connections that stay open. */
export interface Heads {
  readonly kind: 'heads';
  readonly paths: readonly string[];
  readonly clients: number;
  readonly seconds: number;
}

/** Of the methods wrk knows only those whose answers have a body. */
export function heads(target: Target, { paths, clients, seconds }: Heads): Promise<Work> {
  return timed(() =>
    byEach(clients, async client => {
      const connection = new Connection(target);
      const done = await during(seconds, async index => {
        await connection.send('HEAD', paths[(index + client) % paths.length]!, { status: 200 });
      });
      connection.close();
      return done;
    }),
  );
}

/** An open loop: a server that stops for a moment meets all that were sent meanwhile, not only the one that waits. */
export async function latency(target: Target, job: Latency): Promise<Work> {
  const { path, accept, every } = job;
  const idle: Connection[] = [];
  const all: Connection[] = [];
  const another = () => {
    const connection = new Connection(target);
    all.push(connection);
    return connection;
  };
  const times: number[] = [];
  const ask = async () => {
    const began = performance.now();
    const connection = idle.pop() ?? another();
    await connection.send('GET', path, { headers: { accept }, status: 200, count: true });
    times.push(performance.now() - began);
    idle.push(connection);
  };
  // The first on a connection pays for its handshake, which is not what is asked.
  await Promise.all(Array.from({ length: 16 }, ask));
  times.length = 0;
  const work = await timed(async () => {
    const asked: Promise<void>[] = [];
    const timer = setInterval(() => asked.push(ask()), every);
    await (job.beside ? inThread(target, job.beside) : new Promise(resolve => setTimeout(resolve, job.seconds * 1000)));
    clearInterval(timer);
    await Promise.all(asked);
    return asked.length;
  }, times);
  for (const connection of all) connection.close();
  return work;
}

/** In a thread with a loop of its own, which makes the other one no later. */
function inThread(target: Target, job: Job): Promise<void> {
  const worker = new Worker(new URL('./load.js', import.meta.url), { workerData: { target, job } });
  return new Promise((resolve, reject) => {
    worker.once('message', () => resolve()).once('error', reject);
  });
}

/** How long each page takes that is asked for alone; each of them at least once. */
export async function pages(target: Target, { paths, seconds }: Pages): Promise<Work> {
  const connection = new Connection(target);
  const times: number[] = [];
  const ask = async (path: string) => {
    const began = performance.now();
    await connection.send('GET', path, { status: 200 });
    times.push(performance.now() - began);
  };
  await connection.send('GET', '/v2/');
  const work = await timed(async () => {
    const end = performance.now() + seconds * 1000;
    do for (const path of paths) await ask(path);
    while (performance.now() < end);
    return times.length;
  }, times);
  connection.close();
  return work;
}
