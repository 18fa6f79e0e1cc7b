import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { type AddressInfo, isIP } from 'node:net';
import { join } from 'node:path';
import { checkServerIdentity, connect, createServer } from 'node:tls';

/**
 * What a TLS client that trusts these authorities says to the pair in a folder when it asks for the host: undefined when
 * it is content, else its error.
 */
export async function clientOf(dir: string, ca: string, host: string): Promise<string | undefined> {
  const pair = { cert: readFileSync(join(dir, 'domain.crt')), key: readFileSync(join(dir, 'domain.key')) };
  const server = createServer(pair, socket => socket.end());
  server.on('tlsClientError', () => undefined);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const socket = connect({
    host: '127.0.0.1',
    port,
    ca,
    servername: isIP(host) === 0 ? host : '',
    // Connected to by its address, and judged by the name that was asked for.
    checkServerIdentity: (_address, peer) => checkServerIdentity(host, peer),
  });
  try {
    return await new Promise<string | undefined>(resolve => {
      socket.once('secureConnect', () => resolve(undefined));
      socket.once('error', error => resolve(error.message));
    });
  } finally {
    socket.destroy();
    server.close();
    await once(server, 'close');
  }
}
