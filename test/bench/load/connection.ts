import { once } from 'node:events';
import type { OnReadOpts } from 'node:net';
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls';

/** Where a load generator sends its requests, and as whom. */
export interface Target {
  /** `https://HOST:PORT` */
  readonly origin: string;
  /** PEM */
  readonly ca: string;
  readonly authorization: string;
}

export interface Answer {
  readonly status: number;
  /** By their names in lower case. */
  readonly headers: ReadonlyMap<string, string>;
  /** Empty when the body was only counted. */
  readonly body: Buffer;
  /** How many bytes of body came. */
  readonly received: number;
}

interface Sending {
  readonly headers?: Readonly<Record<string, string | number>>;
  readonly body?: Buffer | Iterable<Buffer> | AsyncIterable<Buffer>;
  /** Sends the body in chunks, its length unknown (RFC 9112, section 7.1). */
  readonly chunked?: boolean;
  /** Fails unless the answer has this status. */
  readonly status?: number;
  /** Counts the body of a 200 instead of keeping it, and shows each piece of it to a function. */
  readonly count?: boolean | ((piece: Buffer) => void);
}

const END_OF_HEAD = Buffer.from('\r\n\r\n');
const LAST_CHUNK = Buffer.from('0\r\n\r\n');

/**
 * One TLS connection with one request at a time. node:https would spend more on a request than the server may, and be
 * the limit: this reads everything into one buffer, copies only heads and small bodies, and knows no more of HTTP than
 * the registries measured here say.
 */
export class Connection {
  readonly #socket: TLSSocket;
  readonly #target: Target;
  readonly #host: string;
  #take: ((bytes: Buffer) => void) | undefined;
  #broken: Error | undefined;
  #fail: ((error: Error) => void) | undefined;

  constructor(target: Target) {
    const { hostname, port, host } = new URL(target.origin);
    this.#target = target;
    this.#host = host;
    const onread: OnReadOpts = {
      buffer: Buffer.allocUnsafe(64 * 1024),
      callback: (length, bytes) => {
        this.#take?.(Buffer.from(bytes.buffer, bytes.byteOffset, length));
        return true;
      },
    };
    // tls.connect hands the options that it does not know to the socket. No session is kept: docker never resumes one.
    const options: ConnectionOptions & { onread: OnReadOpts } = {
      host: hostname,
      port: Number(port),
      ca: target.ca,
      onread,
    };
    this.#socket = connect(options);
    this.#socket.setNoDelay(true);
    const broke = (error: Error) => {
      this.#broken ??= error;
      this.#fail?.(this.#broken);
    };
    this.#socket.on('error', broke).on('close', () => broke(new Error('the server closed the connection')));
  }

  /** @throws Error when the connection breaks or the status is not the one that was asked for */
  async send(method: string, path: string, sending: Sending = {}): Promise<Answer> {
    const answered = this.#answer(method, sending.count ?? false);
    // Handled here too, since it may fail before anybody waits for it.
    answered.catch(() => {});
    this.#socket.write(this.#head(method, path, sending));
    if (sending.body) await this.#sendBody(sending, answered);
    const answer = await answered;
    if (sending.status !== undefined && answer.status !== sending.status)
      throw new Error(`${method} ${path}: ${answer.status} ${answer.body.subarray(0, 500)}`);
    return answer;
  }

  close(): void {
    this.#socket.destroy();
  }

