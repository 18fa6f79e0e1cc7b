import { createHash, randomFillSync } from 'node:crypto';
import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { type RequestOptions, request } from 'node:https';
import type { OnReadOpts } from 'node:net';
import { text } from 'node:stream/consumers';
import { type ConnectionOptions, connect } from 'node:tls';

/** What one run of the load generator does; it reads this as JSON from its standard input. */
export interface Job {
  /** In the last kind each client pulls what it has pushed. */
  readonly kind: 'push' | 'pull' | 'push and pull';
  /** `https://HOST:PORT` */
  readonly origin: string;
  readonly ca: string;
  readonly authorization: string;
  readonly repository: string;
  /** Transfers that run at the same time, each of so many bytes (a multiple of 1 MiB). */
  readonly clients: number;
  readonly bytes: number;
  /** The blob to pull. */
  readonly digest?: string;
}

/** What it prints as JSON: only the transfers are timed, not the making of their content. */
export interface Result {
  readonly seconds: number;
  /** Its own CPU seconds meanwhile, to see whether it was the limit. */
  readonly cpu: number;
  readonly digests: readonly string[];
}

const CHUNK = 1 << 20;
const body = randomFillSync(Buffer.allocUnsafe(CHUNK));

/** A blob that no registry has yet, made of one chunk of its own and then the same one over and over. */
interface Blob {
  readonly first: Buffer;
  readonly digest: string;
}

function newBlob(bytes: number): Blob {
  const first = Buffer.from(body);
  randomFillSync(first, 0, 32);
  const hash = createHash('sha256').update(first);
  for (let done = CHUNK; done < bytes; done += CHUNK) hash.update(body);
  return { first, digest: `sha256:${hash.digest('hex')}` };
}

/** docker's habit: a new connection and a full handshake for each request. */
function send(job: Job, method: string, path: string, headers: Record<string, string | number> = {}) {
  const options: RequestOptions = {
    method,
    ca: job.ca,
    agent: false,
    headers: { authorization: job.authorization, connection: 'close', ...headers },
  };
  return request(new URL(path, job.origin), options);
}

async function answer(sent: ReturnType<typeof send>, status: number): Promise<IncomingMessage> {
  const [response] = (await once(sent, 'response')) as [IncomingMessage];
  if (response.statusCode === status) return response;
  throw new Error(`${sent.method} ${sent.path}: ${response.statusCode} ${await text(response)}`);
}

/** As docker pushes a layer: POST, one streamed PATCH without a length, PUT. */
async function push(job: Job, blob: Blob): Promise<void> {
  const post = send(job, 'POST', `/v2/${job.repository}/blobs/uploads/`, { 'content-length': 0 });
  post.end();
  const started = await answer(post, 202);
  started.resume();
  const patch = send(job, 'PATCH', started.headers.location!, { 'content-type': 'application/octet-stream' });
  const patched = answer(patch, 202);
  for (let done = 0; done < job.bytes; done += CHUNK)
    if (!patch.write(done === 0 ? blob.first : body)) await Promise.race([once(patch, 'drain'), patched]);
  patch.end();
  const session = await patched;
  session.resume();
  const target = new URL(session.headers.location!, job.origin);
  target.searchParams.set('digest', blob.digest);
  const put = send(job, 'PUT', `${target.pathname}${target.search}`, { 'content-length': 0 });
  put.end();
  (await answer(put, 201)).resume();
}

/** Into one buffer over and over: node:https would spend as much on the body as the server does, and be the limit. */
async function pull(job: Job, digest: string): Promise<void> {
  const { hostname, port, host } = new URL(job.origin);
  let head = '';
  let received = -1;
  const onread: OnReadOpts = {
    buffer: Buffer.allocUnsafe(64 * 1024),
    callback(length, bytes) {
      if (received >= 0) received += length;
      else {
        head += Buffer.from(bytes.buffer, bytes.byteOffset, length).toString('latin1');
        const end = head.indexOf('\r\n\r\n');
        if (end >= 0) received = head.length - end - 4;
      }
      return true;
    },
  };
  // tls.connect hands the options that it does not know to the socket.
  const options: ConnectionOptions & { onread: OnReadOpts } = {
    host: hostname,
    port: Number(port),
    ca: job.ca,
    onread,
  };
  const socket = connect(options);
  const path = `/v2/${job.repository}/blobs/${digest}`;
  const fields = [`Host: ${host}`, `Authorization: ${job.authorization}`, 'Connection: close'];
  socket.write(`GET ${path} HTTP/1.1\r\n${fields.join('\r\n')}\r\n\r\n`);
  await once(socket, 'close');
  if (!head.startsWith('HTTP/1.1 200 ') || received !== job.bytes)
    throw new Error(`GET ${path}: ${received} of ${job.bytes} bytes after:\n${head.slice(0, 1000)}`);
}

const job = JSON.parse(await text(process.stdin)) as Job;
const blobs = Array.from({ length: job.kind === 'pull' ? 0 : job.clients }, () => newBlob(job.bytes));
const cpu = process.cpuUsage();
const start = process.hrtime.bigint();
await Promise.all(
  Array.from({ length: job.clients }, async (_, client) => {
    const blob = blobs[client];
    if (blob) await push(job, blob);
    if (job.kind !== 'push') await pull(job, blob?.digest ?? job.digest!);
  }),
);
const seconds = Number(process.hrtime.bigint() - start) / 1e9;
const { user, system } = process.cpuUsage(cpu);
const result: Result = { seconds, cpu: (user + system) / 1e6, digests: blobs.map(blob => blob.digest) };
process.stdout.write(JSON.stringify(result));
