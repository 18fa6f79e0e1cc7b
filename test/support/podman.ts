import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Namespace } from './namespace.js';
import { type Output, type RunOptions, requireTools } from './process.js';

// Where the hard limits cannot be raised podman's own defaults fail, and so does systemd's cgroup manager without systemd.
const CONTAINERS_CONF = `[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
`;

/** podman, buildah and skopeo inside a namespace: one store, one file of credentials, and nothing shared with this machine. */
export class Podman {
  readonly #dir: string;
  readonly #env: Record<string, string>;

  constructor(readonly namespace: Namespace) {
    requireTools('podman', 'buildah', 'skopeo', 'runc');
    this.#dir = join(namespace.dir, 'podman');
    mkdirSync(this.#dir);
    const conf = join(this.#dir, 'containers.conf');
    writeFileSync(conf, CONTAINERS_CONF);
    // Named but absent, the file is an error in itself for every command before the first login.
    const auth = join(this.#dir, 'auth.json');
    writeFileSync(auth, '{}');
    this.#env = { CONTAINERS_CONF: conf, REGISTRY_AUTH_FILE: auth };
  }

  #argv(tool: 'podman' | 'buildah' | 'skopeo', args: readonly string[]): string[] {
    const store = [
      '--root',
      join(this.#dir, 'root'),
      '--runroot',
      join(this.#dir, 'run'),
      '--storage-driver',
      'overlay',
    ];
    const own = { podman: [...store, '--tmpdir', join(this.#dir, 'tmp')], buildah: store, skopeo: [] };
    return [tool, ...own[tool], ...args];
  }

  run(tool: 'podman' | 'buildah' | 'skopeo', args: readonly string[], options: RunOptions = {}): Promise<Output> {
    return this.namespace.run(this.#argv(tool, args), { ...options, env: { ...this.#env, ...options.env } });
  }

  must(tool: 'podman' | 'buildah' | 'skopeo', args: readonly string[], options: RunOptions = {}): Promise<string> {
    return this.namespace.must(this.#argv(tool, args), { ...options, env: { ...this.#env, ...options.env } });
  }

  refused(tool: 'podman' | 'buildah' | 'skopeo', args: readonly string[], options: RunOptions = {}): Promise<string> {
    return this.namespace.refused(this.#argv(tool, args), { ...options, env: { ...this.#env, ...options.env } });
  }
}
