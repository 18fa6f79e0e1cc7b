import { createServer } from 'node:net';

/** Below those that Linux gives to whoever connects or asks for any (net.ipv4.ip_local_port_range). */
const FIRST = 20_000;
const LAST = 32_000;
const OF_EACH_PROCESS = 20;

const first = FIRST + ((process.pid * OF_EACH_PROCESS) % (LAST - FIRST));
let given = 0;

/**
 * A port of loopback for a service that is told where to listen, and again where it is killed and started anew. Hardly anybody else is
 * given it meanwhile: the files of tests run in processes of their own, and those that run at once have others to give.
 */
export function freePort(): Promise<number> {
  return freePorts(1);
}

/** The first of some that follow each other. */
export async function freePorts(count: number): Promise<number> {
  if (count > OF_EACH_PROCESS) throw new Error(`${count} ports in a row`);
  for (;;) {
    const at = given % OF_EACH_PROCESS;
    if (at + count > OF_EACH_PROCESS) {
      given += OF_EACH_PROCESS - at;
      continue;
    }
    given += count;
    const ports = Array.from({ length: count }, (_, n) => first + at + n);
    if ((await Promise.all(ports.map(isFree))).every(Boolean)) return ports[0]!;
  }
}

function isFree(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const server = createServer().once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}
