import type { IncomingHttpHeaders } from 'node:http';
import { request } from 'node:https';
import { isIP } from 'node:net';
import { type Command, Option } from 'commander';
import { OperatorError } from '../errors.js';
import { addressOf, mistrust } from '../trust/fetch.js';
import { authoritiesOf, keptLogin, type Login, loginFiles } from './logins.js';
import { usage } from './options.js';
import { readPassword } from './password.js';

/** How long a registry may take to answer (ms). */
const PATIENCE = 60_000;
/** No answer of the API is larger (bytes). */
const LARGEST = 16 * 1024 * 1024;

interface ServerOptions {
  readonly dir: string;
  readonly server?: string;
  readonly ca?: string;
  readonly as?: string;
  readonly asPasswordFile?: string;
  readonly asPasswordStdin?: boolean;
}

/** The options by which a command works on a running registry, through its API, in place of files of this machine. */
export function withServer(command: Command): Command {
  return command
    .option('--server <host>', 'HOST[:PORT] of a running registry, to do this through its API')
    .option('--ca <file>', 'the authority of --server (default: that in --dir, and those of this machine)')
    .option('--as <user>', 'who to log in as at --server (default: the login that docker keeps for it)')
    .addOption(
      new Option('--as-password-file <file>', 'read the password of --as from a file').env(
        'REGISTRY_SECURE_PASSWORD_FILE',
      ),
    )
    .addOption(
      new Option('--as-password-stdin', 'read the password of --as from standard input').conflicts('passwordStdin'),
    );
}

/** Options about files of this machine, which a registry elsewhere cannot see. */
const LOCAL = new Set(['config', 'root', 'groups', 'group']);

/** The registry that a command names with --server; undefined where it names none. @throws OperatorError */
export async function remoteOf(command: Command): Promise<Remote | undefined> {
  const options = command.opts<ServerOptions>();
  const { server: host } = options;
  if (host === undefined) {
    const given = ['ca', 'as', 'asPasswordStdin'].find(name => command.getOptionValueSource(name) === 'cli');
    if (given !== undefined) throw usage('--ca and --as are about --server', 'name it');
    return undefined;
  }
  const local = command.options.find(
    option => LOCAL.has(option.attributeName()) && command.getOptionValueSource(option.attributeName()) === 'cli',
  );
  if (local)
    throw usage(
      `${local.long} and --server do not go together`,
      `${local.long} is about this machine; leave one of them out`,
    );
  if (host.includes('://')) throw usage('--server takes no URL', 'write HOST or HOST:PORT');
  addressOf(host);
  return new Remote(host, await authoritiesOf(options), () => loginOf(host, options));
}

interface RemoteAnswer<T> {
  readonly value: T;
  readonly headers: IncomingHttpHeaders;
}

/** The API of one registry, for one user. */
export class Remote {
  #login: Promise<Login> | undefined;

  /** @param whoAsks finds it out, once it has to be known */
  constructor(
    readonly host: string,
    private readonly ca: readonly (string | Buffer)[],
    private readonly whoAsks: () => Promise<Login>,
  ) {}

  /** Who this is for. @throws OperatorError where nobody says so */
  get login(): Promise<Login> {
    this.#login ??= this.whoAsks();
    return this.#login;
  }

  /** The same registry, for somebody else. */
  as(login: Login): Remote {
    return new Remote(this.host, this.ca, async () => login);
  }

  /**
   * @param path below `/api/v1`
   * @throws OperatorError with what the registry says; `Refused` where it does not take the login
   */
  async ask<T = unknown>(
    method: string,
    path: string,
    { body, headers = {} }: { body?: unknown; headers?: Readonly<Record<string, string>> } = {},
  ): Promise<RemoteAnswer<T>> {
    return this.#send(method, `/api/v1${path}`, headers, body === undefined ? undefined : JSON.stringify(body));
  }

