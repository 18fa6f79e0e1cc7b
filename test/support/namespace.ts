import { type ChildProcess, spawn } from 'node:child_process';
import { appendFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Daemon, must, type Output, type RunOptions, requireTools, run, SEARCH_PATH } from './process.js';

/** The address of the oldest recipes. It is private to each namespace, so every test file can have it. */
const ADDRESS = '192.168.0.12';

// Loopback counts as insecure for docker, so that only another address proves anything about trust. skopeo keeps a cache
// of known blobs below /var/lib/containers, and iptables its lock below /run. The holder waits on its standard input: it ends with the test process, and
// the namespace with its last process.
const HOLD = `
mount --bind "$1/etc" /etc
mount -t tmpfs -o mode=755 run /run
if [ -d /var/lib/containers ]; then mount --bind "$1/containers" /var/lib/containers; fi
ip link set lo up
ip address add "$2"/32 dev lo
echo ready
exec cat`;

// Unhandled, these end the process without its exit event, and folders and daemons would stay behind.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => process.exit(1));

/**
 * A machine of the test's own: a network namespace with nothing but loopback and one private address, a private copy of
 * /etc, an empty /run, a home, a folder for everything else, and a `sudo` that simply runs its command.
 * Nothing in it can reach another machine, and nothing it writes below /etc, the home or the folder stays.
 */
export class Namespace {
  readonly home: string;
  readonly #daemons = new Set<Daemon>();
  #open = true;

  private constructor(
    /** The folder, and the working directory of every command that names no other. */
    readonly dir: string,
    readonly ip: string,
    readonly holder: ChildProcess,
  ) {
    this.home = join(dir, 'home');
    process.on('exit', this.#abandon);
  }

  static async create(ip = ADDRESS): Promise<Namespace> {
    requireTools('unshare', 'nsenter', 'setpriv', 'ip', 'mount', 'curl');
    if (process.getuid?.() !== 0) throw new Error('the end-to-end tests make network namespaces: run them as root');
    const dir = mkdtempSync(join(tmpdir(), 'registry-secure-e2e-'));
    const etc = join(dir, 'etc');
    await must(['cp', '-a', '/etc', etc]);
    for (const private_ of ['docker', 'containerd', 'containers/certs.d', 'resolv.conf'])
      rmSync(join(etc, private_), { recursive: true, force: true });
    writeFileSync(join(etc, 'resolv.conf'), '');
    for (const folder of ['etc/docker', 'containers', 'home', 'bin', 'tmp'])
      mkdirSync(join(dir, folder), { recursive: true });
    writeFileSync(join(dir, 'bin', 'sudo'), '#!/bin/sh\nexec "$@"\n', { mode: 0o755 });
    const holder = spawn('unshare', ['--net', '--mount', 'sh', '-euc', HOLD, 'hold', dir, ip], {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { PATH: SEARCH_PATH },
    });
    const namespace = new Namespace(dir, ip, holder);
    await new Promise((resolve, reject) => {
      holder.on('error', reject);
      holder.on('exit', status => reject(new Error(`the namespace could not be made: exit code ${status}`)));
      holder.stdout.once('data', resolve);
    });
    for (const handle of [holder, holder.stdin, holder.stdout] as { unref?: () => void }[]) handle.unref?.();
    return namespace;
  }

  /** Joins two machines by a cable, each knowing the other's address and, in /etc/hosts, its name. */
  async connect(name: string, other: Namespace, otherName: string): Promise<void> {
    const ends = { a: this.holder.pid, b: other.holder.pid };
    await must([
      'ip',
      'link',
      'add',
      'cable',
      'netns',
      `${ends.a}`,
      'type',
      'veth',
      'peer',
      'cable',
      'netns',
      `${ends.b}`,
    ]);
    for (const [from, to, toName] of [
      [this, other, otherName],
      [other, this, name],
    ] as const) {
      await from.must(['ip', 'link', 'set', 'cable', 'up']);
      await from.must(['ip', 'route', 'add', to.ip, 'dev', 'cable', 'src', from.ip]);
      appendFileSync(join(from.dir, 'etc', 'hosts'), `${to.ip} ${toName}\n`);
    }
  }

  /** The environment of every command: nothing of the caller's, so that no proxy or variable of this machine leaks in. */
  #env(more: Readonly<Record<string, string>> = {}): Record<string, string> {
    return {
      PATH: `${join(this.dir, 'bin')}:${SEARCH_PATH}`,
      HOME: this.home,
      TMPDIR: join(this.dir, 'tmp'),
      LANG: 'C.UTF-8',
      ...more,
    };
  }

