import { createServer as createHttpServer, IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createHttpsServer, type Server as HttpsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import { setClientCertificate } from '../auth/client-certificate.js';
import { OperatorError, systemCode } from '../errors.js';
import { serialOf } from '../pki/x509.js';
import { type ClientTrust, clientFault, connectionFault, shownBy, verifiedCertificate } from './client-trust.js';
import { Connection, connectionOf, type GuardLimits, guard } from './guard.js';
import type { Log } from './log.js';
import { AppRequest, AppResponse } from './messages.js';
import {
  framingFault,
  parseRefusal,
  type Refusal,
  reasonOf,
  refusalBody,
  refuseSocket,
  toOriginForm,
  USE_HTTPS,
} from './refusal.js';
import { type KeyPair, secureContextOptions, type TlsSettings } from './tls.js';

export type Handler = (request: IncomingMessage, response: ServerResponse) => void;

/** All times in milliseconds. */
export interface ListenerLimits extends GuardLimits {
  readonly handshake: number;
  readonly headers: number;
  readonly keepAlive: number;
  readonly headerBytes: number;
}

/** A connection that sends nothing is gone after `handshake + headers + look`: within 30 s. */
const LIMITS: ListenerLimits = {
  handshake: 10_000,
  headers: 15_000,
  // Longer than the 60 s of proxies, which else reuse a connection just as it closes and answer 502.
  keepAlive: 75_000,
  headerBytes: 16 * 1024,
  minimumRate: 1024,
  pause: 60_000,
  longPause: 120_000,
  linger: 30_000,
  lingerBytes: 16 * 1024 * 1024,
  look: 4_000,
};

export interface ListenerOptions {
  /**
   * Has every well-formed request, its target in origin form, its body unread. `Expect: 100-continue` needs no care: the
   * client is told to go on when the handler first reads the body, and never where it answers without reading.
   */
  readonly handler: Handler;
  /** Told when a request that the handler had, or that was refused, is over, however it ended. */
  readonly onEnd?: Handler;
  readonly tls: TlsSettings | 'plain';
  readonly log: Log;
  readonly limits?: Partial<ListenerLimits>;
}

export interface Listener {
  /** @throws OperatorError where the address cannot be had, with what to do. */
  listen(address: { host: string; port: number }): Promise<AddressInfo>;
  /** New connections have this pair from now on. @throws OperatorError for a pair that cannot serve; the old one stays. */
  setCertificate(pair: KeyPair): void;
  /**
   * Clients are judged by this from now on. Open connections of a certificate that no longer passes are closed at once.
   * Only where `tls.clients` asked for certificates from the start. @throws OperatorError; then the old one stays.
   */
  setClientTrust(clients: ClientTrust): void;
  /**
   * Takes no new connection, closes the idle ones, and lets running requests finish, each the last of its connection.
   * Those that have not after `timeout` ms are cut off and counted.
   */
  drain(timeout: number): Promise<{ finished: boolean; aborted: number }>;
  /** Open connections, those in the handshake among them. */
  readonly connections: number;
}

/** @throws OperatorError for a certificate, key or cipher suite that cannot serve. */
export function createListener(options: ListenerOptions): Listener {
  const limits = { ...LIMITS, ...options.limits };
  return new HttpListener(makeServer(options.tls, limits), options, limits);
}

function makeServer(tls: TlsSettings | 'plain', limits: ListenerLimits): Server {
  const http = {
    IncomingMessage: AppRequest,
    ServerResponse: AppResponse,
    connectionsCheckingInterval: limits.look,
    headersTimeout: limits.headers,
    // Node's limit on a whole request would cut large uploads; the guard asks for a rate instead.
    requestTimeout: 0,
    keepAliveTimeout: limits.keepAlive,
    maxHeaderSize: limits.headerBytes,
    // `framingFault` answers it, in the same words as everything else.
    requireHostHeader: false,
    noDelay: true,
  };
  const server =
    tls === 'plain'
      ? createHttpServer(http)
      : createHttpsServer({
          ...http,
          ...secureContextOptions(tls),
          // An empty or HTTP/2-only offer fails in the handshake, not in a parser.
          ALPNProtocols: ['http/1.1'],
          handshakeTimeout: limits.handshake,
          requestCert: tls.clients !== undefined,
          // Node would complete the handshake all the same and then cut the connection, without a word to the client.
          rejectUnauthorized: false,
        });
  // By default Node drops header lines after the 2,000th; `maxHeaderSize` is limit enough.
  server.maxHeadersCount = 0;
  return server;
}

class HttpListener implements Listener {
  readonly #sockets = new Set<Socket>();
  readonly #clients = new Set<Connection>();
  readonly #log: Log;
  readonly #handler: Handler;
  readonly #onEnd: Handler | undefined;
  readonly #unguard: () => void;
  #draining: (() => void) | undefined;
  #tls: TlsSettings | 'plain';

  constructor(
    private readonly server: Server,
    options: ListenerOptions,
    private readonly limits: ListenerLimits,
  ) {
    this.#log = options.log;
    this.#handler = options.handler;
    this.#onEnd = options.onEnd;
    this.#tls = options.tls;
    this.#unguard = guard(this.#clients, limits, options.log);
    server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket);
      socket.once('close', () => this.#sockets.delete(socket));
    });
    server.on(options.tls === 'plain' ? 'connection' : 'secureConnection', (socket: Socket) => this.#welcome(socket));
    server.on('request', (request, response) => this.#request(request, response, false));
    server.on('checkContinue', (request, response) => this.#request(request, response, true));
    // Node would answer 417 by itself, past the handler and the guard; RFC 9110 §10.1.1 lets a server ignore it.
    server.on('checkExpectation', (request, response) => this.#request(request, response, false));
    server.on('connect', (_request, socket: Duplex) => this.#refuseConnect(socket));
    server.on('clientError', (error, socket) => this.#clientError(error, socket as Socket));
  }

  get connections(): number {
    return this.#sockets.size;
  }

  listen({ host, port }: { host: string; port: number }): Promise<AddressInfo> {
    const { server } = this;
    return new Promise((resolve, reject) => {
      const refused = (error: Error) => reject(listenError(error, host, port));
      server.once('error', refused);
      server.listen(port, host, () => {
        server.off('error', refused);
        // Out of file descriptors, say: connections that cannot be accepted must not end those that were.
        server.on('error', error => this.#log.error('cannot accept a connection', { error }));
        resolve(server.address() as AddressInfo);
      });
    });
  }

  setCertificate(pair: KeyPair): void {
    this.#changeTls(pair);
  }

  setClientTrust(clients: ClientTrust): void {
    this.#changeTls({ clients });
    for (const client of this.#clients) {
      const fault = client.shown && !client.refused && connectionFault(clients, client.shown);
      if (!fault) continue;
      const serial = serialOf(client.shown!.chain[0]!);
      this.#log.info('closed a connection', { remote: client.socket.remoteAddress, serial, reason: fault });
      client.socket.destroy();
    }
  }

  #changeTls(change: Partial<TlsSettings>): void {
    if (this.#tls === 'plain') throw new TypeError('a plain listener has no certificate');
    const next = { ...this.#tls, ...change };
    (this.server as HttpsServer).setSecureContext(secureContextOptions(next));
    this.#tls = next;
  }

  get #clientTrust(): ClientTrust | undefined {
    return this.#tls === 'plain' ? undefined : this.#tls.clients;
  }

  async drain(timeout: number): Promise<{ finished: boolean; aborted: number }> {
    const emptied = new Promise<void>(resolve => {
      this.#draining = () => {
        if (this.#openRequests() === 0) resolve();
      };
    });
    this.server.close();
    for (const { socket, open } of this.#clients) {
      if (open.size === 0) socket.destroySoon();
      for (const response of open) if (!response.headersSent) response.shouldKeepAlive = false;
    }
    this.#draining!();
    await within(timeout, emptied);
    const aborted = this.#openRequests();
    // The last bytes of finished answers have a moment to leave.
    if (aborted === 0)
      await within(
        Math.min(timeout, 1_000),
        closed(this.#clients, client => client.socket),
      );
    this.#unguard();
    for (const socket of this.#sockets) socket.destroy();
    await closed(this.#sockets, socket => socket);
    return { finished: aborted === 0, aborted };
  }

  #openRequests(): number {
    let open = 0;
    for (const client of this.#clients) open += client.open.size;
    return open;
  }

  #welcome(socket: Socket): void {
    const client = new Connection(socket, this.limits);
    this.#clients.add(client);
    socket.once('close', () => this.#clients.delete(client));
    const trust = this.#clientTrust;
    if (trust) {
      client.shown = shownBy(socket as TLSSocket);
      const certificate = verifiedCertificate(trust, client.shown);
      if (certificate) setClientCertificate(socket, certificate);
    }
    if (this.#draining) socket.destroy();
  }

  /** Before anything else is looked at, each time: a certificate ends, and so does a list of revoked ones. */
  #clientRefusal({ shown }: Connection): Refusal | undefined {
    const message = this.#clientTrust && shown && clientFault(this.#clientTrust, shown);
    return message === undefined ? undefined : { status: 403, message };
  }

  #request(request: IncomingMessage, response: ServerResponse, expecting: boolean): void {
    const client = connectionOf(request.socket)!;
    client.begin(request, response);
    response.on('close', () => {
      client.end(response);
      this.#onEnd?.(request, response);
      if (!this.#draining) return;
      if (client.open.size === 0) client.socket.destroySoon();
      this.#draining();
    });
    if (this.#draining) response.shouldKeepAlive = false;
    const refusal = this.#clientRefusal(client) ?? framingFault(request) ?? toOriginForm(request);
    if (refusal === undefined) {
      if (expecting) this.#continueWhenRead(request, response, client);
      this.#handler(request, response);
      return;
    }
    this.#logRefusal(request.socket, refusal);
    // Nobody can say where such a request ends, so the connection ends with it.
    response.writeHead(refusal.status, reasonOf(refusal), { 'Content-Type': 'application/json', Connection: 'close' });
    response.end(refusalBody(refusal));
  }

  #logRefusal(socket: Socket, { status, message }: Refusal): void {
    this.#log.info('refused a request', { remote: socket.remoteAddress, status, reason: message });
  }

  /**
   * RFC 9110 §10.1.1. Every way to read a stream comes down to its `_read`, so the first call says that the body is
   * wanted. A client that was answered instead may or may not send its body: the connection cannot be used again.
   */
  #continueWhenRead(request: IncomingMessage, response: ServerResponse, client: Connection): void {
    const keepAlive = response.shouldKeepAlive;
    response.shouldKeepAlive = false;
    client.expect(true);
    request._read = size => {
      request._read = IncomingMessage.prototype._read;
      if (!response.headersSent) {
        response.shouldKeepAlive = keepAlive && this.#draining === undefined;
        response.writeContinue();
      }
      client.expect(false);
      request._read(size);
    };
  }

  #refuseConnect(socket: Duplex): void {
    // Node has let go of this socket: without a listener its reset would end the process.
    socket.on('error', () => socket.destroy());
    socket.resume();
    refuseSocket(socket, { status: 405, message: 'this server is no proxy' });
    connectionOf(socket)?.refuse();
  }

  #clientError(error: Error, socket: Socket): void {
    const client = connectionOf(socket);
    if (client === undefined) {
      this.#handshakeFailed(error, socket);
      return;
    }
    // The parser goes on to complain about whatever follows the error.
    const refusal = parseRefusal(error);
    if (refusal !== undefined && client.refused) return;
    if (refusal === undefined || !client.mayRefuse) {
      socket.destroy();
      return;
    }
    this.#logRefusal(socket, refusal);
    client.refuse();
    refuseSocket(socket, refusal);
    // One that sent nothing in time has nothing under way that could turn the answer into a reset.
    if (refusal.status === 408) socket.destroySoon();
    // One that has ended its side may still read; what was written is with the kernel by now. Where it has reset the
    // connection meanwhile, TLS in Node never says so, and the descriptor would stay until the guard looks.
    if (socket.readableEnded) setImmediate(() => socket.destroy());
  }

  #handshakeFailed(error: Error, socket: Socket): void {
    const code = systemCode(error) ?? '';
    const remote = socket.remoteAddress;
    if (code === 'ERR_SSL_HTTP_REQUEST' || code === 'ERR_SSL_HTTPS_PROXY_REQUEST') {
      // The TCP socket below is still open during this event. Node does not document the way to it; without it the
      // client sees a close.
      (socket as { _parent?: Socket })._parent?.write(USE_HTTPS);
      this.#log.info('a client spoke plain HTTP to the HTTPS port', { remote });
    } else if (/ALERT_(UNKNOWN_CA|BAD_CERTIFICATE|CERTIFICATE_UNKNOWN|CERTIFICATE_EXPIRED)$/.test(code)) {
      this.#log.info('a client does not trust the certificate', {
        remote,
        alert: code.replace(/^.*ALERT_/, '').toLowerCase(),
      });
    } else {
      this.#log.debug('a TLS handshake failed', { remote, code: code || error.message });
    }
    socket.destroy();
  }
}

/** Resolves when every member has closed, and thereby left the set. */
async function closed<T>(members: ReadonlySet<T>, socketOf: (member: T) => Socket): Promise<void> {
  for (const member of members) await new Promise(resolve => socketOf(member).once('close', resolve));
}

/** Waits for the promise, at most `time` ms. */
async function within(time: number, promise: Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>(resolve => {
    timer = setTimeout(resolve, time);
  });
  await Promise.race([promise, late]);
  clearTimeout(timer);
}

/** What the operator can do about an error of `listen`; other errors as they are. */
export function listenError(error: Error, host: string, port: number, platform = process.platform): Error {
  const shownHost = host.includes(':') ? `[${host}]` : host;
  const address = `${shownHost}:${port}`;
  switch (systemCode(error)) {
    case 'EADDRINUSE':
      return new OperatorError(`port ${port} is in use (${address})`, { fix: portFix(port, platform), cause: error });
    case 'EACCES':
      return new OperatorError(`may not listen on ${address}: ports below 1024 need a privilege`, {
        fix: `choose another: --addr ${shownHost}:5000, or give Node the privilege: sudo setcap cap_net_bind_service=+ep ${process.execPath}`,
        cause: error,
      });
    case 'EADDRNOTAVAIL':
      return new OperatorError(`this machine has no address ${host}`, {
        fix: `listen on all addresses: --addr 0.0.0.0:${port}`,
        cause: error,
      });
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return new OperatorError(`cannot listen on ${address}: the name ${host} has no address`, {
        fix: `listen on all addresses: --addr 0.0.0.0:${port}`,
        cause: error,
      });
    case undefined:
      return error;
    default:
      return new OperatorError(`cannot listen on ${address} (${systemCode(error)})`, {
        fix: `listen on all addresses: --addr 0.0.0.0:${port}`,
        cause: error,
      });
  }
}

function portFix(port: number, platform: NodeJS.Platform): string {
  const other = `or choose another: --addr 0.0.0.0:${port < 65_535 ? port + 1 : 5000}`;
  if (platform !== 'darwin') return `find who holds it: ss -ltnp 'sport = :${port}', ${other}`;
  if (port === 5000 || port === 7000)
    return `on macOS it is AirPlay Receiver's: turn that off in System Settings, General, AirDrop & Handoff, ${other}`;
  return `find who holds it: lsof -nP -iTCP:${port} -sTCP:LISTEN, ${other}`;
}
