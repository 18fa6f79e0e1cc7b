import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Namespace } from './namespace.js';
import { type Daemon, type Output, type RunOptions, requireTools } from './process.js';

interface StartOptions {
  readonly name?: string;
  readonly bridge?: boolean;
  readonly flags?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

/**
 * A dockerd inside a namespace, with folders of its own, and the docker client that talks to it. The client is the
 * first in the search path: Debian's, or a newer one where the machine has it.
 */
export class Docker {
  private constructor(
    readonly namespace: Namespace,
    readonly daemon: Daemon,
    readonly dir: string,
  ) {}

  /**
   * `bridge` gives containers networks and published ports, NAT and all, inside the namespace; without it a container
   * runs with `--network host` or `none`.
   */
  static async start(
    namespace: Namespace,
    { name = 'dockerd', bridge = false, flags = [], env = {} }: StartOptions = {},
  ): Promise<Docker> {
    requireTools('docker', 'dockerd', 'containerd', 'runc', ...(bridge ? ['iptables'] : []));
    const dir = join(namespace.dir, name);
    mkdirSync(dir);
    const argv = [
      'dockerd',
      '--ip6tables=false',
      ...(bridge ? [] : ['--iptables=false', '--bridge=none']),
      '--storage-driver=overlay2',
      `--data-root=${join(dir, 'data')}`,
      `--exec-root=${join(dir, 'exec')}`,
      `--pidfile=${join(dir, 'pid')}`,
      `--host=unix://${join(dir, 's')}`,
      ...flags,
    ];
    const daemon = namespace.start(name, argv, { env });
    const docker = new Docker(namespace, daemon, dir);
    await daemon.ready(async () => (await docker.run(['version'])).status === 0);
    return docker;
  }

  /** What answers: the version of the client, and of the daemon. */
  async versions(): Promise<string> {
    const format = 'client {{.Client.Version}}, server {{.Server.Version}}';
    return (await this.must(['version', '--format', format])).trim();
  }

  #env(more: Readonly<Record<string, string>> = {}): Record<string, string> {
    return {
      DOCKER_HOST: `unix://${join(this.dir, 's')}`,
      DOCKER_CONFIG: join(this.dir, 'client'),
      // The classic builder: newer clients want a plug-in for the other one.
      DOCKER_BUILDKIT: '0',
      ...more,
    };
  }

  run(args: readonly string[], { env, ...options }: RunOptions = {}): Promise<Output> {
    return this.namespace.run(['docker', ...args], { ...options, env: this.#env(env) });
  }

  must(args: readonly string[], { env, ...options }: RunOptions = {}): Promise<string> {
    return this.namespace.must(['docker', ...args], { ...options, env: this.#env(env) });
  }

  refused(args: readonly string[], { env, ...options }: RunOptions = {}): Promise<string> {
    return this.namespace.refused(['docker', ...args], { ...options, env: this.#env(env) });
  }

  /** Runs the lines of a recipe, which must succeed, in a shell that knows this dockerd. */
  recipe(lines: string, { env, ...options }: RunOptions = {}): Promise<string> {
    return this.namespace.must(['sh', '-euc', lines], { ...options, env: this.#env(env) });
  }

  /** Builds an image from a folder with the classic builder, which needs no network. */
  async build(folder: string, tag: string, flags: readonly string[] = []): Promise<void> {
    await this.must(['build', '-q', '-t', tag, ...flags, folder]);
  }

  async imageId(image: string): Promise<string> {
    return (await this.must(['image', 'inspect', '--format', '{{.Id}}', image])).trim();
  }
}