  /** Entering a mount namespace loses the working directory, so it is set again inside. */
  #inside(argv: readonly string[], cwd = this.dir): string[] {
    const ns = `/proc/${this.holder.pid}/ns`;
    return ['nsenter', `--net=${ns}/net`, `--mount=${ns}/mnt`, 'sh', '-c', 'cd "$0" && exec "$@"', cwd, ...argv];
  }

  /** Runs a command inside, whatever its exit code. */
  run(argv: readonly string[], { env, cwd, ...options }: RunOptions = {}): Promise<Output> {
    return run(this.#inside(argv, cwd), { ...options, env: this.#env(env) });
  }

  /** Runs a command inside that must succeed, and hands back its standard output. */
  must(argv: readonly string[], { env, cwd, ...options }: RunOptions = {}): Promise<string> {
    return must(this.#inside(argv, cwd), { ...options, env: this.#env(env) });
  }

  /** Runs a command inside that must fail, and hands back everything it said. */
  async refused(argv: readonly string[], options: RunOptions = {}): Promise<string> {
    const { status, stdout, stderr } = await this.run(argv, options);
    if (status === 0 || status === null)
      throw new Error(`${argv.join(' ')}: ${status === 0 ? 'succeeded' : 'was killed'}\n${stdout}${stderr}`);
    return stdout + stderr;
  }

  /** Starts a process inside; `close` ends it. Its output goes to `<name>.log` in the folder. */
  start(name: string, argv: readonly string[], options: Pick<RunOptions, 'env' | 'cwd' | 'input'> = {}): Daemon {
    const { env, cwd, ...rest } = options;
    const log = join(this.dir, `${name}.log`);
    const daemon = new Daemon(name, this.#inside(argv, cwd), { ...rest, env: this.#env(env), log });
    this.#daemons.add(daemon);
    return daemon;
  }

  /** True when something serves at the URL, with whatever status and certificate; 503 is a server that still starts. */
  async answers(url: string): Promise<boolean> {
    const said = await this.run(['curl', '-sk', '-o', '/dev/null', '-w', '%{http_code}', '--max-time', '5', url]);
    return said.status === 0 && said.stdout !== '503';
  }

  /** Ends every process of the test in reverse order of their start, then the namespace, then the folder. */
  async close(): Promise<void> {
    for (const daemon of [...this.#daemons].reverse()) if (daemon.running) await daemon.stop();
    this.#abandon();
  }

  /** The same without a turn of the event loop, for a test process that is ending. dockerd may need ten seconds for containers. */
  readonly #abandon = (): void => {
    if (!this.#open) return;
    this.#open = false;
    process.off('exit', this.#abandon);
    const left = [...this.#daemons].filter(daemon => daemon.running).map(daemon => daemon.pid);
    for (const [signal, patience] of [
      ['SIGTERM', 15_000],
      ['SIGKILL', 1_000],
    ] as const) {
      for (const pid of left.filter(alive)) process.kill(pid, signal);
      for (let waited = 0; waited < patience && left.some(alive); waited += 50)
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50);
    }
    this.holder.kill('SIGKILL');
    rmSync(this.dir, { recursive: true, force: true, maxRetries: 3 });
  };
}

/** A zombie that its parent has not yet waited for counts as ended. */
function alive(pid: number): boolean {
  try {
    return !/^\d+ \(.*\) Z/.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
}
