import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { connect as connectTcp, isIP, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import type { Client } from 'ldapts';

export interface LdapServer {
  /** `ldap://HOST:PORT` or `ldaps://HOST:PORT`. */
  readonly url: string;
  /** Whether TLS begins within the connection, before anything else is said. */
  readonly startTls: boolean;
  /** The file of the authorities that its certificate may be from (PEM); those of the system unless given. */
  readonly authorities: string | undefined;
  /** For the connection, and for each answer. In milliseconds. */
  readonly timeout: number;
}

export interface Connection {
  readonly client: Client;
  readonly isOpen: boolean;
  close(): void;
}

/** A connection to a directory, whose server is the one that was meant where TLS says so. Nobody is bound yet. */
export async function connectLdap(server: LdapServer): Promise<Connection> {
  const { url, startTls, authorities, timeout } = server;
  const { protocol, hostname, port } = new URL(url);
  const tls = protocol === 'ldaps:' || startTls;
  const host = hostname.replace(/^\[|\]$/g, '');
  // Loaded here, so that who has no directory never loads it.
  const [{ Client }, ca] = await Promise.all([
    import('ldapts'),
    authorities === undefined ? undefined : readFile(authorities),
  ]);
  const plain = connectTcp({
    host,
    port: Number(port) || (protocol === 'ldaps:' ? 636 : 389),
    keepAlive: true,
    noDelay: true,
  });
  // What goes wrong is heard where it is waited for, and never ends the process.
  plain.on('error', () => {});
  const timer = setTimeout(() => plain.destroy(new Error(`no answer within ${timeout} ms`)), timeout);
  let socket: Socket = plain;
  try {
    await once(plain, 'connect');
    if (startTls) await requestTls(plain);
    if (tls) {
      socket = connectTls({
        socket: plain,
        host,
        ...(isIP(host) === 0 && { servername: host }),
        ...(ca && { ca }),
        minVersion: 'TLSv1.2',
      });
      socket.on('error', () => {});
      plain.on('error', error => socket.destroy(error));
      await once(socket, 'secureConnect');
    }
  } catch (error) {
    socket.destroy();
    plain.destroy();
    throw error;
  } finally {
    clearTimeout(timer);
  }
  let given = false;
  const client = new Client({
    url: `ldap://${hostname}`,
    timeout,
    // It would connect anew by itself, without TLS and with nobody bound.
    createConnection: () => {
      if (given) throw new Error('the connection is closed');
      given = true;
      return socket;
    },
  });
  return {
    client,
    get isOpen() {
      return !socket.destroyed && (!given || client.isConnected);
    },
    close: () => void socket.on('error', () => {}).destroy(),
  };
}

/** RFC 4511 section 4.14.1, as message 1. */
const START_TLS = Buffer.from('\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037', 'latin1');

/**
 * Asks for TLS, and takes one answer and not a byte more: what somebody on the way has added to it in the clear must not
 * be read later as if it had come by TLS.
 */
async function requestTls(socket: Socket): Promise<void> {
  socket.write(START_TLS);
  let answer = Buffer.alloc(0);
  for (let length = lengthOf(answer); length === undefined || answer.length < length; length = lengthOf(answer)) {
    const [more] = (await once(socket, 'data')) as [Buffer];
    answer = Buffer.concat([answer, more]);
    if (answer.length > 4096) throw new Error('the answer to StartTLS is too long');
  }
  socket.pause();
  socket.removeAllListeners('data');
  if (answer.length !== lengthOf(answer)) throw new Error('more than an answer came before TLS');
  // SEQUENCE { INTEGER 1, [APPLICATION 24] { ENUMERATED resultCode, …
  const body = answer.subarray(headerOf(answer));
  const response = body.subarray(3);
  const code = response.subarray(headerOf(response));
  if (body[0] !== 2 || body[1] !== 1 || body[2] !== 1 || response[0] !== 0x78 || code[0] !== 10 || code[1] !== 1)
    throw new Error('the answer to StartTLS is none');
  if (code[2] !== 0) throw new Error(`the server refuses StartTLS (result code ${code[2]})`);
}

/** Bytes of tag and length of a BER element. */
const headerOf = (bytes: Buffer): number => (bytes[1]! < 0x80 ? 2 : 2 + (bytes[1]! & 0x7f));

/** Bytes of the whole element; undefined while too little of it is there. */
function lengthOf(bytes: Buffer): number | undefined {
  if (bytes.length < 2 || bytes.length < headerOf(bytes)) return undefined;
  const size = headerOf(bytes) === 2 ? bytes[1]! : bytes.readUIntBE(2, Math.min(headerOf(bytes) - 2, 6));
  return headerOf(bytes) + size;
}
