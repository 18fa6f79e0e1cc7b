import { setTimeout as sleep } from 'node:timers/promises';
import { connect } from 'node:tls';
import { Connection, type Target } from './connection.js';
import { byEach, timed, type Work } from './work.js';

/** Many clients on slow lines: each sends or takes 50 KB a second for the given time and is then gone. */
export interface Slow {
  readonly kind: 'slow';
  readonly pushes: number;
  readonly pulls: number;
  readonly repository: string;
  readonly path: string;
  readonly seconds: number;
}

const PUSHED = 1 << 30;
const PIECE = 8_000;
const PAUSE = 160;

export function slow(target: Target, job: Slow): Promise<Work> {
  const end = performance.now() + job.seconds * 1000;
  return timed(() =>
    byEach(job.pushes + job.pulls, async client => {
      await (client < job.pushes ? push(target, job.repository, end) : pull(target, job.path, end));
      return 1;
    }),
  );
}

async function push(target: Target, repository: string, end: number): Promise<void> {
  const connection = new Connection(target);
  const { headers } = await connection.send('POST', `/v2/${repository}/blobs/uploads/`, { status: 202 });
  const { pathname, search } = new URL(headers.get('location')!, target.origin);
  const fields = { 'content-type': 'application/octet-stream', 'content-length': PUSHED };
  const gone = connection.send('PATCH', pathname + search, { headers: fields, body: pieces(end) });
  // It never has an answer, or it was refused.
  const answer = await Promise.race([gone, sleep(end - performance.now() + PAUSE)]);
  connection.close();
  await gone.catch(() => {});
  if (answer) throw new Error(`PATCH: ${answer.status} ${answer.body}`);
}

async function* pieces(end: number): AsyncGenerator<Buffer> {
  const piece = Buffer.alloc(PIECE, 'x');
  while (performance.now() < end) {
    yield piece;
    await sleep(PAUSE);
  }
  // The rest never comes.
  await sleep(2 * PAUSE);
}

async function pull(target: Target, path: string, end: number): Promise<void> {
  const { hostname, port, host } = new URL(target.origin);
  const socket = connect({ host: hostname, port: Number(port), ca: target.ca });
  socket.write(`GET ${path} HTTP/1.1\r\nhost: ${host}\r\nauthorization: ${target.authorization}\r\n\r\n`);
  let received = 0;
  try {
    while (performance.now() < end) {
      received += (socket.read(PIECE) as Buffer | null)?.length ?? 0;
      if (socket.errored) throw socket.errored;
      await sleep(PAUSE);
    }
    if (received === 0) throw new Error(`GET ${path}: nothing came`);
  } finally {
    socket.destroy();
  }
}
