import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import bcrypt from 'bcryptjs';
import { systemCode } from '../../src/errors.js';
import { LocalRegistry } from '../support/local-registry.js';
import { must, requireTools, SEARCH_PATH } from '../support/process.js';
import type { Random } from '../support/random.js';
import { program } from '../support/registry.js';
import { RegistryClient } from '../support/registry-client.js';

/** `LONG=1 npm run test:crash` runs the long form of every test. */
export const LONG = process.env.LONG === '1';

/** `SEED=n npm run test:crash` chooses everything as a run did that printed this number. */
export const SEED = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31));

const AUTH = 'robot:robot';

// Unhandled, these end the process without its exit event, and mounts and folders would stay behind.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => process.exit(1));

/** The program under test as a process, and a client of it. */
export interface Server {
  readonly process: LocalRegistry;
  readonly pid: number;
  readonly client: RegistryClient;
  /** The folder of its data. */
  readonly root: string;
}

/** Where the data is, in the place of a folder of the rig's own. */
export interface RigPlace {
  /** The section `storage` of the configuration. */
  readonly storage: object;
  /** Variables without which it cannot be reached. */
  readonly env?: NodeJS.ProcessEnv;
}

/**
 * A folder in which the program is started, killed and started again, with mounts of its own. All of it goes with the
 * test process, however that one ends.
 */
export class Rig {
  readonly dir = mkdtempSync(join(tmpdir(), 'registry-secure-crash-'));
  readonly #mounts: string[] = [];
  readonly #loops: string[] = [];
  readonly #running = new Set<Server>();

  constructor(private readonly place?: RigPlace) {
    requireTools('setpriv', 'mount', 'umount', 'losetup');
    process.on('exit', this.#abandon);
    // The lowest cost: what is tested here is not the password.
    writeFileSync(join(this.dir, 'htpasswd'), `robot:${bcrypt.hashSync('robot', 4)}\n`, { mode: 0o600 });
    const config = {
      storage: {
        ...(place?.storage ?? { filesystem: { rootdirectory: join(this.dir, 'data') } }),
        delete: { enabled: true },
      },
      auth: { htpasswd: { realm: 'crash', path: join(this.dir, 'htpasswd') } },
    };
    // JSON is YAML.
    writeFileSync(this.config, JSON.stringify(config), { mode: 0o600 });
  }

  /** The configuration file. */
  get config(): string {
    return join(this.dir, 'config.yml');
  }

  /** What whoever reads that needs, too. */
  get env(): NodeJS.ProcessEnv {
    return this.place?.env ?? {};
  }

  /**
   * Starts the program and waits until it listens.
   * @param root the folder of its data; `data` in the rig's own unless told, and of no meaning where it has another place
   * @param workers how many processes share its port
   * @param threads for the disk; with one, the calls of a push always have the same order
   * @param env variables of its configuration
   * @param flushes how long each of its flushes takes at least, in milliseconds
   * @param quick how many of each thread do not
   */
  async start({
    root = join(this.dir, 'data'),
    workers = 1,
    threads = 4,
    env = {},
    flushes = 0,
    quick = 0,
  }: {
    root?: string;
    workers?: number;
    threads?: number;
    env?: NodeJS.ProcessEnv;
    flushes?: number;
    quick?: number;
  } = {}): Promise<Server> {
    const registry = await LocalRegistry.start(this.dir, [...this.#arguments(root), '--workers', `${workers}`], {
      command: flushes > 0 ? slowed(flushes, quick) : command(),
      env: { UV_THREADPOOL_SIZE: String(threads), ...this.env, ...env },
      // A start flushes a few times, one after the other.
      patience: 60_000 + (quick > 0 ? 0 : 20 * flushes),
    });
    const ca = readFileSync(join(this.dir, 'certs/ca.crt'));
    const client = new RegistryClient(registry.port, { ca, auth: AUTH });
    const server = { process: registry, pid: registry.child.pid!, client, root };
    this.#running.add(server);
    return server;
  }

  /** All of it at once, whatever it is doing. */
  async kill(server: Server): Promise<void> {
    const workers = childrenOf(server.pid);
    server.process.child.kill('SIGKILL');
    for (const pid of workers) killIfThere(pid);
    await server.process.exited;
    for (const pid of workers) while (existsSync(`/proc/${pid}`)) await pause(5);
    this.forget(server);
  }

  /** One of its workers, while the others go on. */
  killWorker(server: Server, random: Random): void {
    const workers = childrenOf(server.pid);
    if (workers.length > 0) killIfThere(random.pick(workers));
  }

  /** Ends the server as an operator does. */
  async stop(server: Server): Promise<void> {
    await server.process.stop();
    this.forget(server);
  }

  /** The server has ended by itself, or by what the test did to it. */
  forget(server: Server): void {
    server.client.close();
    this.#running.delete(server);
  }

  /** Starts the program and kills it after so many milliseconds, which may be before it is ready. */
  async killStarting(milliseconds: number): Promise<void> {
    await LocalRegistry.run(this.dir, [...this.#arguments(join(this.dir, 'data')), '--addr', '127.0.0.1:0'], {
      command: ['timeout', '--signal=KILL', String(milliseconds / 1000), ...command()],
      env: this.env,
    });
  }

  /** Runs a command of the program to its end. */
  run(args: readonly string[], options: { env?: NodeJS.ProcessEnv } = {}): ReturnType<typeof LocalRegistry.run> {
    return LocalRegistry.run(this.dir, args, { command: command(), ...options });
  }

  /** Removes all data. */
  wipe(): void {
    rmSync(join(this.dir, 'data'), { recursive: true });
  }

  #arguments(root: string): string[] {
    return ['serve', 'config.yml', ...(this.place ? [] : ['--root', root])];
  }

