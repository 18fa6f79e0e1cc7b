import { randomUUID } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { S3Options } from '../../src/storage/s3/options.js';
import type { Place } from '../storage/places.js';
import { freePorts } from './ports.js';
import { Daemon, must, type RunOptions, requireTools } from './process.js';
import { S3Service } from './s3-service.js';

/** How many ports above the monitor's the daemons choose theirs from. */
const PORTS = 16;

/** Where its processes run. A namespace is one, too. */
interface Machine {
  /** The folder for all that is to go with it. */
  readonly dir: string;
  start(name: string, argv: readonly string[], options: Pick<RunOptions, 'env'>): Daemon;
  must(argv: readonly string[], options: Pick<RunOptions, 'env'>): Promise<string>;
  answers(url: string): Promise<boolean>;
}

/** Debian's Ceph: one monitor, one store, which keeps all in memory, and the gateway that speaks S3. */
export class Ceph extends S3Service {
  private constructor(
    private readonly dir: string,
    readonly port: number,
    private readonly daemons: readonly Daemon[],
  ) {
    super();
  }

  /** @param on this machine unless told */
  static async start(on?: Machine): Promise<Ceph> {
    requireTools('ceph', 'ceph-mon', 'ceph-osd', 'monmaptool', 'radosgw', 'radosgw-admin');
    const dir = await mkdtemp(join(on?.dir ?? tmpdir(), 'ceph-'));
    const machine = on ?? thisMachine(dir);
    for (const folder of ['mon', 'osd', 'run']) mkdirSync(join(dir, folder));
    const monitor = await freePorts(PORTS + 2);
    const port = monitor + PORTS + 1;
    const [cluster, store] = [randomUUID(), randomUUID()];
    const config = join(dir, 'ceph.conf');
    await writeFile(config, configuration(dir, cluster, monitor, port));
    const env = { CEPH_CONF: config, HOME: dir };
    const run = (...argv: string[]) => machine.must(argv, { env });
    const daemon = (...argv: string[]) => machine.start(argv[0]!, argv, { env });

    const map = join(dir, 'monmap');
    await run('monmaptool', '--create', '--fsid', cluster, '--addv', 'a', `[v2:127.0.0.1:${monitor}]`, map);
    await run('ceph-mon', '--mkfs', '-i', 'a', '--monmap', map);
    const daemons = [daemon('ceph-mon', '-f', '-i', 'a')];
    await run('ceph', '--connect-timeout', '60', 'osd', 'new', store);
    await run('ceph-osd', '-i', '0', '--mkfs', '--osd-uuid', store);
    daemons.push(daemon('ceph-osd', '-f', '-i', '0'));
    await daemons.at(-1)!.ready(async () => /\b1 up\b/.test(await run('ceph', 'osd', 'stat')));
    daemons.push(daemon('radosgw', '-f', '-n', 'client.rgw'));
    await daemons.at(-1)!.ready(() => machine.answers(`http://127.0.0.1:${port}/`));
    const { accessKeyId, secretAccessKey } = S3Service.credentials;
    const keys = [`--access-key=${accessKeyId}`, `--secret-key=${secretAccessKey}`];
    await run('radosgw-admin', 'user', 'create', '--uid=test', '--display-name=test', ...keys);
    return new Ceph(dir, port, daemons);
  }

  override async place(more?: Partial<S3Options>): Promise<Place> {
    return { ...(await super.place(more)), share: process.env.LONG === '1' ? 1 : 0.25 };
  }

  async stop(): Promise<void> {
    // Asked to end, they take seconds to put away what goes with the folder.
    await Promise.all(this.daemons.map(daemon => daemon.stop('SIGKILL')));
    await rm(this.dir, { recursive: true });
  }
}

function configuration(dir: string, cluster: string, monitor: number, port: number): string {
  return `[global]
fsid = ${cluster}
mon_host = v2:127.0.0.1:${monitor}
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_port_min = ${monitor + 1}
ms_bind_port_max = ${monitor + PORTS}
mon_data = ${dir}/mon
osd_data = ${dir}/osd
run_dir = ${dir}/run
crash_dir = ${dir}/run
admin_socket = ${dir}/run/$name.asok
log_file = ${dir}/run/$name.log
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
osd_objectstore = memstore
memstore_device_bytes = 8589934592
mon_allow_pool_size_one = true
osd_pool_default_size = 1
osd_pool_default_pg_num = 1
# It is ready in a fifth of the time.
paxos_propose_interval = 0.05
paxos_min_wait = 0.02
[client.rgw]
rgw_frontends = beast endpoint=127.0.0.1:${port}
# Without keys, it would try a mode that the monitor refuses.
ms_mon_client_mode = crc
# What is deleted is to leave the memory at once, not hours later.
rgw_gc_obj_min_wait = 1
rgw_gc_processor_period = 2
`;
}

function thisMachine(dir: string): Machine {
  return {
    dir,
    start: (name, argv, options) => new Daemon(name, argv, { ...options, log: join(dir, `${name}.log`) }),
    must,
    answers: url =>
      fetch(url).then(
        () => true,
        () => false,
      ),
  };
}
