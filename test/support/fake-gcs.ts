import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import http, { type IncomingMessage, type ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import type { GcsOptions } from '../../src/storage/gcs/options.js';
import { GcsStore } from '../../src/storage/gcs.js';
import { SMALLEST_PART } from '../../src/storage/object/parts.js';
import { ObjectDriver, type ObjectDriverOptions } from '../../src/storage/object.js';
import type { CrashPlace } from '../crash/suite.js';
import type { Place } from '../storage/places.js';
import { freePort } from './ports.js';
import { Daemon, requireTools } from './process.js';

const MIB = 1024 * 1024;

/** Google Cloud Storage on loopback: fake-gcs-server, which keeps all in memory, behind what it lacks. */
export class FakeGcs {
  #buckets = 0;

  /** A service account of nobody's. Whatever it signs is believed. */
  static readonly credentials = {
    type: 'service_account',
    client_email: 'registry@example.iam.gserviceaccount.com',
    private_key: generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({
      type: 'pkcs8',
      format: 'pem',
    }) as string,
    private_key_id: '1',
    project_id: 'example',
  };

  private constructor(
    private readonly dir: string,
    private readonly inner: number,
    private readonly daemon: Daemon,
    private readonly conditions: Conditions,
  ) {}

  static async start(): Promise<FakeGcs> {
    requireTools('fake-gcs-server');
    const dir = await mkdtemp(join(tmpdir(), 'fake-gcs-'));
    const port = await freePort();
    const url = `http://127.0.0.1:${port}`;
    const daemon = new Daemon(
      'fake-gcs-server',
      [
        'fake-gcs-server',
        ...['-scheme', 'http', '-host', '127.0.0.1', '-port', String(port), '-backend', 'memory'],
        ...['-external-url', url, '-public-host', `127.0.0.1:${port}`, '-log-level', 'error'],
      ],
      { env: { HOME: dir }, log: join(dir, 'log') },
    );
    await daemon.ready(() =>
      fetch(`${url}/_internal/healthcheck`).then(
        ({ ok }) => ok,
        () => false,
      ),
    );
    return new FakeGcs(dir, port, daemon, await Conditions.start(port));
  }

  get port(): number {
    return this.conditions.port;
  }

  get endpoint(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** Makes a bucket. */
  async makeBucket(): Promise<string> {
    const name = `bucket-${++this.#buckets}`;
    const body = JSON.stringify({ name });
    const { ok } = await fetch(`http://127.0.0.1:${this.inner}/storage/v1/b?project=example`, { method: 'POST', body });
    if (!ok) throw new Error(`no bucket ${name} was made`);
    return name;
  }

  /** What reaches a bucket of this service. */
  options(bucket: string, more: Partial<GcsOptions> = {}): GcsOptions {
    return { bucket, root: '', endpoint: this.endpoint, credentials: FakeGcs.credentials, ...more };
  }

  driver(options: GcsOptions, more: Partial<ObjectDriverOptions> = {}): ObjectDriver {
    return new ObjectDriver(new GcsStore(options), { chunkSize: 10 * MIB, readOnly: false, ...more });
  }

  /** A bucket of its own, as the tests of every driver want it. */
  async place(more: Partial<ObjectDriverOptions> = {}): Promise<Place> {
    const bucket = await this.makeBucket();
    return {
      connect: () => this.driver(this.options(bucket, { pageSize: 100 }), more),
      remove: async () => {},
      wholeSeconds: true,
      share: process.env.LONG === '1' ? 1 : 0.25,
    };
  }

  /** The same for the tests of processes that are killed. */
  async crashPlace(): Promise<CrashPlace> {
    const bucket = await this.makeBucket();
    const connect = () => this.driver(this.options(bucket));
    return {
      storage: { gcs: { bucket, credentials: FakeGcs.credentials, chunksize: SMALLEST_PART } },
      env: { STORAGE_EMULATOR_HOST: this.endpoint },
      connect,
      leftovers: async () => {
        const driver = connect();
        const objects = await driver.list('registry-secure/tmp');
        await driver.close();
        return objects.length;
      },
    };
  }

  async kill(): Promise<void> {
    await this.daemon.stop('SIGKILL');
  }

  async stop(): Promise<void> {
    await this.conditions.stop();
    await this.kill();
    await rm(this.dir, { recursive: true });
  }
}

/**
 * What Google's service has and the fake has not: a metageneration, which each change of metadata raises and a later time of
 * change goes with, and conditions on it for PATCH and DELETE.
 */
class Conditions {
  readonly #server: http.Server;
  readonly #agent = new http.Agent({ keepAlive: true });
  /** By generation, which no two objects share. */
  readonly #changes = new Map<string, { metageneration: number; updated: Date }>();
  readonly #turns = new Map<string, Promise<void>>();

  private constructor(private readonly inner: number) {
    this.#server = http.createServer((request, response) => {
      this.#pass(request, response).catch(() => response.destroy());
    });
  }

  static async start(inner: number): Promise<Conditions> {
    const conditions = new Conditions(inner);
    conditions.#server.listen(0, '127.0.0.1');
    await once(conditions.#server, 'listening');
    return conditions;
  }

  get port(): number {
    return (this.#server.address() as { port: number }).port;
  }

  async stop(): Promise<void> {
    this.#agent.destroy();
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }

  async #pass(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method, url = '', headers } = request;
    const { pathname, searchParams } = new URL(url, 'http://localhost');
    const isJson = /^(?:\/upload)?\/storage\/v1\/b\/[^/]+\/o(?:\/|$)/.test(pathname);
    if (!isJson || (method === 'GET' && searchParams.get('alt') === 'media')) return this.#stream(request, response);
    const sent = async () => ({ method: method!, path: url, headers, body: await buffer(request) });
    if (method === 'GET') {
      const answer = await this.#forward(await sent());
      const body = answer.status === 200 ? Buffer.from(JSON.stringify(this.#told(answer.body))) : answer.body;
      return this.#answer(response, { ...answer, body });
    }
    const target = await targetOf(pathname, request);
    await this.#inTurn(target, async () => {
      if (method === 'POST') {
        const over = once(response, 'close');
        await this.#stream(request, response);
        await over;
        return;
      }
      const found = await this.#forward({ method: 'GET', path: target, headers: {}, body: Buffer.alloc(0) });
      const { generation } = found.status === 200 ? this.#told(found.body) : {};
      if (generation === undefined) return this.#answer(response, found);
      if ((searchParams.get('generation') ?? generation) !== generation)
        return void response.writeHead(404).end('{"error":{"message":"There is no such object."}}');
      if (!this.#holds(generation, searchParams))
        return void response.writeHead(412).end('{"error":{"message":"A condition does not hold."}}');
      if (method === 'PATCH') this.#change(generation);
      this.#answer(response, await this.#forward(await sent()));
    });
  }

  async #stream(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method, url: path, headers } = request;
    // Signed URLs have no path of an interface: it is the host by which they are known for what they are.
    const onward = http.request({
      ...{ host: '127.0.0.1', port: this.inner, agent: this.#agent, method, path },
      headers: { ...headers, host: `127.0.0.1:${this.inner}` },
    });
    request.once('error', error => onward.destroy(error)).pipe(onward);
    response.once('close', () => onward.destroy());
    const [answer] = (await once(onward, 'response')) as [IncomingMessage];
    const generation = answer.headers['x-goog-generation'];
    const { metageneration = 1, updated } = this.#changes.get(String(generation)) ?? {};
    response.writeHead(answer.statusCode!, {
      ...answer.headers,
      ...(generation !== undefined && { 'x-goog-metageneration': metageneration }),
      ...(updated && { 'last-modified': updated.toUTCString() }),
    });
    answer.once('error', () => response.destroy());
    answer.pipe(response);
  }

  #holds(generation: string, conditions: URLSearchParams): boolean {
    const expected = conditions.get('ifGenerationMatch');
    const { metageneration = 1 } = this.#changes.get(generation) ?? {};
    const meta = conditions.get('ifMetagenerationMatch');
    return (expected ?? generation) === generation && (meta ?? String(metageneration)) === String(metageneration);
  }

  #change(generation: string): void {
    const { metageneration = 1 } = this.#changes.get(generation) ?? {};
    this.#changes.set(generation, { metageneration: metageneration + 1, updated: new Date() });
  }

  /** What is told of an object, or of each in a list. */
  #told(body: Buffer): Told {
    const told = JSON.parse(body.toString()) as Told;
    return told.items ? { ...told, items: told.items.map(one => this.#changed(one)) } : this.#changed(told);
  }

  #changed(resource: Told): Told {
    const change = this.#changes.get(resource.generation ?? '');
    if (!change) return { ...resource, metageneration: '1' };
    return { ...resource, metageneration: String(change.metageneration), updated: change.updated.toISOString() };
  }

  async #inTurn(path: string, action: () => Promise<void>): Promise<void> {
    const turn = (this.#turns.get(path) ?? Promise.resolve()).then(action, action);
    this.#turns.set(path, turn);
    await turn;
  }

  #answer(response: ServerResponse, { status, headers, body }: Forwarded): void {
    const { 'transfer-encoding': _, ...rest } = headers;
    response.writeHead(status, { ...rest, 'content-length': body.length }).end(body);
  }

  #forward({ method, path, headers, body }: Sent): Promise<Forwarded> {
    return new Promise((resolve, reject) => {
      const request = http.request(
        { host: '127.0.0.1', port: this.inner, method, path, headers, agent: this.#agent },
        answer =>
          buffer(answer).then(
            data => resolve({ status: answer.statusCode!, headers: { ...answer.headers }, body: data }),
            reject,
          ),
      );
      request.once('error', reject).end(body);
    });
  }
}

/** What Google calls a resource. */
interface Told {
  readonly generation?: string;
  readonly metageneration?: string;
  readonly updated?: string;
  readonly items?: readonly Told[];
}

/** The path of the object that a request changes. That of an upload is at the beginning of its body. */
async function targetOf(pathname: string, request: IncomingMessage): Promise<string> {
  const [, root, name] =
    /^(\/storage\/v1\/b\/[^/]+\/o\/)(?:[^/]+\/rewriteTo\/b\/[^/]+\/o\/)?([^/]+)/.exec(pathname) ?? [];
  if (name !== undefined) return `${root}${name}`;
  await once(request, 'readable');
  const first = request.read() as Buffer | null;
  if (first) request.unshift(first);
  const [told] = /(?<="name":)"(?:[^"\\]|\\.)*"/.exec(first?.toString('latin1', 0, 4096) ?? '') ?? ['""'];
  return `${pathname.replace(/^\/upload/, '')}/${encodeURIComponent(JSON.parse(told) as string)}`;
}

interface Sent {
  readonly method: string;
  readonly path: string;
  readonly headers: http.OutgoingHttpHeaders;
  readonly body: Buffer;
}

interface Forwarded {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: Buffer;
}
