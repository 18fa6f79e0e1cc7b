import { X509Certificate } from 'node:crypto';
import { lookup } from 'node:dns/promises';
import { type IncomingHttpHeaders, type IncomingMessage, request as requestHttp } from 'node:http';
import { request as requestHttps } from 'node:https';
import { connect as connectTcp, isIP, type Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { connect as connectTls, type SecureVersion } from 'node:tls';
import { systemCode } from '../errors.js';

/** What clients do on the wire, step by step, each step bounded in time and each failure told apart. */

/** How long one attempt may take, in ms. docker waits for longer, but not for something better. */
const PATIENCE = 5_000;
/** Old and weak servers are looked at as well. */
const ANY_CIPHER = 'DEFAULT:@SECLEVEL=0';
/** Of an answer, all that is looked at. */
const MOST_BODY = 64 * 1024;

/** One server, by the address that is tried and the name that it is asked for under. */
export interface Endpoint {
  readonly address: string;
  readonly port: number;
  /** As in the image reference, without the port: a name or an address. */
  readonly name: string;
}

export interface ClientPair {
  readonly cert: string | Buffer;
  readonly key: string | Buffer;
}

/** All addresses of a name, as the system gives them to programs. @throws Error with its system code */
export async function addressesOf(name: string): Promise<string[]> {
  if (isIP(name) !== 0) return [name];
  const found = await bounded(lookup(name, { all: true, verbatim: true }));
  return [...new Set(found.map(({ address }) => address))];
}

async function bounded<T>(promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(timedOut()), PATIENCE);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

const timedOut = (): Error => Object.assign(new Error(`no answer within ${PATIENCE / 1_000} s`), { code: 'ETIMEDOUT' });

/** Undefined when a connection can be made, else the system's code for why not. */
export async function refusalOf({ address, port }: Pick<Endpoint, 'address' | 'port'>): Promise<string | undefined> {
  const socket = connectTcp({ host: address, port });
  try {
    await opened(socket, 'connect');
    return undefined;
  } catch (error) {
    return systemCode(error) ?? (error as Error).message;
  } finally {
    socket.destroy();
  }
}

async function opened(socket: Duplex, event: string): Promise<void> {
  await bounded(
    new Promise<void>((resolve, reject) => {
      socket.once(event, () => resolve());
      socket.once('error', reject);
      socket.once('close', () => reject(Object.assign(new Error('closed'), { code: 'ECONNRESET' })));
    }),
  );
}

/** How a handshake went: what the server sent in it, also where it failed in the end. */
export interface Handshake {
  /** Such as `TLSv1.3`; undefined when there was none. */
  readonly version: string | undefined;
  /** The certificates just as they were sent. */
  readonly chain: readonly X509Certificate[];
  readonly asksForCertificate: boolean;
  /** OpenSSL's or the system's code. */
  readonly failure: string | undefined;
}

/**
 * A handshake in which nothing is verified. Of TLS 1.2 all is seen that the server sends in the clear; TLS 1.3 hides it, so
 * there the chain is in the order of its issuers, and the wish for a certificate of the client is not seen.
 */
export async function shakeHands(endpoint: Endpoint, version: SecureVersion, pair?: ClientPair): Promise<Handshake> {
  const raw = connectTcp({ host: endpoint.address, port: endpoint.port });
  const flight: Buffer[] = [];
  const socket = connectTls({
    socket: tapped(raw, chunk => flight.push(chunk)),
    servername: isIP(endpoint.name) === 0 ? endpoint.name : '',
    rejectUnauthorized: false,
    minVersion: version,
    maxVersion: version,
    ciphers: ANY_CIPHER,
    ...pair,
  });
  let failure: string | undefined;
  try {
    await opened(socket, 'secureConnect');
  } catch (error) {
    failure = systemCode(error) ?? (error as Error).message;
  }
  const seen = version === 'TLSv1.3' ? undefined : readFlight(Buffer.concat(flight));
  const chain = seen?.certificates ?? issuersOf(socket.getPeerX509Certificate());
  const result = { version: failure === undefined ? (socket.getProtocol() ?? version) : undefined, failure };
  socket.on('error', () => undefined).destroy();
  raw.on('error', () => undefined).destroy();
  return { ...result, chain, asksForCertificate: seen?.asksForCertificate ?? false };
}

/** The socket, with an ear on what comes in. */
function tapped(raw: Socket, hear: (chunk: Buffer) => void): Duplex {
  const duplex = new Duplex({
    read: () => void raw.resume(),
    write: (chunk, _encoding, done) => void raw.write(chunk, () => done()),
    final: done => void raw.end(done),
    destroy: (error, done) => {
      raw.destroy();
      done(error);
    },
  });
  raw.on('data', chunk => {
    hear(chunk);
    if (!duplex.push(chunk)) raw.pause();
  });
  raw.on('end', () => duplex.push(null));
  raw.on('error', error => duplex.destroy(error));
  return duplex;
}

const [CHANGE_CIPHER_SPEC, HANDSHAKE] = [20, 22];
const [CERTIFICATE, CERTIFICATE_REQUEST] = [11, 13];

/** What a TLS 1.2 server sends before it encrypts (RFC 5246 sections 6.2.1 and 7.4). */
function readFlight(bytes: Buffer): { certificates: X509Certificate[]; asksForCertificate: boolean } {
  const messages: Buffer[] = [];
  for (let at = 0; at + 5 <= bytes.length && bytes[at] !== CHANGE_CIPHER_SPEC; at += 5 + bytes.readUInt16BE(at + 3))
    if (bytes[at] === HANDSHAKE) messages.push(bytes.subarray(at + 5, at + 5 + bytes.readUInt16BE(at + 3)));
  const flight = Buffer.concat(messages);
  const certificates: X509Certificate[] = [];
  let asksForCertificate = false;
  for (let at = 0; at + 4 <= flight.length; at += 4 + flight.readUIntBE(at + 1, 3)) {
    if (flight[at] === CERTIFICATE_REQUEST) asksForCertificate = true;
    if (flight[at] !== CERTIFICATE) continue;
    const list = flight.subarray(at + 7, at + 4 + flight.readUIntBE(at + 1, 3));
    for (let place = 0; place + 3 <= list.length; place += 3 + list.readUIntBE(place, 3))
      certificates.push(new X509Certificate(list.subarray(place + 3, place + 3 + list.readUIntBE(place, 3))));
  }
  return { certificates, asksForCertificate };
}

function issuersOf(leaf: X509Certificate | undefined): X509Certificate[] {
  const chain: X509Certificate[] = [];
  for (let link = leaf; link && !chain.some(one => one.raw.equals(link!.raw)); link = link.issuerCertificate)
    chain.push(link);
  return chain;
}

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

interface Question {
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly pair?: ClientPair | undefined;
  /** Authorities as PEM: only a server that they vouch for is asked at all. Without them nothing is verified. */
  readonly ca?: readonly string[];
}

/** Asks over TLS. @throws Error with a system or OpenSSL code */
export function ask(endpoint: Endpoint, { path, headers = {}, pair, ca }: Question): Promise<Answer> {
  const request = requestHttps({
    host: endpoint.address,
    port: endpoint.port,
    path,
    agent: false,
    headers: { Host: hostHeader(endpoint), ...headers },
    servername: isIP(endpoint.name) === 0 ? endpoint.name : '',
    ciphers: ANY_CIPHER,
    ...pair,
    ...(ca ? { ca: [...ca] } : { rejectUnauthorized: false, checkServerIdentity: () => undefined }),
  });
  return answerTo(request);
}

/** Asks in the clear. @throws Error with a system code, also where what answers does not speak HTTP */
export function askPlainly(endpoint: Endpoint, path: string): Promise<Answer> {
  const { address: host, port } = endpoint;
  return answerTo(requestHttp({ host, port, path, agent: false, headers: { Host: hostHeader(endpoint) } }));
}

function hostHeader({ name, port }: Endpoint): string {
  return `${isIP(name) === 6 ? `[${name}]` : name}:${port}`;
}

async function answerTo(request: ReturnType<typeof requestHttp>): Promise<Answer> {
  request.on('error', () => undefined);
  const answered = new Promise<Answer>((resolve, reject) => {
    request.once('error', reject);
    request.once('response', (response: IncomingMessage) => {
      let body = '';
      response.setEncoding('latin1').on('data', text => {
        body = (body + text).slice(0, MOST_BODY);
      });
      response.once('error', reject);
      response.once('close', () => resolve({ status: response.statusCode!, headers: response.headers, body }));
    });
    request.end();
  });
  return bounded(answered).finally(() => request.destroy());
}
