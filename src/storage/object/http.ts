import http, { type IncomingMessage } from 'node:http';
import https from 'node:https';
import { type Agents, closeAgents, keptAgents } from '../agents.js';

interface Sent {
  readonly method: string;
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  /** In pieces that follow each other. */
  readonly body?: ReadonlyArray<Uint8Array | string> | undefined;
  /** Ends the request, and the answer as far as it was not read by then. */
  readonly signal: AbortSignal;
}

/** Requests over connections that are kept. A body that breaks off is an error, as not every client of HTTP has it. */
export class HttpClient {
  readonly #agents: Agents;

  constructor(options: { readonly skipVerify?: boolean } = {}) {
    this.#agents = keptAgents(options);
  }

  close(): void {
    closeAgents(this.#agents);
  }

  /** The answer, whose body is to be read or destroyed. */
  send({ method, url, headers, body, signal }: Sent): Promise<IncomingMessage> {
    const secure = url.protocol === 'https:';
    const agent = secure ? this.#agents.https : this.#agents.http;
    const pieces = body ?? [];
    const length = pieces.reduce((sum, piece) => sum + Buffer.byteLength(piece), 0);
    const isSized = body !== undefined || !['GET', 'HEAD', 'DELETE'].includes(method);
    const all = isSized ? { ...headers, 'content-length': String(length) } : headers;
    return new Promise((resolve, reject) => {
      const request = (secure ? https : http).request(url, { method, headers: all, agent, signal });
      request.once('response', resolve).once('error', reject);
      for (const piece of pieces) request.write(piece);
      request.end();
    });
  }
}
