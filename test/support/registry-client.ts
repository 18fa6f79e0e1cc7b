import type { IncomingHttpHeaders, IncomingMessage, OutgoingHttpHeaders } from 'node:http';
import https from 'node:https';

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

/** The connection broke before the answer was whole: nobody can say whether the request was executed. */
export class Lost extends Error {
  override readonly name = 'Lost';
}

/** The registry has answered something else than was asked for. */
export class Refused extends Error {
  override readonly name = 'Refused';
  constructor(
    message: string,
    readonly answer: Answer,
  ) {
    super(message);
  }
}

/** A client of a registry on loopback: TLS, verified, with a user and connections that are kept. */
export class RegistryClient {
  readonly #agent: https.Agent;

  constructor(
    /** Where the registry listens: elsewhere, perhaps, once it was started again. */
    public port: number,
    readonly options: { readonly ca: Buffer; readonly auth: string },
  ) {
    this.#agent = new https.Agent({ keepAlive: true, ca: options.ca });
  }

  /** Sends a request whose body is chunked where the headers say so. @throws Lost */
  async send(
    method: string,
    path: string,
    { headers = {}, body }: { headers?: OutgoingHttpHeaders; body?: Buffer } = {},
  ): Promise<Answer> {
    const request = https.request({
      host: '127.0.0.1',
      port: this.port,
      method,
      path,
      auth: this.options.auth,
      agent: this.#agent,
      headers: { ...(!('transfer-encoding' in headers) && { 'content-length': body?.length ?? 0 }), ...headers },
    });
    try {
      const answered = new Promise<IncomingMessage>((resolve, reject) => {
        request.once('response', resolve);
        // Also after the answer: a server that is killed resets what is still being sent.
        request.on('error', reject);
      });
      request.end(body);
      const response = await answered;
      const chunks: Buffer[] = [];
      for await (const chunk of response) chunks.push(chunk as Buffer);
      return { status: response.statusCode!, headers: response.headers, body: Buffer.concat(chunks) };
    } catch (error) {
      throw new Lost(`${method} ${path}: ${(error as Error).message}`, { cause: error });
    }
  }

  /** The answer, which must have one of the statuses. @throws Lost, Refused */
  async must(
    statuses: number | readonly number[],
    method: string,
    path: string,
    options?: { headers?: OutgoingHttpHeaders; body?: Buffer },
  ): Promise<Answer> {
    const answer = await this.send(method, path, options);
    if (![statuses].flat().includes(answer.status))
      throw new Refused(
        `${method} ${path}: ${answer.status} instead of ${statuses}: ${answer.body.subarray(0, 500)}`,
        answer,
      );
    return answer;
  }

  close(): void {
    this.#agent.destroy();
  }
}
