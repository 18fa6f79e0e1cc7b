import type { IncomingMessage, ServerResponse } from 'node:http';
import { Socket } from 'node:net';
import type { Shown } from './client-trust.js';
import type { Log } from './log.js';

/** How long a client may take. Milliseconds, but for `minimumRate` and `lingerBytes`. */
export interface GuardLimits {
  /** Bytes per second that keep a transfer alive, in sending a body or in taking an answer. */
  readonly minimumRate: number;
  /** How long a transfer may fall short of that rate, and how long once `allowPause` was called. */
  readonly pause: number;
  readonly longPause: number;
  /** How long a client that has its answer may go on to send a body that nobody reads. */
  readonly linger: number;
  /** How many bytes of that body are read away. */
  readonly lingerBytes: number;
  /** Time between two looks at all connections. */
  readonly look: number;
}

/** Time between two looks at a client that goes on sending what nobody reads (ms). */
const LINGER_LOOK = 50;

/** A client whose request was refused unheard has this long to read why (ms). */
const REFUSED = 5_000;

const byStream = new WeakMap<object, Connection>();

/** The connection of an open socket; undefined before its TLS handshake is done. */
export function connectionOf(socket: object): Connection | undefined {
  return byStream.get(socket);
}

/** Gives the client of this request the long pause. To be called when it has authenticated. */
export function allowPause(request: IncomingMessage): void {
  connectionOf(request.socket)?.allowPause();
}

/** One client, its open requests, and the time it has left. */
export class Connection {
  /** Answers that are not complete: more than one only where the client pipelines. */
  readonly open = new Set<ServerResponse>();
  /** The client was refused, and only has to go. */
  refused = false;
  /** The certificates that the client has shown; undefined where none are asked for. */
  shown: Shown | undefined;
  #request: IncomingMessage | undefined;
  #expecting = false;
  #deadline = Number.POSITIVE_INFINITY;
  #allowance: number;
  #credit: number;
  #moved = 0;

  constructor(
    readonly socket: Socket,
    private readonly limits: GuardLimits,
  ) {
    this.#allowance = limits.pause;
    this.#credit = limits.pause;
    byStream.set(socket, this);
    // Where an answer ends the connection before its body has arrived, Node closes with bytes unread. The kernel then
    // resets the connection, and the client may never see the answer. So the last word is said and the rest read away.
    socket.destroySoon = () => {
      if (!this.#unread) return Socket.prototype.destroySoon.call(socket);
      socket.end();
      this.#leaveWithin(limits.linger);
    };
    // Node ends its side too, and closes once all is written. Of what it writes in the turn in which it hears of the end it
    // may never hear that it has left, and would keep the socket.
    socket.once('end', () => setImmediate(() => this.#closeWhenFlushed()));
  }

  /** Whether a refusal can be written: no other answer is on the wire, and none must come before it. */
  get mayRefuse(): boolean {
    if (this.refused || !this.socket.writable) return false;
    if (this.open.size === 0) return true;
    return this.#unread && this.open.size === 1 && ![...this.open][0]!.headersSent;
  }

  begin(request: IncomingMessage, response: ServerResponse): void {
    this.#request = request;
    this.#expecting = false;
    this.#deadline = Number.POSITIVE_INFINITY;
    this.#credit = this.#allowance;
    this.open.add(response);
  }

  /** The client waits for `100 Continue`, or no longer: until then it owes nothing. */
  expect(waiting: boolean): void {
    this.#expecting = waiting;
  }

  /** Whatever the handler left of the body is read away, or the next request would never be seen. */
  end(response: ServerResponse): void {
    this.open.delete(response);
    // Not the connection's: where the last of a long answer leaves late, the client's next request has begun by now.
    const request = response.req;
    if (request.complete || this.socket.destroyed) return;
    request.resume();
    // By then the client has had the time to see its answer, if it ever looks. It is looked at by a timer: Node tells of
    // no data of a request that was answered, and a listener on the socket would take it away from the parser.
    const most = this.socket.bytesRead + this.limits.lingerBytes;
    const timer = setInterval(() => {
      if (request.complete || this.socket.destroyed) clearInterval(timer);
      else if (this.socket.bytesRead > most) this.socket.destroy();
    }, LINGER_LOOK).unref();
    this.#leaveWithin(this.limits.linger);
  }

  refuse(): void {
    this.refused = true;
    this.#leaveWithin(REFUSED);
  }

  allowPause(): void {
    this.#credit += this.limits.longPause - this.#allowance;
    this.#allowance = this.limits.longPause;
  }

  /** Charges `elapsed` ms to a client that we wait for. Says why it must go, or undefined. */
  look(now: number, elapsed: number): string | undefined {
    if (now >= this.#deadline) return 'it was answered and did not leave';
    const moved = progress(this.socket);
    const earned = ((moved - this.#moved) / this.limits.minimumRate) * 1000;
    this.#moved = moved;
    this.#credit = this.#owes ? Math.min(this.#allowance, this.#credit - elapsed + earned) : this.#allowance;
    return this.#credit > 0 ? undefined : 'it stalled';
  }

  /** We wait for the client, not it for us: it does not take its answer, or we have read all it sent of its body. */
  get #owes(): boolean {
    if (this.socket.writableLength > 0) return true;
    return this.#unread && !this.#expecting && this.#request!.readableLength === 0;
  }

  get #unread(): boolean {
    return this.#request !== undefined && !this.#request.complete;
  }

  #closeWhenFlushed(): void {
    const { socket } = this;
    const { writeQueueSize } = handleOf(socket) ?? {};
    if (socket.writableEnded && !socket.destroyed && !this.#unread && writeQueueSize === 0) socket.destroy();
  }

  #leaveWithin(time: number): void {
    this.#deadline = Math.min(this.#deadline, performance.now() + time);
  }
}

interface Handle {
  readonly bytesWritten?: number;
  readonly writeQueueSize?: number;
}

/** Below TLS, of what Node has no documents. */
function handleOf(socket: Socket): Handle | null | undefined {
  return (((socket as { _parent?: unknown })._parent ?? socket) as { _handle?: Handle | null })._handle;
}

/** Bytes that came in, and bytes that the kernel has taken from us: both grow only while the client moves. */
function progress(socket: Socket): number {
  // The handle knows how much of one large write is gone. Without it, a write counts when it is whole, which asks more of
  // a slow client but loses nothing else.
  const { bytesWritten, writeQueueSize } = handleOf(socket) ?? {};
  const gone =
    bytesWritten === undefined || writeQueueSize === undefined
      ? socket.bytesWritten - socket.writableLength
      : bytesWritten - writeQueueSize;
  return socket.bytesRead + gone;
}

/** Looks at all connections with one coarse timer, so that a chunk costs nothing. Returns what ends it. */
export function guard(connections: Iterable<Connection>, limits: GuardLimits, log: Log): () => void {
  let last = performance.now();
  const timer = setInterval(() => {
    const now = performance.now();
    // A process that was suspended, or busy, must not charge its own absence to its clients.
    const elapsed = Math.min(now - last, 2 * limits.look);
    last = now;
    for (const connection of connections) {
      const { socket } = connection;
      const fault = connection.look(now, elapsed);
      if (fault === undefined) continue;
      log.info('dropped a client', { remote: socket.remoteAddress, reason: fault, requests: connection.open.size });
      socket.destroy();
    }
  }, limits.look);
  timer.unref();
  return () => clearInterval(timer);
}
