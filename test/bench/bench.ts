import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Digest } from '../../src/reference.js';
import { layout } from '../../src/store/layout.js';
import { Namespace } from '../support/namespace.js';
import type { Daemon } from '../support/process.js';
import { type Holdings, holdings } from './content.js';
import { family, type Usage, watch } from './family.js';
import { LARGE, layOut } from './files.js';
import { Generators } from './generators.js';
import type { StoreJob } from './load/store.js';
import { ObjectStore } from './object-store.js';
import type { Kind, Place } from './servers.js';

/** What the servers hold: one image and two blobs, or that many repositories. */
export type Store = 'app' | 'large';

/** A server that is running, or could be started. */
export interface Server {
  readonly kind: Kind;
  readonly name: string;
  readonly origin: string;
  readonly place: Place;
}

export interface Running extends Server {
  readonly daemon: Daemon;
}

export interface Options {
  readonly kinds: readonly Kind[];
  /** How long a workload without an end of its own runs. */
  readonly seconds: number;
  /** Of a big blob. */
  readonly bytes: number;
  readonly workers: number | undefined;
}

export function progress(text: string): void {
  process.stderr.write(`bench: ${text}\n`);
}

const ALICE = { user: 'alice', password: 'correct horse' };

/** The machine on which everything is measured: servers that have the same certificate, passwords, content and network. */
export class Bench {
  readonly held: Holdings;
  readonly generators: Generators;
  readonly #servers = new Map<Store, Promise<Running[]>>();
  #ports = 5000;
  #workers: number | undefined;
  #store: Promise<string> | undefined;

  private constructor(
    readonly namespace: Namespace,
    readonly options: Options,
    private readonly objects: ObjectStore | undefined,
  ) {
    this.held = holdings(options.bytes);
    this.#workers = options.workers;
    const ca = readFileSync(join(this.certs, 'ca.crt'), 'utf8');
    const authorization = `Basic ${Buffer.from(`${ALICE.user}:${ALICE.password}`).toString('base64')}`;
    this.generators = new Generators(namespace, { ca, authorization });
  }

  static async create(options: Options): Promise<Bench> {
    const namespace = await Namespace.create();
    const { program } = await import('../support/registry.js');
    await namespace.must(program('init-certs', '--ip', namespace.ip, '--out', join(namespace.dir, 'certs')));
    // Apache's default cost, 5: the original pays it on every request.
    const htpasswd = ['htpasswd', '-ciB', join(namespace.dir, 'htpasswd'), ALICE.user];
    await namespace.must(htpasswd, { input: ALICE.password });
    const objects = options.kinds.some(kind => kind.inBucket) ? await ObjectStore.start(namespace) : undefined;
    const bench = new Bench(namespace, options, objects);
    if (options.kinds.some(kind => kind.holds === 'files')) layOut(bench.files, bench.held);
    return bench;
  }

  get certs(): string {
    return join(this.namespace.dir, 'certs');
  }

  get files(): string {
    return join(this.namespace.dir, 'files');
  }

  /** All servers on the store, started and filled when they are first asked for. */
  servers(store: Store): Promise<Running[]> {
    const running = this.#servers.get(store) ?? this.#start(store);
    this.#servers.set(store, running);
    return running;
  }

