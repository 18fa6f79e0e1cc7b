import cluster from 'node:cluster';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import type { ServerResponse } from 'node:http';
import { createServer } from 'node:https';
import { join, relative } from 'node:path';
import { Readable } from 'node:stream';
import { Random } from '../support/random.js';

/**
 * The limit of Node and of the load generator: node:https answering the same requests with nothing behind it, in as many
 * processes as WORKERS says. It drops what is pushed, and pulls come out of memory. Arguments: address, port, folder of the
 * certificate, folder of the files that it answers.
 */
const [address, port, certs, folder] = process.argv.slice(2) as [string, string, string, string];
const MIB = 1 << 20;
const chunk = new Random(7).bytes(MIB);
const STATUS: Record<string, number> = { POST: 202, PATCH: 202, PUT: 201 };

type Canned = { readonly size: number; readonly body?: Buffer };

const canned = new Map<string, Canned>();

function read(): void {
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    const { size } = statSync(path);
    canned.set(`/${relative(folder, path)}`, size <= MIB ? { size, body: readFileSync(path) } : { size });
  }
}

function* content(size: number): Generator<Buffer> {
  for (let left = size; left > 0; left -= MIB) yield chunk.subarray(0, left);
}

function answer(response: ServerResponse, found: Canned | undefined): void {
  if (!found) {
    response.writeHead(404, { 'content-length': 0 }).end();
    return;
  }
  response.writeHead(200, {
    'content-type': 'application/vnd.oci.image.manifest.v1+json',
    'content-length': found.size,
  });
  if (found.body) response.end(found.body);
  else Readable.from(content(found.size), { highWaterMark: 1 }).pipe(response);
}

function serve(): void {
  read();
  const pair = { cert: readFileSync(join(certs, 'domain.crt')), key: readFileSync(join(certs, 'domain.key')) };
  createServer(pair, (request, response) => {
    const [path] = request.url!.split('?', 1) as [string];
    if (request.method === 'GET') return answer(response, canned.get(path));
    if (request.method === 'HEAD') {
      const found = canned.get(path);
      response.writeHead(found ? 200 : 404, { 'content-length': found?.size ?? 0 }).end();
      return;
    }
    request.resume().on('end', () => {
      response.writeHead(STATUS[request.method!] ?? 200, {
        location: '/v2/bench/blobs/uploads/1',
        'content-length': 0,
      });
      response.end();
    });
  }).listen(Number(port), address);
}

if (process.env.WORKERS === '1') serve();
else if (cluster.isWorker) {
  serve();
  process.once('disconnect', () => process.exit(0));
} else {
  cluster.schedulingPolicy = cluster.SCHED_NONE;
  for (let worker = 0; worker < Number(process.env.WORKERS); worker++) cluster.fork();
}
