import { closeSync, fstatSync, mkdirSync, openSync, readSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { recipe } from '../support/peer.js';
import { program } from '../support/registry.js';
import { bucketVariables } from '../support/versitygw.js';

/** Where a server is to listen, and what it is given. */
export interface Place {
  readonly ip: string;
  readonly port: number;
  /** A folder of its own, for its configuration and whatever else it writes. */
  readonly dir: string;
  /** What a registry has at /var/lib/registry; or the folder of its bucket, which is that of the same name at `store`. */
  readonly volume: string;
  /** URL of the object store, where there is one. */
  readonly store: string | undefined;
  /** What a server of files has below its root: the path of each URL. */
  readonly files: string;
  /** A folder with domain.crt and domain.key. */
  readonly certs: string;
  readonly htpasswd: string;
  /** How many processes it is to have; undefined: as many as it takes by itself. */
  readonly workers: number | undefined;
}

export interface Command {
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly cwd: string;
}

/** One of the programs that are compared. */
export interface Kind {
  readonly name: string;
  /** The commands that it needs, and the package of Debian that brings each. */
  readonly needs: Readonly<Record<string, string>>;
  /** A registry has a volume and takes pushes; a server of files answers the same GETs, and is the limit that one can come near. */
  readonly holds: 'volume' | 'files';
  /** Whether it is one of ours, which has as many processes as it takes by itself. */
  readonly isOurs?: boolean;
  /** Whether its volume is a bucket. */
  readonly inBucket?: boolean;
  /** Whether it answers pushes, be it by dropping them. */
  readonly pushes: boolean;
  command(place: Place): Command;
  /** Whether one of its last connections took up the session of another, where it tells. */
  resumed?(place: Place): boolean;
}

/** The one that all are compared to. */
export const OURS: Kind = {
  name: 'ours',
  needs: {},
  holds: 'volume',
  isOurs: true,
  pushes: true,
  command: place => ours(place, variables(place)),
};

const DOCKER_REGISTRY: Kind = {
  name: 'docker-registry, htpasswd',
  needs: { 'docker-registry': 'docker-registry' },
  holds: 'volume',
  pushes: true,
  command: place => original(place, variables(place)),
};

const DOCKER_REGISTRY_OPEN: Kind = {
  ...DOCKER_REGISTRY,
  name: 'docker-registry',
  command: place => original(place, variables({ ...place, htpasswd: undefined })),
};

const NGINX: Kind = {
  name: 'nginx',
  needs: { nginx: 'nginx-light' },
  holds: 'files',
  pushes: false,
  command: place => {
    const config = join(place.dir, 'nginx.conf');
    writeFileSync(config, nginxConfig(place));
    return { argv: ['nginx', '-p', place.dir, '-c', config], env: {}, cwd: place.dir };
  },
  // $ssl_session_reused: "r" where it was, "." where not.
  resumed: ({ dir }) => / r$/m.test(endOf(join(dir, 'access.log'))),
};

const BARE: Kind = {
  name: 'bare node:https',
  needs: {},
  holds: 'files',
  pushes: true,
  command: ({ ip, port, certs, files, workers, dir }) => ({
    argv: [process.execPath, fileURLToPath(new URL('./bare.js', import.meta.url)), ip, `${port}`, certs, files],
    env: { WORKERS: `${workers ?? Math.min(4, cpus().length)}` },
    cwd: dir,
  }),
};

export const KINDS: readonly Kind[] = [OURS, DOCKER_REGISTRY, DOCKER_REGISTRY_OPEN, NGINX, BARE];

/** What is built by that script, and no package of Debian. */
const STORE = { versitygw: 'test/e2e/install.sh' };

/** Two over buckets of the same store, and ours over a folder on the disk of that store. */
export const BUCKET_KINDS: readonly Kind[] = [
  { ...OURS, inBucket: true, needs: STORE, command: place => ours(place, inBucket(place)) },
  { ...OURS, name: 'ours in a folder' },
  {
    ...DOCKER_REGISTRY,
    name: 'docker-registry',
    inBucket: true,
    needs: { ...DOCKER_REGISTRY.needs, ...STORE },
    command: place => original(place, inBucket(place)),
  },
];

/**
 * Another registry, by the command that starts it and stays in the foreground. In it {address}, {data}, {cert}, {key} and
 * {htpasswd} stand for HOST:PORT, its folder, and three files.
 */
export function peer(name: string, template: string): Kind {
  return {
    name,
    needs: {},
    holds: 'volume',
    pushes: true,
    command: ({ ip, port, volume, certs, htpasswd, dir }) => {
      const values: Record<string, string> = {
        address: `${ip}:${port}`,
        data: volume,
        cert: join(certs, 'domain.crt'),
        key: join(certs, 'domain.key'),
        htpasswd,
      };
      const command = template.replace(/\{(\w+)\}/g, (all, key: string) => values[key] ?? all);
      return { argv: ['sh', '-c', `exec ${command}`], env: {}, cwd: dir };
    },
  };
}

function variables(place: Omit<Place, 'htpasswd'> & { htpasswd: string | undefined }): Record<string, string> {
  const { ip, port, volume, certs, htpasswd } = place;
  return recipe({ address: `${ip}:${port}`, data: volume, certs, ...(htpasswd && { htpasswd }) });
}

function inBucket(place: Place): Record<string, string> {
  const { REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY, ...others } = variables(place);
  return { ...others, ...bucketVariables(place.store!, basename(place.volume)) };
}

function ours({ workers, dir }: Place, env: Record<string, string>): Command {
  return { argv: program('serve'), env: { ...env, ...(workers && { REGISTRY_WORKERS: `${workers}` }) }, cwd: dir };
}

function original({ dir, volume }: Place, env: Record<string, string>): Command {
  mkdirSync(volume, { recursive: true });
  const config = join(dir, 'config.yml');
  writeFileSync(config, 'version: 0.1\nstorage: {filesystem: {}}\n');
  return { argv: ['docker-registry', 'serve', config], env, cwd: dir };
}

/** Sessions are never resumed, as docker's are not, so that no ticket is made for nothing; its log tells if one was. */
function nginxConfig({ ip, port, certs, files, dir }: Place): string {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
  return `
daemon off;
user root;
worker_processes auto;
pid ${dir}/nginx.pid;
error_log ${dir}/error.log;
events { worker_connections 4096; }
http {
  ${temporary.map(name => `${name}_temp_path ${dir}/tmp;`).join(' ')}
  log_format bench '$remote_addr $remote_user [$time_iso8601] "$request" $status $body_bytes_sent $ssl_session_reused';
  access_log ${dir}/access.log bench;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000000;
  open_file_cache max=1000;
  types { }
  default_type application/vnd.oci.image.manifest.v1+json;
  server {
    listen ${ip}:${port} ssl;
    ssl_certificate ${certs}/domain.crt;
    ssl_certificate_key ${certs}/domain.key;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache off;
    ssl_session_tickets off;
    root ${files};
  }
}
`;
}

/** The last 64 KiB: it may be gigabytes. */
function endOf(file: string): string {
  const opened = openSync(file, 'r');
  try {
    const end = Buffer.alloc(64 * 1024);
    const read = readSync(opened, end, 0, end.length, Math.max(0, fstatSync(opened).size - end.length));
    return end.toString('utf8', 0, read);
  } finally {
    closeSync(opened);
  }
}
