import { type ChildProcess, spawn } from 'node:child_process';
import { accessSync, closeSync, constants, openSync, readFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';

/** What a finished command left behind. A command that was killed has status null. */
export interface Output {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly input?: string | Buffer;
  readonly cwd?: string;
  /** Milliseconds after which the command is killed; two minutes unless told. */
  readonly timeout?: number;
}

/** Debian keeps daemons and `ip` where the path of an ordinary user does not look. */
export const SEARCH_PATH = [process.env.PATH, '/usr/local/sbin', '/usr/sbin', '/sbin'].join(delimiter);

/** Fails at once, with the way out, where a command that the test needs is not installed. */
export function requireTools(...commands: string[]): void {
  const missing = commands.filter(command => !SEARCH_PATH.split(delimiter).some(folder => executable(folder, command)));
  if (missing.length > 0) throw new Error(`not installed: ${missing.join(', ')}; run: test/e2e/install.sh`);
}

function executable(folder: string, command: string): boolean {
  try {
    accessSync(join(folder, command), constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** Runs a command to its end and hands back whatever it said, with success and failure alike. `env` is all it sees. */
export async function run(argv: readonly string[], options: RunOptions = {}): Promise<Output> {
  const child = spawn(argv[0]!, argv.slice(1), { cwd: options.cwd, env: { PATH: SEARCH_PATH, ...options.env } });
  const timer = setTimeout(() => child.kill('SIGKILL'), options.timeout ?? 120_000);
  // A command that ends without reading its input breaks the pipe, which is no failure of the test.
  child.stdin.on('error', () => {});
  child.stdin.end(options.input ?? '');
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  child.stdout.on('data', chunk => stdout.push(chunk));
  child.stderr.on('data', chunk => stderr.push(chunk));
  const status = await new Promise<number | null>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', resolve);
  }).finally(() => clearTimeout(timer));
  return { status, stdout: Buffer.concat(stdout).toString(), stderr: Buffer.concat(stderr).toString() };
}

/** The standard output of a command that must succeed; otherwise an error that shows all of it. */
export async function must(argv: readonly string[], options: RunOptions = {}): Promise<string> {
  const output = await run(argv, options);
  if (output.status === 0) return output.stdout;
  throw new Error(
    `${argv.join(' ')}: ${output.status === null ? 'killed' : `exit code ${output.status}`}\n${output.stdout}${output.stderr}`,
  );
}

/** Calls until the answer is true, or fails after the given time: for a server that is starting. */
async function until(what: string, ready: () => boolean | Promise<boolean>, milliseconds = 120_000): Promise<void> {
  const deadline = Date.now() + milliseconds;
  while (!(await ready())) {
    if (Date.now() > deadline) throw new Error(`${what}: not within ${milliseconds} ms`);
    await new Promise(resolve => setTimeout(resolve, 30));
  }
}

/** A long-running process whose output goes to a file. It dies with the test process, however that one ends. */
export class Daemon {
  readonly #child: ChildProcess;
  readonly #log: string;
  /** Settles with the exit code; a signal counts as null. */
  readonly exited: Promise<number | null>;

  constructor(
    readonly name: string,
    argv: readonly string[],
    options: Pick<RunOptions, 'env' | 'cwd' | 'input'> & { log: string },
  ) {
    this.#log = options.log;
    const output = openSync(options.log, 'a');
    this.#child = spawn('setpriv', ['--pdeathsig', 'TERM', '--', ...argv], {
      cwd: options.cwd,
      env: { PATH: SEARCH_PATH, ...options.env },
      stdio: ['pipe', output, output],
    });
    closeSync(output);
    this.#child.stdin?.on('error', () => {});
    this.#child.stdin?.end(options.input ?? '');
    this.exited = new Promise((resolve, reject) => {
      this.#child.on('error', reject);
      this.#child.on('exit', resolve);
    });
    this.#child.unref();
  }

  get pid(): number {
    return this.#child.pid!;
  }

  get running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** All that the process has written so far. */
  get output(): string {
    return readFileSync(this.#log, 'utf8');
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Polls until the daemon answers; one that ended meanwhile fails the test with its last words. */
  async ready(answers: () => Promise<boolean>): Promise<void> {
    try {
      await until(`${this.name} answers`, async () => {
        if (!this.running) throw new Error(`${this.name} ended with exit code ${await this.exited}`);
        return answers();
      });
    } catch (error) {
      throw new Error(`${(error as Error).message}; it wrote:\n${this.output.slice(-4000)}`);
    }
  }

  /** Asks it to end, and makes it end after a minute. Hands back the exit code. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | null> {
    this.#child.ref();
    this.kill(signal);
    const timer = setTimeout(() => this.kill('SIGKILL'), 60_000);
    return this.exited.finally(() => clearTimeout(timer));
  }
}
