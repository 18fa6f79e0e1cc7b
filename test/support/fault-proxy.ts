import { once } from 'node:events';
import http, { type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http';
import { buffer } from 'node:stream/consumers';
import { setTimeout } from 'node:timers/promises';
import type { Random } from './random.js';

/** What can go wrong between a registry and its object store, by the moment at which it does. */
const FAULTS = [
  '503 before',
  '500 after',
  'reset before',
  'reset after',
  'request cut',
  'answer cut',
  'slow',
  'error in a 200 before',
  'error in a 200 after',
] as const;

export type Fault = (typeof FAULTS)[number];

const ERROR =
  '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>InternalError</Code><Message>We failed.</Message></Error>';

/** Gives a request that was held back to the service. @returns the status of its answer */
export type Late = () => Promise<number>;

interface Sent {
  readonly method: string | undefined;
  readonly path: string | undefined;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

async function whole(request: IncomingMessage): Promise<Sent> {
  const { method, url: path, headers } = request;
  return { method, path, headers, body: await buffer(request) };
}

/** Stands before an object store on loopback, and breaks some of what passes. */
export class FaultProxy {
  /** How many of the requests meet one, from 0 to 1. */
  rate = 0;
  /** How many there may be. */
  most = Number.POSITIVE_INFINITY;
  /** Which ones; all unless told. */
  kinds: readonly Fault[] = FAULTS;
  /** How many there were, by their kind. */
  readonly faults = new Map<Fault, number>();
  /** What the service is to say it does not know. */
  unknown: (request: IncomingMessage) => boolean = () => false;
  /** What every request waits for. */
  gate: Promise<void> | undefined;
  /** Whether lists of one folder are answered as they were the first time since. */
  lagging = false;
  readonly #lists = new Map<string, Buffer>();
  /**
   * For how long (ms) the service is kept from completing uploads of parts. Meanwhile who asks has no answer at first, and hears
   * that it is done when he asks again.
   */
  completesLate: number | undefined;
  readonly #completing = new Set<string>();
  #late: { readonly is: (request: IncomingMessage) => boolean; readonly held: (late: Late) => void } | undefined;
  /** How many connections there were. */
  connections = 0;
  /** What is to be answered in place of the service's date, in milliseconds more. */
  skew = 0;
  readonly #server: http.Server;
  readonly #agent = new http.Agent({ keepAlive: true });

  private constructor(
    private readonly target: number,
    private readonly random: Random,
  ) {
    this.#server = http.createServer((request, response) => {
      this.#pass(request, response).catch(() => response.destroy());
    });
    this.#server.on('connection', () => this.connections++);
  }

  static async start(target: number, random: Random): Promise<FaultProxy> {
    const proxy = new FaultProxy(target, random);
    proxy.#server.listen(0, '127.0.0.1');
    await once(proxy.#server, 'listening');
    return proxy;
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.#server.address() as { port: number }).port}`;
  }

  get count(): number {
    return [...this.faults.values()].reduce((sum, number) => sum + number, 0);
  }

  /** Whether there was one of each of these. */
  hasMet(kinds: readonly Fault[]): boolean {
    return kinds.every(kind => this.faults.has(kind));
  }

  /** Has the next such request have no answer: its connection breaks when all of it has come, and the service knows nothing of it yet. */
  holdBack(is: (request: IncomingMessage) => boolean): Promise<Late> {
    return new Promise(resolve => {
      this.#late = { is, held: resolve };
    });
  }

  async stop(): Promise<void> {
    this.#agent.destroy();
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }

  async #pass(request: IncomingMessage, response: ServerResponse): Promise<void> {
    await this.gate;
    if (this.unknown(request)) {
      request.resume();
      await once(request, 'end');
      response.writeHead(501, { 'content-type': 'application/xml' });
      response.end(ERROR.replace('InternalError', 'NotImplemented'));
      return;
    }
    const late = this.#late;
    if (late?.is(request)) {
      this.#late = undefined;
      const sent = await whole(request);
      request.socket.destroy();
      late.held(() => this.#deliver(sent));
      return;
    }
    const isCompletion = request.method === 'POST' && request.url!.includes('uploadId=');
    if (this.completesLate !== undefined && isCompletion)
      return this.#completeLate(request, response, this.completesLate);
    const fault = this.#choose(request);
    if (fault === '503 before') {
      request.resume();
      await once(request, 'end');
      response.writeHead(503, { 'content-type': 'application/xml' });
      response.end(ERROR.replace('InternalError', 'SlowDown'));
      return;
    }
    if (fault === 'error in a 200 before') {
      request.resume();
      await once(request, 'end');
      response.writeHead(200, { 'content-type': 'application/xml' });
      response.end(ERROR);
      return;
    }
    if (fault === 'reset before') {
      request.socket.destroy();
      return;
    }
    if (fault === 'slow') await setTimeout(this.random.between(50, 400));
    const answer = await this.#forward(request, fault === 'request cut');
    if (!answer || fault === 'reset after') {
      answer?.resume();
      request.socket.destroy();
      return;
    }
    if (fault === '500 after' || fault === 'error in a 200 after') {
      answer.resume();
      response.writeHead(fault === '500 after' ? 500 : 200, { 'content-type': 'application/xml' });
      response.end(ERROR);
      return;
    }
    // Of its own connection.
    const { connection, ...headers } = answer.headers;
    if (this.lagging && request.method === 'GET' && request.url!.includes('list-type=2')) {
      const chunks: Buffer[] = [];
      for await (const chunk of answer as AsyncIterable<Buffer>) chunks.push(chunk);
      const first = this.#lists.get(request.url!) ?? Buffer.concat(chunks);
      this.#lists.set(request.url!, first);
      const { 'transfer-encoding': _, ...rest } = headers;
      response.writeHead(answer.statusCode!, { ...rest, 'content-length': first.length });
      response.end(first);
      return;
    }
    const date = this.skew === 0 ? undefined : new Date(Date.now() + this.skew).toUTCString();
    response.writeHead(answer.statusCode!, { ...headers, ...(date && { date }) });
    if (fault !== 'answer cut') {
      answer.pipe(response);
      return;
    }
    let left = Math.floor(Number(headers['content-length'] ?? 0) / 2);
    for await (const chunk of answer as AsyncIterable<Buffer>) {
      response.write(chunk.subarray(0, left));
      left -= chunk.length;
      if (left <= 0) break;
    }
    request.socket.destroy();
  }

  async #completeLate(request: IncomingMessage, response: ServerResponse, wait: number): Promise<void> {
    const sent = await whole(request);
    const path = request.url!;
    if (this.#completing.has(path)) {
      response.writeHead(200, { 'content-type': 'application/xml' });
      response.end('<?xml version="1.0" encoding="UTF-8"?>\n<CompleteMultipartUploadResult/>');
      return;
    }
    this.#completing.add(path);
    request.socket.destroy();
    await setTimeout(wait);
    await this.#deliver(sent);
  }

  async #deliver({ body, ...request }: Sent): Promise<number> {
    const onward = http.request({ host: '127.0.0.1', port: this.target, ...request });
    onward.end(body);
    const [answer] = (await once(onward, 'response')) as [IncomingMessage];
    answer.resume();
    return answer.statusCode!;
  }

  /** Of such as can happen to the request one of those that there were least: no kind is left to chance. */
  #choose({ method, url, headers }: IncomingMessage): Fault | undefined {
    // The two requests that take so long that services begin to answer before they know; there are few.
    const isLong = 'x-amz-copy-source' in headers || (method === 'POST' && url!.includes('uploadId='));
    if (this.count >= this.most || !this.random.chance(Math.min(1, (isLong ? 3 : 1) * this.rate))) return undefined;
    const possible = this.kinds.filter(fault => {
      if (fault.startsWith('error in')) return isLong;
      if (fault === 'request cut') return Number(headers['content-length'] ?? 0) >= 2;
      return fault !== 'answer cut' || (method === 'GET' && !url!.includes('list-type'));
    });
    const least = Math.min(...possible.map(fault => this.faults.get(fault) ?? 0));
    const rarest = possible.filter(fault => (this.faults.get(fault) ?? 0) === least);
    if (rarest.length === 0) return undefined;
    const fault = this.random.pick(rarest);
    this.faults.set(fault, least + 1);
    return fault;
  }

  /** @param cut whether to send half of the body and break off; then there is no answer */
  async #forward(request: IncomingMessage, cut: boolean): Promise<IncomingMessage | undefined> {
    const { method, url, headers } = request;
    const onward = http.request({
      host: '127.0.0.1',
      port: this.target,
      method,
      path: url,
      headers,
      ...(!cut && { agent: this.#agent }),
    });
    const answered = new Promise<IncomingMessage | undefined>((resolve, reject) => {
      onward.once('response', resolve).once('error', cut ? () => resolve(undefined) : reject);
    });
    if (!cut) {
      request.pipe(onward);
      return answered;
    }
    let left = Math.floor(Number(headers['content-length']) / 2);
    for await (const chunk of request as AsyncIterable<Buffer>) {
      onward.write(chunk.subarray(0, left));
      left -= chunk.length;
      if (left <= 0) break;
    }
    await new Promise<void>(resolve => onward.write('', () => resolve()));
    onward.destroy();
    return undefined;
  }
}
