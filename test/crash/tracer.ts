import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { requireTools, SEARCH_PATH } from '../support/process.js';
import type { Rig, Server } from './rig.js';

/** The system calls by which a store changes. `openat` does where it makes a file, `ioctl` where it clones one. */
const CHANGES =
  'mkdir,rmdir,rename,link,unlink,openat,write,writev,pwrite64,pwritev,copy_file_range,ioctl,utimensat,fsync,fdatasync';

/** One of the calls that change the store: the nth of its name since the tracer came. */
export interface Call {
  readonly name: string;
  readonly nth: number;
  readonly line: string;
}

/**
 * Threads of the server that have written for its disk since the last look. Only with `threads: 1` does one thread
 * make all calls, in an order that is always the same.
 */
export class DiskThreads {
  readonly #before: Map<number, number>;

  constructor(private readonly server: Server) {
    this.#before = written(server.pid);
  }

  /** To be called when at least `bytes` were pushed. */
  found(bytes: number): number[] {
    const grown = (thread: number, total: number) => total - (this.#before.get(thread) ?? 0);
    return [...written(this.server.pid)]
      .filter(([thread, total]) => thread !== this.server.pid && grown(thread, total) >= bytes)
      .map(([thread]) => thread);
  }
}

/** Bytes that each thread has given to write(2) and its kin. */
function written(pid: number): Map<number, number> {
  const tasks = `/proc/${pid}/task`;
  return new Map(
    readdirSync(tasks).map(thread => [
      Number(thread),
      Number(/^wchar: (\d+)$/m.exec(readFileSync(`${tasks}/${thread}/io`, 'utf8'))![1]),
    ]),
  );
}

/** strace on some threads of a server. */
export class Tracer {
  private constructor(
    private readonly child: ChildProcess,
    private readonly log: string,
  ) {}

  /** Attaches, and resolves when every call from now on counts. */
  static async attach(rig: Rig, server: Server, threads: readonly number[], ...options: string[]): Promise<Tracer> {
    requireTools('strace');
    const log = `${rig.dir}/strace.log`;
    // `-y` shows the path of each descriptor.
    const traced = threads.flatMap(thread => ['-p', String(thread)]);
    const child = spawn('strace', ['-y', '-o', log, ...options, ...traced], {
      env: { PATH: SEARCH_PATH },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    // It says so when it has stopped a thread: the kernel names the tracer of one that makes its calls unseen until then.
    let said = '';
    child.stderr.setEncoding('utf8').on('data', text => (said += text));
    await server.process.until(() => threads.every(thread => said.includes(`Process ${thread} attached`)));
    return new Tracer(child, log);
  }

  /** What the log says. The tracer goes, or went with the server. */
  async detach(): Promise<string> {
    if (this.child.exitCode === null && this.child.signalCode === null) {
      const ended = once(this.child, 'exit');
      this.child.kill('SIGINT');
      await ended;
    }
    return readFileSync(this.log, 'utf8');
  }
}

/** Every call by which one thread changed the store while something was done. */
export async function changes(rig: Rig, server: Server, thread: number, action: () => Promise<void>): Promise<Call[]> {
  const tracer = await Tracer.attach(rig, server, [thread], '-e', `trace=${CHANGES}`);
  await action();
  const counts = new Map<string, number>();
  const calls: Call[] = [];
  for (const line of (await tracer.detach()).split('\n')) {
    const [, name, rest] = /^(\w+)\((.*)\) += \d+/.exec(line) ?? [];
    const called = /^(\w+)\(/.exec(line)?.[1];
    if (called === undefined) continue;
    const nth = (counts.get(called) ?? 0) + 1;
    counts.set(called, nth);
    if (name === undefined || rest === undefined || !rest.includes(`${server.root}/`)) continue;
    if (name === 'openat' && !rest.includes('O_CREAT')) continue;
    calls.push({ name, nth, line });
  }
  return calls;
}
