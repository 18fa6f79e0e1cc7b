import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Namespace } from './namespace.js';
import { type Daemon, requireTools } from './process.js';

export interface RecipeOptions {
  /** HOST:PORT to listen on. */
  readonly address: string;
  /** The volume: what a container has at /var/lib/registry. */
  readonly data: string;
  /** A folder with domain.crt and domain.key; without one it speaks plain HTTP. */
  readonly certs?: string;
  readonly htpasswd?: string;
}

/** The variables that people set for `registry:2`, which ours must understand alike. */
export function recipe({ address, data, certs, htpasswd }: RecipeOptions): Record<string, string> {
  return {
    REGISTRY_HTTP_ADDR: address,
    REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY: data,
    ...(certs && {
      REGISTRY_HTTP_TLS_CERTIFICATE: join(certs, 'domain.crt'),
      REGISTRY_HTTP_TLS_KEY: join(certs, 'domain.key'),
    }),
    ...(htpasswd && {
      REGISTRY_AUTH: 'htpasswd',
      REGISTRY_AUTH_HTPASSWD_REALM: 'Registry Realm',
      REGISTRY_AUTH_HTPASSWD_PATH: htpasswd,
    }),
  };
}

/** Starts the original registry, version 2.8.2 from Debian's `docker-registry`, and waits until it answers. */
export async function startPeer(
  namespace: Namespace,
  options: RecipeOptions,
  name = 'docker-registry',
): Promise<Daemon> {
  requireTools('docker-registry');
  mkdirSync(options.data, { recursive: true });
  const config = join(namespace.dir, `${name}.yml`);
  writeFileSync(config, 'version: 0.1\nstorage: {filesystem: {}}\n');
  const daemon = namespace.start(name, ['docker-registry', 'serve', config], { env: recipe(options) });
  await daemon.ready(() => namespace.answers(`${options.certs ? 'https' : 'http'}://${options.address}/v2/`));
  return daemon;
}
