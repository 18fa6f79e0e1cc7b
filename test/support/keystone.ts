import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { freePort } from './ports.js';
import { Daemon, must, requireTools } from './process.js';

/** OpenStack's identity service on loopback, version 3: the user `admin` of the project `admin` has the password `testing`. */
export class Keystone {
  #storage = '';

  private constructor(
    private readonly dir: string,
    private readonly port: number,
    private readonly daemon: Daemon,
  ) {}

  static async start(): Promise<Keystone> {
    requireTools('keystone-manage', 'uwsgi');
    const dir = await mkdtemp(join(tmpdir(), 'keystone-'));
    const port = await freePort();
    const keys = join(dir, 'keys');
    await mkdir(keys, { mode: 0o700 });
    const config = join(dir, 'keystone.conf');
    await writeFile(
      config,
      `[DEFAULT]\nlog_file = ${dir}/log\n[database]\nconnection = sqlite:///${dir}/keystone.db\n` +
        `[fernet_tokens]\nkey_repository = ${keys}\n[token]\nprovider = fernet\n[cache]\nenabled = false\n`,
    );
    const manage = (...argv: string[]) => must(['keystone-manage', '--config-file', config, ...argv]);
    const url = `http://127.0.0.1:${port}/v3`;
    const { username } = userInfo();
    await manage('db_sync');
    await manage('fernet_setup', '--keystone-user', username, '--keystone-group', username);
    const urls = ['public', 'internal', 'admin'].flatMap(kind => [`--bootstrap-${kind}-url`, url]);
    await manage('bootstrap', '--bootstrap-password', 'testing', '--bootstrap-region-id', 'one', ...urls);
    const daemon = new Daemon(
      'keystone',
      [
        ...['uwsgi', '--plugin', 'python3', '--http-socket', `127.0.0.1:${port}`, '--enable-threads', '--lazy-apps'],
        ...['--wsgi-file', (await must(['which', 'keystone-wsgi-public'])).trim()],
      ],
      { env: { OS_KEYSTONE_CONFIG_DIR: dir, HOME: dir }, log: join(dir, 'uwsgi.log') },
    );
    await daemon.ready(() =>
      fetch(url).then(
        ({ ok }) => ok,
        () => false,
      ),
    );
    return new Keystone(dir, port, daemon);
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}/v3`;
  }

  /** Tells whoever logs in where an object store is. */
  async register(storage: string, region: string): Promise<void> {
    this.#storage = storage;
    const { token, project } = await this.#login();
    const post = async (what: string, body: object) => {
      const headers = { 'content-type': 'application/json', 'x-auth-token': token };
      const answer = await fetch(`${this.url}/${what}`, { method: 'POST', headers, body: JSON.stringify(body) });
      if (!answer.ok) throw new Error(`${what}: ${answer.status} ${await answer.text()}`);
      return (await answer.json()) as { service: { id: string } };
    };
    const { service } = await post('services', { service: { type: 'object-store', name: 'swift' } });
    const url = `${storage}/v1/AUTH_${project}`;
    await post('endpoints', { endpoint: { service_id: service.id, interface: 'public', region, url } });
  }

  /** In the object store that was registered. */
  async makeContainer(name: string): Promise<void> {
    const { token, project } = await this.#login();
    const url = `${this.#storage}/v1/AUTH_${project}/${name}`;
    const { ok, status } = await fetch(url, { method: 'PUT', headers: { 'x-auth-token': token } });
    if (!ok) throw new Error(`no container ${name} was made: ${status}`);
  }

  /** An application credential of the user. */
  async makeCredential(): Promise<{ credential: string; secret: string }> {
    const { token, user } = await this.#login();
    const answer = await fetch(`${this.url}/users/${user}/application_credentials`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'x-auth-token': token },
      body: JSON.stringify({ application_credential: { name: 'registry', secret: 'credential-secret' } }),
    });
    const { application_credential: made } = (await answer.json()) as { application_credential: { id: string } };
    return { credential: made.id, secret: 'credential-secret' };
  }

  async stop(): Promise<void> {
    await this.daemon.stop('SIGKILL');
    await rm(this.dir, { recursive: true });
  }

  async #login(): Promise<{ token: string; project: string; user: string }> {
    const domain = { id: 'default' };
    const identity = { methods: ['password'], password: { user: { name: 'admin', password: 'testing', domain } } };
    const answer = await fetch(`${this.url}/auth/tokens`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ auth: { identity, scope: { project: { name: 'admin', domain } } } }),
    });
    const { token } = (await answer.json()) as { token: { project: { id: string }; user: { id: string } } };
    return { token: answer.headers.get('x-subject-token')!, project: token.project.id, user: token.user.id };
  }
}
