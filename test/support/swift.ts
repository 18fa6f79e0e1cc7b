import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { SMALLEST_PART } from '../../src/storage/object/parts.js';
import { ObjectDriver, type ObjectDriverOptions } from '../../src/storage/object.js';
import type { SwiftOptions } from '../../src/storage/swift/options.js';
import { SwiftStore } from '../../src/storage/swift.js';
import type { CrashPlace } from '../crash/suite.js';
import type { Place } from '../storage/places.js';
import { freePorts } from './ports.js';
import { Daemon, must, requireTools } from './process.js';

const MIB = 1024 * 1024;

const USER = 'test:tester';
const PASSWORD = 'testing';

/** Makes the rings and the configuration of one server of each kind. Debian's own Python has the modules. */
const CONFIGURE = `
import sys; from swift.common.ring import RingBuilder; d, p, u, auth, digests = sys.argv[1], int(sys.argv[2]), *sys.argv[3:]
def w(n, app, port, x): open(d + '/' + n + '.conf', 'w').write(f"""[DEFAULT]\\nbind_ip=127.0.0.1\\nbind_port={port}\\nworkers=0\\nuser={u}\\nswift_dir={d}
devices={d}/node\\nmount_check=false\\nlog_address={d}/none\\nrecon_cache_path={d}\\nlock_path={d}\\n[pipeline:main]\\npipeline={app} {n}-server
[app:{n}-server]\\nuse=egg:swift#{n}\\naccount_autocreate=true\\n{x}""")
open(d + '/swift.conf', 'w').write('[swift-hash]\\nswift_hash_path_suffix=t\\n[storage-policy:0]\\nname=one\\ndefault=yes\\n')
for i, n in enumerate(['object', 'container', 'account'], 2):
    b = RingBuilder(4, 1, 0); b.add_dev(dict(region=1, zone=1, ip='127.0.0.1', port=p+i, device='d1', weight=1)); b.rebalance()
    b.get_ring().save(d + '/' + n + '.ring.gz'); w(n, '', p+i, '')
keystone = auth != 'tempauth'
f = ('catch_errors gatekeeper healthcheck memcache listing_formats tempurl ' + ('authtoken keystoneauth' if keystone else 'tempauth') + ' copy slo dlo').split()
# A busy machine is no broken one.
patient = 'error_suppression_limit=1000000\\nconn_timeout=20\\nconnect_timeout=20\\npool_timeout=20\\nio_timeout=20\\nnode_timeout=60\\n'
o = dict(tempurl='allowed_digests=' + digests, memcache=f'memcache_servers=127.0.0.1:{p+1}\\n' + patient, tempauth='user_test_tester=testing .admin', keystoneauth='operator_roles=admin')
x = ''.join(f'[filter:{n}]\\nuse=egg:swift#{n}\\n{o.get(n, "")}\\n' for n in f if n != 'authtoken')
if keystone: x += f"""[filter:authtoken]\\npaste.filter_factory=keystonemiddleware.auth_token:filter_factory\\nwww_authenticate_uri={auth}\\nauth_url={auth}
auth_type=password\\nproject_domain_id=default\\nuser_domain_id=default\\nproject_name=admin\\nusername=admin\\npassword=testing\\ndelay_auth_decision=true\\n"""
w('proxy', ' '.join(f), p, patient + x)
`;

/** OpenStack Swift on loopback: one server of each kind. */
export class Swift {
  #containers = 0;

  private constructor(
    private readonly dir: string,
    readonly port: number,
    private readonly daemons: readonly Daemon[],
  ) {}