  async #start(store: Store): Promise<Running[]> {
    const running: Running[] = [];
    for (const kind of this.options.kinds) {
      progress(`starting ${kind.name}`);
      const server = await this.launch(this.prepare(kind, store === 'large' ? await this.large() : undefined));
      running.push(server);
      if (store === 'app' && kind.holds === 'volume')
        await this.generators.run(server.origin, { kind: 'seed', bytes: this.options.bytes });
      // The bare handler is to have as many processes as ours, and only it knows how many these are.
      if (kind.isOurs) this.#workers ??= Math.max(1, family(server.daemon.pid).length - 1);
    }
    return running;
  }

  /** A place for a server that nothing has been started at. @param volume an empty one unless told */
  prepare(kind: Kind, volume?: string): Server {
    const { ip, dir: base } = this.namespace;
    const port = ++this.#ports;
    const dir = join(base, `${port}`);
    mkdirSync(join(dir, 'tmp'), { recursive: true });
    const [htpasswd, workers] = [join(base, 'htpasswd'), kind.isOurs ? this.options.workers : this.#workers];
    const fresh = () => (kind.inBucket ? this.objects!.makeBucket(`${port}`) : join(dir, 'data'));
    const own = { ip, port, dir, volume: volume ?? fresh(), htpasswd, workers };
    const place = { ...own, store: this.objects?.endpoint, files: this.files, certs: this.certs };
    return { kind, name: kind.name, origin: `https://${ip}:${port}`, place };
  }

  async launch(server: Server): Promise<Running> {
    const { argv, env, cwd } = server.kind.command(server.place);
    const daemon = this.namespace.start(`${server.place.port}`, argv, { env, cwd });
    await daemon.ready(() => this.namespace.answers(`${server.origin}/v2/`));
    return { ...server, daemon };
  }

  /** Begins to watch a server, and the object store where it has its bucket; the function ends it. */
  watch({ kind, daemon }: Running): () => Usage {
    const ends = [watch(daemon.pid), kind.inBucket ? this.objects!.watch() : undefined] as const;
    return () => ({ ...ends[0](), ...(ends[1] && { store: ends[1]() }) });
  }

  /** The volume that nobody writes to, so that all share it. */
  large(): Promise<string> {
    this.#store ??= this.volumeInMemory('large').then(async volume => {
      progress(`writing ${LARGE.repositories} repositories of ${LARGE.tags} tags`);
      await this.write({ volume, ...LARGE });
      return volume;
    });
    return this.#store;
  }

  /** Writes a store inside of the namespace, which alone sees a folder in memory. */
  async write(job: Omit<StoreJob, 'kind'>): Promise<void> {
    await this.generators.run('', { kind: 'store', ...job });
  }

  /**
   * A folder in memory, which ends with the namespace: a disk would need minutes to write a million small files, and as many
   * to remove them, and is not what is measured.
   */
  async volumeInMemory(name: string): Promise<string> {
    const folder = join(this.namespace.dir, name);
    mkdirSync(folder);
    await this.namespace.must(['mount', '-t', 'tmpfs', '-o', 'size=75%,nr_inodes=0', 'tmpfs', folder]);
    return folder;
  }

  /** The status of a GET. */
  async status(server: Server, path: string): Promise<number> {
    const command = ['curl', '-sk', '-o', '/dev/null', '-w', '%{http_code}', '-u', `${ALICE.user}:${ALICE.password}`];
    return Number(await this.namespace.must([...command, server.origin + path]));
  }

  close(): Promise<void> {
    return this.namespace.close();
  }
}

/** Gives the blob a file that the server has never read, the same bytes in memory; false where it keeps blobs otherwise. */
export function renew({ place }: Server, digest: string): boolean {
  const path = join(place.volume, layout.blob(digest as Digest));
  if (!existsSync(path)) return false;
  copyFileSync(path, `${path}.new`);
  renameSync(`${path}.new`, path);
  return true;
}

/** The repository of what nobody pulls again. */
export const PUSHED = 'bench/pushed';

/** Removes big blobs that no round needs again, or the disk would fill, and uploads whose clients have gone. */
export function dropPushed({ place }: Server, { big, small }: Holdings): void {
  const uploads = join(place.volume, layout.uploads(PUSHED));
  if (existsSync(uploads))
    for (const upload of readdirSync(uploads)) rmSync(join(uploads, upload), { recursive: true, force: true });
  const blobs = join(place.volume, layout.blobs);
  if (!existsSync(blobs)) return;
  for (const prefix of readdirSync(blobs))
    for (const hex of readdirSync(join(blobs, prefix))) {
      const data = join(blobs, prefix, hex, 'data');
      const kept = [big, small].some(({ digest }) => digest.endsWith(hex));
      if (!kept && existsSync(data) && statSync(data).size >= small.size)
        rmSync(join(blobs, prefix, hex), { recursive: true });
    }
}
