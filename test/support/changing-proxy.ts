import { once } from 'node:events';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { buffer } from 'node:stream/consumers';

/** Stands before an object store on loopback, and flips a bit in what is written through it. */
export class ChangingProxy {
  private constructor(private readonly server: http.Server) {}

  /** @param size how many bytes a body has, at the least, to be changed */
  static async start(target: number, size: number): Promise<ChangingProxy> {
    const server = http.createServer(async (request, response) => {
      const { method, url: path, headers } = request;
      const body = await buffer(request);
      if (body.length >= size) body[body.length >> 1]! ^= 1;
      const onward = http.request({ host: '127.0.0.1', port: target, method, path, headers }).end(body);
      const [answer] = (await once(onward, 'response')) as [http.IncomingMessage];
      response.writeHead(answer.statusCode!, answer.headers);
      answer.pipe(response);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return new ChangingProxy(server);
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  async stop(): Promise<void> {
    this.server.closeAllConnections();
    this.server.close();
    await once(this.server, 'close');
  }
}
