import { once } from 'node:events';
import { connect as connectTcp, type Socket } from 'node:net';
import type { TestContext } from 'node:test';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import type { ClientTrust } from '../../src/server/client-trust.js';
import { createListener, type Handler, type Listener, type ListenerLimits } from '../../src/server/listener.js';
import type { Fields, Log, LogLevel } from '../../src/server/log.js';
import { selfSigned } from './pair.js';

/** One certificate for all tests of a file that need any. */
export const PAIR = selfSigned();

export interface Serving {
  readonly listener: Listener;
  readonly port: number;
  /** Every line that the listener logged. */
  readonly lines: ReadonlyArray<{ level: LogLevel; message: string; fields: Fields | undefined }>;
}

/** A listener on a free port of the loopback interface, closed at the end of the test. */
export async function serve(
  t: TestContext,
  handler: Handler,
  options: { limits?: Partial<ListenerLimits>; plain?: boolean; pair?: typeof PAIR; clients?: ClientTrust } = {},
): Promise<Serving> {
  const lines: Array<{ level: LogLevel; message: string; fields: Fields | undefined }> = [];
  const listener = createListener({
    handler,
    tls: options.plain
      ? 'plain'
      : { ...(options.pair ?? PAIR), minimumVersion: 'tls1.2', ...(options.clients && { clients: options.clients }) },
    log: memoryLog(lines),
    limits: options.limits ?? {},
  });
  const { port } = await listener.listen({ host: '127.0.0.1', port: 0 });
  t.after(() => listener.drain(0));
  return { listener, port, lines };
}

export function memoryLog(lines: Array<{ level: LogLevel; message: string; fields: Fields | undefined }>): Log {
  const at = (level: LogLevel) => (message: string, fields?: Fields) => void lines.push({ level, message, fields });
  return { error: at('error'), warn: at('warn'), info: at('info'), debug: at('debug') };
}

export async function tls(port: number): Promise<TLSSocket> {
  const socket = connectTls({ port, host: '127.0.0.1', ca: PAIR.certificate });
  await once(socket, 'secureConnect');
  return socket;
}

export async function tcp(port: number): Promise<Socket> {
  const socket = connectTcp(port, '127.0.0.1');
  await once(socket, 'connect');
  return socket;
}

/** Everything that the other side says until it closes; a reset ends it too, and is told at the end as `<CODE>`. */
export async function all(socket: Socket): Promise<string> {
  let text = '';
  socket.on('data', chunk => {
    text += chunk;
  });
  socket.on('error', (error: NodeJS.ErrnoException) => {
    text += `<${error.code}>`;
  });
  if (!socket.closed) await new Promise(resolve => socket.once('close', resolve));
  return text;
}

/** Sends the text and hands back what comes, until the other side closes. */
export function say(socket: Socket, text: string): Promise<string> {
  socket.write(text);
  return all(socket);
}

/** Resolves when what comes contains the text; fails when the connection closes before. */
export async function until(socket: Socket, wanted: string): Promise<string> {
  let text = '';
  const closed = () => new Error(`closed before ${wanted}: ${text}`);
  if (socket.closed) throw closed();
  return new Promise((resolve, reject) => {
    // One listener for all of it: of several chunks in one turn, one that comes and goes would miss some.
    const look = (chunk: Buffer) => {
      text += chunk;
      if (text.includes(wanted)) end(() => resolve(text));
    };
    const gone = () => end(() => reject(closed()));
    const end = (settle: () => void) => {
      socket.off('data', look).off('close', gone);
      settle();
    };
    socket.on('data', look).once('close', gone);
  });
}
