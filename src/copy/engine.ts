import { once } from 'node:events';
import { type ClientRequest, type IncomingMessage, request } from 'node:http';
import { OperatorError, systemCode } from '../errors.js';
import { membersOf } from './files.js';

/** The Docker Engine that docker itself talks to, by its API (docs.docker.com/reference/api/engine), over a Unix socket. */
export class Engine {
  private constructor(readonly socket: string) {}

  /** As docker finds it: by DOCKER_HOST, or at its usual place. @throws OperatorError for what is no Unix socket */
  static find(env: NodeJS.ProcessEnv): Engine {
    const { DOCKER_HOST = '' } = env;
    if (DOCKER_HOST === '') return new Engine('/var/run/docker.sock');
    const [, socket] = /^unix:\/\/(\/.+)$/.exec(DOCKER_HOST) ?? [];
    if (socket !== undefined) return new Engine(socket);
    throw new OperatorError(`DOCKER_HOST is ${DOCKER_HOST}, and only an Engine of this machine can be asked`, {
      fix: 'set it to unix:///PATH/OF/THE.sock, or run this where the Engine is',
    });
  }

  /** @returns undefined where there is no such thing */
  async get(path: string): Promise<unknown> {
    const answer = await this.stream(path);
    if (!answer) return undefined;
    const text = await this.#textOf(answer);
    try {
      return JSON.parse(text);
    } catch (cause) {
      throw new OperatorError(`the Docker Engine answers ${path} with what is no JSON`, { cause });
    }
  }

  /** The same, for what is not read at once. */
  async stream(path: string): Promise<IncomingMessage | undefined> {
    const answer = await this.#ask(path);
    if (answer.statusCode === 200) return answer;
    const text = await this.#textOf(answer);
    if (answer.statusCode === 404) return undefined;
    throw this.#refused(text, answer.statusCode);
  }

  /** Has the Engine load an archive. @param send writes it, each time waiting until the chunk has left */
  async load(send: (write: (chunk: Uint8Array) => Promise<void>) => Promise<void>): Promise<void> {
    const asked = this.#request('POST', '/images/load?quiet=1', { 'Content-Type': 'application/x-tar' });
    const answered = this.#answered(asked);
    const closed = new Promise<void>(resolve => asked.once('close', resolve));
    const sent = send(async chunk => {
      await Promise.race([new Promise<void>(left => asked.write(chunk, () => left())), closed]);
      if (asked.destroyed) throw brokenOff();
    }).then(
      () => void asked.end(),
      (error: unknown) => {
        const isOurs = !asked.destroyed;
        asked.destroy();
        return { error, isOurs };
      },
    );
    const ended = sent.then(failure => {
      if (failure?.isOurs) throw failure.error;
      // Where the Engine has ended it, its answer says why.
      return answered;
    });
    const answer = await Promise.race([answered, ended]);
    const { text, broken } = await received(answer);
    // It may answer before it is done: what fails then stands in a line of its own.
    const told = errorIn(text);
    if (answer.statusCode !== 200 || told !== undefined) {
      // Who is refused need not send the rest.
      asked.destroy();
      throw this.#refused(told ?? text, answer.statusCode);
    }
    const failure = await sent;
    if (failure) throw failure.error;
    if (broken) throw broken;
  }

  async #textOf(answer: IncomingMessage): Promise<string> {
    const { text, broken } = await received(answer);
    if (broken) throw broken;
    return text;
  }

  async #ask(path: string): Promise<IncomingMessage> {
    const asked = this.#request('GET', path);
    asked.end();
    return this.#answered(asked);
  }

  #request(method: string, path: string, headers: Readonly<Record<string, string>> = {}): ClientRequest {
    const options = { socketPath: this.socket, method, path, headers: { Host: 'docker', ...headers }, agent: false };
    return request(options).on('error', () => {});
  }

  async #answered(asked: ClientRequest): Promise<IncomingMessage> {
    try {
      const [answer] = await once(asked, 'response');
      return answer as IncomingMessage;
    } catch (error) {
      throw this.#unreached(error);
    }
  }

  #refused(text: string, status: number | undefined): OperatorError {
    let message = text.trim();
    try {
      message = String(membersOf(JSON.parse(text)).message ?? message);
    } catch {
      // A line of text will do.
    }
    return new OperatorError(`the Docker Engine says: ${message.slice(0, 500) || `status ${status}`}`);
  }

  #unreached(cause: unknown): OperatorError {
    const code = systemCode(cause);
    return new OperatorError(`no Docker Engine answers at ${this.socket} (${code})`, {
      fix:
        code === 'EACCES'
          ? 'run this as root, or as a member of the group docker'
          : 'start it, or set DOCKER_HOST=unix:///PATH/OF/THE.sock',
      cause,
    });
  }
}

/** What has come of an answer, also of one that breaks off. */
async function received(answer: IncomingMessage): Promise<{ text: string; broken?: OperatorError }> {
  const chunks: Buffer[] = [];
  const text = () => Buffer.concat(chunks).toString('utf8');
  try {
    for await (const chunk of answer as AsyncIterable<Buffer>) chunks.push(chunk);
    return { text: text() };
  } catch (cause) {
    return { text: text(), broken: brokenOff(cause) };
  }
}

function brokenOff(cause?: unknown): OperatorError {
  return new OperatorError('the Docker Engine has broken off', {
    fix: 'see what it says: journalctl -u docker',
    cause,
  });
}

/** Of an answer in lines of JSON, the first error. */
function errorIn(text: string): string | undefined {
  const lines = text.split('\n').filter(line => line.includes('"error":'));
  return lines.map(errorOf).find(error => error !== undefined);
}

function errorOf(line: string): string | undefined {
  try {
    const { error } = membersOf(JSON.parse(line));
    return error === undefined ? undefined : String(error);
  } catch {
    // It has broken off in the middle of that line.
    return line;
  }
}
