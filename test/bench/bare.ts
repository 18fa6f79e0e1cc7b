import { randomFillSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { Readable } from 'node:stream';

/**
 * The limit of the measurement: node:https answering the same requests with nothing behind it. It drops what is pushed
 * and pulls come out of memory. Arguments: address, port, certificate, key, bytes of a blob.
 */
const [address, port, certificate, key, bytes] = process.argv.slice(2) as [string, string, string, string, string];
const chunk = randomFillSync(Buffer.allocUnsafe(1 << 20));

function* content(): Generator<Buffer> {
  for (let left = Number(bytes); left > 0; left -= chunk.length) yield chunk;
}

const STATUS: Record<string, number> = { POST: 202, PATCH: 202, PUT: 201 };

createServer({ cert: readFileSync(certificate), key: readFileSync(key) }, (request, response) => {
  if (request.method === 'GET') {
    response.writeHead(200, { 'content-length': bytes });
    Readable.from(content(), { highWaterMark: 1 }).pipe(response);
    return;
  }
  request.resume().on('end', () => {
    response.writeHead(STATUS[request.method!] ?? 200, { location: '/v2/bench/blobs/uploads/1', 'content-length': 0 });
    response.end();
  });
}).listen(Number(port), address);
