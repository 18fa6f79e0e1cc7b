import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import https from 'node:https';
import { join } from 'node:path';
import { checkServerIdentity, type PeerCertificate } from 'node:tls';
import { fileURLToPath } from 'node:url';

const EXECUTABLE = fileURLToPath(new URL('../../../bin/registry-secure.js', import.meta.url));

export interface Reply {
  readonly status: number;
  readonly body: Buffer;
  readonly location: string | undefined;
  /** WWW-Authenticate. */
  readonly challenge: string | undefined;
}

export interface LocalOptions {
  readonly env?: NodeJS.ProcessEnv;
  readonly input?: string;
  /** How to start the program: by its own name unless told. */
  readonly command?: readonly [string, ...string[]];
  /** Where to start it: the folder unless told. */
  readonly cwd?: string;
  /** Puts it at the head of a process group of its own, as a terminal does. */
  readonly detached?: boolean;
}

/** The program as a real process on loopback, with nothing but Node: for tests that need no other client. */
export class LocalRegistry {
  stdout = '';
  stderr = '';
  port = 0;
  readonly child: ChildProcess;
  readonly exited: Promise<number | null>;

  private constructor(
    readonly dir: string,
    args: readonly string[],
    { env = {}, input = '', command = [process.execPath, EXECUTABLE], cwd = dir, detached = false }: LocalOptions,
  ) {
    const [file, ...first] = command;
    this.child = spawn(file, [...first, ...args], { cwd, env: { PATH: process.env.PATH, ...env }, detached });
    this.child.stdin!.end(input);
    this.child.stdout!.setEncoding('utf8').on('data', data => (this.stdout += data));
    this.child.stderr!.setEncoding('utf8').on('data', data => (this.stderr += data));
    this.exited = new Promise(resolve => this.child.once('close', resolve));
  }

  /** Starts `up` or `serve` in its folder on a free port, as one process unless told, and waits until it listens. */
  static async start(
    dir: string,
    args: readonly string[],
    options: LocalOptions & { patience?: number } = {},
  ): Promise<LocalRegistry> {
    const env = { REGISTRY_WORKERS: '1', ...options.env };
    const registry = new LocalRegistry(dir, [...args, '--addr', '127.0.0.1:0'], { ...options, env });
    // The whole line: a number may come in two parts.
    registry.port = Number(
      await registry.until(() => /msg=listening .*port=(\d+).*\n/.exec(registry.stderr)?.[1], options.patience),
    );
    return registry;
  }

  /** Starts a command that goes on until it is stopped. */
  static watch(dir: string, args: readonly string[], options: LocalOptions = {}): LocalRegistry {
    return new LocalRegistry(dir, args, options);
  }

  /** Runs a command to its end. */
  static async run(
    dir: string,
    args: readonly string[],
    options: LocalOptions = {},
  ): Promise<{ status: number | null; stdout: string; stderr: string }> {
    const registry = new LocalRegistry(dir, args, options);
    const status = await registry.exited;
    return { status, stdout: registry.stdout, stderr: registry.stderr };
  }

  /** Waits for something that the process does by itself. */
  async until<T>(condition: () => T | Promise<T>, milliseconds = 120_000): Promise<NonNullable<T>> {
    const deadline = Date.now() + milliseconds;
    for (;;) {
      const value = await condition();
      if (value) return value as NonNullable<T>;
      if (this.child.exitCode !== null) throw new Error(`it ended with ${this.child.exitCode}: ${this.stderr}`);
      if (Date.now() > deadline) throw new Error(`not within ${milliseconds} ms:\n${this.stdout}\n${this.stderr}`);
      await new Promise(resolve => setTimeout(resolve, 20));
    }
  }

  get password(): string {
    return readFileSync(join(this.dir, 'auth/initial-password'), 'utf8').trim();
  }

  /** A request on a connection of its own, its certificate verified against the folder's authority. */
  async call(
    method: string,
    path: string,
    options: {
      auth?: string;
      /** In the place of `auth`. */
      token?: string;
      headers?: Readonly<Record<string, string>>;
      body?: Buffer | string;
      ca?: Buffer;
      onPeer?: (peer: PeerCertificate) => void;
    } = {},
  ): Promise<Reply> {
    const { auth, token, headers, body, ca = readFileSync(join(this.dir, 'certs/ca.crt')), onPeer } = options;
    return new Promise((resolve, reject) => {
      const request = https.request(
        {
          host: '127.0.0.1',
          port: this.port,
          method,
          path,
          ca,
          agent: false,
          ...(auth && { auth }),
          headers: { ...headers, ...(token && { Authorization: `Bearer ${token}` }) },
          checkServerIdentity: (_name, peer) => {
            onPeer?.(peer);
            return checkServerIdentity('127.0.0.1', peer);
          },
        },
        response => {
          const chunks: Buffer[] = [];
          response.on('data', chunk => chunks.push(chunk));
          response.once('error', reject);
          response.once('end', () =>
            resolve({
              status: response.statusCode!,
              body: Buffer.concat(chunks),
              location: response.headers.location,
              challenge: response.headers['www-authenticate'],
            }),
          );
        },
      );
      request.once('error', reject);
      request.end(body);
    });
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | null> {
    this.child.kill(signal);
    return this.exited;
  }
}