  /**
   * @param options.keystone URL of one that knows the user `admin`; TempAuth unless told
   * @param options.digests by which temporary URLs may be signed
   */
  static async start({ keystone = 'tempauth', digests = 'sha256 sha512' } = {}): Promise<Swift> {
    requireTools('swift-proxy-server', 'memcached');
    const dir = await mkdtemp(join(tmpdir(), 'swift-'));
    await mkdir(join(dir, 'node/d1'), { recursive: true });
    const port = await freePorts(5);
    const user = userInfo().username;
    const script = join(dir, 'configure.py');
    await writeFile(script, CONFIGURE);
    await must(['/usr/bin/python3', script, dir, String(port), user, keystone, digests]);
    const daemon = (name: string, ...argv: string[]) => new Daemon(name, argv, { log: join(dir, `${name}.log`) });
    const daemons = [
      daemon('memcached', 'memcached', '-u', user, '-l', '127.0.0.1', '-p', String(port + 1), '-U', '0', '-m', '16'),
      ...['account', 'container', 'object', 'proxy'].map(name =>
        daemon(`swift-${name}`, `swift-${name}-server`, join(dir, `${name}.conf`), '-v'),
      ),
    ];
    const service = new Swift(dir, port, daemons);
    // The proxy would take one that does not listen yet for broken, and leave it out for a minute.
    for (const [index, daemon] of daemons.slice(1).entries())
      await daemon.ready(() => listens(port + [4, 3, 2, 0][index]!));
    return service;
  }

  get endpoint(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** A request of TempAuth's user. */
  async call(method: string, path: string, init: RequestInit = {}): Promise<Response> {
    const login = await fetch(`${this.endpoint}/auth/v1.0`, {
      headers: { 'x-auth-user': USER, 'x-auth-key': PASSWORD },
    });
    const headers = { ...(init.headers as object), 'x-auth-token': login.headers.get('x-auth-token')! };
    const response = await fetch(`${login.headers.get('x-storage-url')}/${path}`, { ...init, method, headers });
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status}`);
    return response;
  }

  /** Makes a container. */
  async makeContainer(): Promise<string> {
    const name = `container-${++this.#containers}`;
    await this.call('PUT', name);
    return name;
  }

  /** What reaches a container of this service by TempAuth. */
  options(container: string, more: Partial<SwiftOptions> = {}): SwiftOptions {
    return {
      authUrl: `${this.endpoint}/auth/v1.0`,
      authVersion: 1,
      login: { user: USER, password: PASSWORD },
      interface: 'public',
      container,
      root: '',
      skipVerify: false,
      ...more,
    };
  }

  driver(options: SwiftOptions, more: Partial<ObjectDriverOptions> = {}): ObjectDriver {
    return new ObjectDriver(new SwiftStore(options), { chunkSize: 10 * MIB, readOnly: false, ...more });
  }

  /** A container of its own, as the tests of every driver want it. */
  async place(more: Partial<ObjectDriverOptions> = {}): Promise<Place> {
    const container = await this.makeContainer();
    return {
      connect: () => this.driver(this.options(container, { pageSize: 100 }), more),
      remove: async () => {},
      share: process.env.LONG === '1' ? 1 : 0.25,
    };
  }

  /** The same for the tests of processes that are killed. */
  async crashPlace(): Promise<CrashPlace> {
    const container = await this.makeContainer();
    const list = async (prefix: string) => {
      const answer = await this.call('GET', `${container}?format=json&limit=10000&prefix=${prefix}`);
      return (await answer.json()) as Array<{ name: string; slo_etag?: string }>;
    };
    return {
      storage: {
        swift: {
          ...{ authurl: `${this.endpoint}/auth/v1.0`, username: USER, password: PASSWORD },
          ...{ container, chunksize: SMALLEST_PART },
        },
      },
      env: { REGISTRY_WORKERS: '1' },
      connect: () => this.driver(this.options(container)),
      leftovers: async () => {
        const named = new Set<string>();
        for (const { name, slo_etag: large } of await list('files/')) {
          if (large === undefined) continue;
          const manifest = await this.call('GET', `${container}/${name}?multipart-manifest=get`);
          for (const part of (await manifest.json()) as Array<{ name: string }>) named.add(part.name);
        }
        return (await list('segments/')).filter(({ name }) => !named.has(`/${container}/${name}`)).length;
      },
    };
  }

  async stop(): Promise<void> {
    await Promise.all(this.daemons.map(daemon => daemon.stop('SIGKILL')));
    await rm(this.dir, { recursive: true });
  }
}

function listens(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });
}