  /** All entries of a paged list. @param key where they are in an answer */
  async all<T>(path: string, key: string): Promise<T[]> {
    const entries: T[] = [];
    for (let next: string | undefined = `/api/v1${path}`; next !== undefined; ) {
      const { value, headers }: RemoteAnswer<Record<string, T[]>> = await this.#send('GET', next, {}, undefined);
      entries.push(...value[key]!);
      next = /^<([^>]*)>; rel="next"$/.exec(String(headers.link ?? ''))?.[1];
    }
    return entries;
  }

  async #send<T>(
    method: string,
    path: string,
    more: Readonly<Record<string, string>>,
    body: string | undefined,
  ): Promise<RemoteAnswer<T>> {
    const { hostname, port } = addressOf(this.host);
    const { user, password } = await this.login;
    const { status, headers, data } = await new Promise<{ status: number; headers: IncomingHttpHeaders; data: Buffer }>(
      (resolve, reject) => {
        const asked = request({
          host: hostname,
          port,
          method,
          path,
          agent: false,
          ca: [...this.ca],
          ...(isIP(hostname) === 0 && { servername: hostname }),
          signal: AbortSignal.timeout(PATIENCE),
          headers: {
            Host: this.host,
            Authorization: `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`,
            ...(body !== undefined && {
              'Content-Type': 'application/json',
              'Content-Length': Buffer.byteLength(body),
            }),
            ...more,
          },
        });
        asked.once('error', reject);
        asked.once('response', response => {
          const chunks: Buffer[] = [];
          let size = 0;
          response.on('data', (chunk: Buffer) => {
            size += chunk.length;
            chunks.push(chunk);
            if (size > LARGEST) asked.destroy(new Error('the answer is too large'));
          });
          response.once('error', reject);
          response.once('end', () =>
            resolve({ status: response.statusCode!, headers: response.headers, data: Buffer.concat(chunks) }),
          );
        });
        asked.end(body);
      },
    ).catch(cause => {
      throw mistrust(this.host, cause);
    });
    const value = parsed(data);
    if (status < 300) return { value: value as T, headers };
    throw this.#refusal(status, headers, value, user);
  }

  #refusal(status: number, headers: IncomingHttpHeaders, value: unknown, user: string): OperatorError {
    if (status === 401)
      return new Refused(`${this.host} does not take the login of ${JSON.stringify(user)}`, {
        fix: 'check the name of --as and its password',
      });
    if (status === 429)
      return new OperatorError(`${this.host}: too many failed logins`, {
        fix: `try again in ${headers['retry-after'] ?? 'some'} s`,
      });
    const message = (value as { errors?: Array<{ message?: unknown }> } | undefined)?.errors?.[0]?.message;
    return new OperatorError(
      `${this.host}: ${typeof message === 'string' ? message : `it answers ${status}, as a registry of another kind`}`,
    );
  }
}

/** The registry does not take the login. */
export class Refused extends OperatorError {}

function parsed(data: Buffer): unknown {
  try {
    return data.length === 0 ? undefined : JSON.parse(data.toString('utf8'));
  } catch {
    return undefined;
  }
}

/** A password on the command line would be in the list of processes. */
async function loginOf(host: string, { as: user, asPasswordFile, asPasswordStdin }: ServerOptions): Promise<Login> {
  if (user === undefined) {
    const kept = await keptLogin(host);
    if (kept) return kept;
    throw new OperatorError(`nobody is logged in at ${host}: no login for it is in ${loginFiles().join(' or ')}`, {
      fix: 'say who you are with --as NAME',
    });
  }
  const options = asPasswordStdin
    ? { passwordStdin: true }
    : asPasswordFile === undefined
      ? {}
      : { passwordFile: asPasswordFile };
  if (!process.stdin.isTTY && Object.keys(options).length === 0)
    throw new OperatorError(`there is no terminal to ask for the password of ${JSON.stringify(user)} on`, {
      fix: 'pipe it in with --as-password-stdin, or name a file with --as-password-file',
    });
  return { user, password: await readPassword(options, [`Password of ${JSON.stringify(user)} at ${host}: `]) };
}
