import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ClientInstructions } from '../../src/trust/instructions.js';
import type { Namespace } from './namespace.js';
import type { Daemon, RunOptions } from './process.js';

const EXECUTABLE = fileURLToPath(new URL('../../../bin/registry-secure.js', import.meta.url));

/** The command line of the program under test, for what a test starts in a way of its own. */
export function program(...args: string[]): string[] {
  return [process.execPath, EXECUTABLE, ...args];
}

interface StartOptions extends Pick<RunOptions, 'env' | 'input'> {
  /** Names the process, its log and its folder; `registry` unless told. */
  readonly name?: string;
  /** Where it answers; HOST[:PORT] as it stands in image references, without the port where it is 443. */
  readonly host?: string;
  readonly scheme?: 'https' | 'http';
  /**
   * Serves in as many processes as the machine has it serve in. Else in one, for a test that changes files and then asks once: that
   * all of several follow within a second is shown by test/cli/workers-shared.test.ts.
   */
  readonly manyWorkers?: boolean;
}

/** The program under test as a real process inside a namespace, its folder holding certs/, auth/ and data/. */
export class Registry {
  private constructor(
    readonly namespace: Namespace,
    readonly daemon: Daemon,
    readonly dir: string,
    readonly host: string,
  ) {}

  /** Starts it in its folder with the arguments as they are (`up …`, `serve …`), and waits until it answers. */
  static async start(namespace: Namespace, args: string[], options: StartOptions = {}): Promise<Registry> {
    const { name = 'registry', host = `${namespace.ip}:5000`, scheme = 'https', input, manyWorkers = false } = options;
    const env = { ...(!manyWorkers && { REGISTRY_WORKERS: '1' }), ...options.env };
    const dir = join(namespace.dir, name);
    mkdirSync(dir, { recursive: true });
    const daemon = namespace.start(name, program(...args), { cwd: dir, env, ...(input && { input }) });
    await daemon.ready(() => namespace.answers(`${scheme}://${host}/v2/`));
    return new Registry(namespace, daemon, dir, host);
  }

  /** One command of the program, in the same folder, that must succeed; its standard output. */
  command(args: string[], options: RunOptions = {}): Promise<string> {
    return this.namespace.must(program(...args), { cwd: this.dir, ...options });
  }

  /**
   * Has one kind of client trust this registry as its user would: every command that `trust` prints is executed as
   * printed, in a shell, on the private /etc and home of the namespace.
   */
  async trust(client: string, options: Pick<RunOptions, 'env' | 'cwd'> = {}): Promise<ClientInstructions> {
    const printed = await this.instructions(client);
    await this.namespace.must(['sh', '-euc', printed.commands.join('\n')], { cwd: this.dir, ...options });
    return printed;
  }

  /** What `trust` prints for one kind of client. */
  async instructions(client: string): Promise<ClientInstructions> {
    return JSON.parse(await this.command(['trust', this.host, '--client', client, '--json'])).clients[0];
  }

  async stop(): Promise<number | null> {
    return this.daemon.stop();
  }
}