  #head(method: string, path: string, { headers, body, chunked }: Sending): string {
    const fields = [
      `${method} ${path} HTTP/1.1`,
      `host: ${this.#host}`,
      `authorization: ${this.#target.authorization}`,
    ];
    if (chunked) fields.push('transfer-encoding: chunked');
    else if (Buffer.isBuffer(body)) fields.push(`content-length: ${body.length}`);
    else if (!body && method !== 'GET' && method !== 'HEAD') fields.push('content-length: 0');
    for (const [name, value] of Object.entries(headers ?? {})) fields.push(`${name}: ${value}`);
    return `${fields.join('\r\n')}\r\n\r\n`;
  }

  async #sendBody({ body, chunked }: Sending, answered: Promise<Answer>): Promise<void> {
    let over = false;
    const early = answered.then(
      () => (over = true),
      () => (over = true),
    );
    for await (const chunk of Buffer.isBuffer(body) ? [body] : body!) {
      if (over) return;
      this.#socket.cork();
      if (chunked) this.#socket.write(`${chunk.length.toString(16)}\r\n`);
      const room = this.#socket.write(chunk);
      if (chunked) this.#socket.write('\r\n');
      this.#socket.uncork();
      if (!room) await Promise.race([once(this.#socket, 'drain').catch(() => {}), early]);
    }
    if (chunked) this.#socket.write(LAST_CHUNK);
  }

  #answer(method: string, count: NonNullable<Sending['count']>): Promise<Answer> {
    return new Promise((resolve, reject) => {
      if (this.#broken) return reject(this.#broken);
      const answer = new Reading(method, count);
      this.#fail = reject;
      this.#take = bytes => {
        if (!answer.take(bytes)) return;
        this.#take = undefined;
        this.#fail = undefined;
        resolve(answer.done());
      };
    });
  }
}

/** An answer as it comes in. */
class Reading {
  #head = Buffer.alloc(0);
  #status = 0;
  readonly #headers = new Map<string, string>();
  readonly #parts: Buffer[] = [];
  #received = 0;
  /** Bytes of body; undefined while the head is not whole, and Infinity for one that comes in chunks. */
  #length: number | undefined;

  constructor(
    private readonly method: string,
    private readonly count: NonNullable<Sending['count']>,
  ) {}

  /** @returns whether that was the last of it */
  take(bytes: Buffer): boolean {
    if (this.#length !== undefined) return this.#takeBody(bytes);
    this.#head = Buffer.concat([this.#head, bytes]);
    const end = this.#head.indexOf(END_OF_HEAD);
    if (end < 0) return false;
    const [first, ...fields] = this.#head.toString('latin1', 0, end).split('\r\n');
    this.#status = Number(first!.split(' ')[1]);
    for (const field of fields) {
      const colon = field.indexOf(':');
      this.#headers.set(field.slice(0, colon).toLowerCase(), field.slice(colon + 1).trim());
    }
    const bodiless = this.method === 'HEAD' || this.#status === 204;
    const chunked = this.#headers.get('transfer-encoding') === 'chunked';
    this.#length = bodiless ? 0 : chunked ? Number.POSITIVE_INFINITY : Number(this.#headers.get('content-length') ?? 0);
    return this.#takeBody(this.#head.subarray(end + END_OF_HEAD.length));
  }

  #takeBody(bytes: Buffer): boolean {
    this.#received += bytes.length;
    // What is given lies in the buffer of the connection, so what is kept is copied.
    if (!this.count || this.#status !== 200 || this.#length === Number.POSITIVE_INFINITY)
      this.#parts.push(Buffer.from(bytes));
    else if (typeof this.count === 'function') this.count(bytes);
    if (this.#length !== Number.POSITIVE_INFINITY) return this.#received >= this.#length!;
    const tail = Buffer.concat(this.#parts.slice(-LAST_CHUNK.length));
    return tail.subarray(-LAST_CHUNK.length).equals(LAST_CHUNK);
  }

  done(): Answer {
    const raw = Buffer.concat(this.#parts);
    const body = this.#length === Number.POSITIVE_INFINITY ? dechunked(raw) : raw;
    return { status: this.#status, headers: this.#headers, body, received: body.length || this.#received };
  }
}

function dechunked(raw: Buffer): Buffer {
  const parts: Buffer[] = [];
  for (let at = 0; ; ) {
    const line = raw.indexOf('\r\n', at);
    const size = Number.parseInt(raw.toString('latin1', at, line), 16);
    if (!(size > 0)) return Buffer.concat(parts);
    parts.push(raw.subarray(line + 2, line + 2 + size));
    at = line + 2 + size + 2;
  }
}