  /** Mounts something on a new folder. @returns the folder */
  async mount(name: string, ...options: string[]): Promise<string> {
    const folder = join(this.dir, name);
    mkdirSync(folder);
    await must(['mount', ...options, folder]);
    this.#mounts.push(folder);
    return folder;
  }

  async unmount(folder: string): Promise<void> {
    await must(['umount', folder]);
    this.#mounts.splice(this.#mounts.indexOf(folder), 1);
    rmSync(folder, { recursive: true });
  }

  /** Makes a file a disk that can be mounted more than once. @returns its device */
  async attach(file: string): Promise<string> {
    const device = (await must(['losetup', '--find', '--show', file])).trim();
    this.#loops.push(device);
    return device;
  }

  async close(): Promise<void> {
    for (const server of [...this.#running]) await this.kill(server);
    for (const folder of [...this.#mounts].reverse()) await this.unmount(folder);
    this.#abandon();
  }

  /** The same without a turn of the event loop. */
  readonly #abandon = (): void => {
    process.off('exit', this.#abandon);
    for (const { process } of this.#running) process.child.kill('SIGKILL');
    // Lazily, for a killed process may hold it for another moment.
    for (const folder of this.#mounts.reverse()) spawnSync('umount', ['-l', folder], { env: { PATH: SEARCH_PATH } });
    for (const device of this.#loops) spawnSync('losetup', ['-d', device], { env: { PATH: SEARCH_PATH } });
    rmSync(this.dir, { recursive: true, force: true, maxRetries: 3 });
  };
}

/** Process ids, the oldest first. */
export function childrenOf(pid: number): number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number);
}

function killIfThere(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if (systemCode(error) !== 'ESRCH') throw error;
  }
}

/** The program on a disk that takes its time to flush. It ends with the tracer, as that does with this process. */
function slowed(milliseconds: number, quick: number): [string, ...string[]] {
  requireTools('strace');
  const inject = `inject=fsync,fdatasync:delay_enter=${milliseconds * 1000}:when=${quick + 1}+`;
  const strace = [
    'strace',
    '-f',
    '-qq',
    '--seccomp-bpf',
    '-o',
    '/dev/null',
    '-e',
    'trace=fsync,fdatasync',
    '-e',
    inject,
  ];
  return ['setpriv', '--pdeathsig', 'KILL', '--', ...strace, ...command()];
}

/** The program, which the kernel ends when this process ends. */
function command(): [string, ...string[]] {
  return ['setpriv', '--pdeathsig', 'KILL', '--', ...program()];
}
