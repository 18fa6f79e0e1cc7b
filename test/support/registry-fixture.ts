import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import http from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createApi } from '../../src/api/api.js';
import type { Services } from '../../src/api/route.js';
import { ANONYMOUS, type Identity } from '../../src/auth/identity.js';
import { type Authorise, policyMay } from '../../src/auth/policy.js';
import { RegistryError } from '../../src/errors.js';
import type { Digest } from '../../src/reference.js';
import { createRegistry, type Entrance } from '../../src/registry/registry.js';
import { createApp } from '../../src/server/app.js';
import { createListener, type Listener } from '../../src/server/listener.js';
import type { StorageDriver } from '../../src/storage/driver.js';
import { FilesystemDriver } from '../../src/storage/filesystem.js';
import type { Corruption, VerifyMode } from '../../src/store/integrity.js';
import { GRACE } from '../../src/store/leases.js';
import type { QuotaLimits } from '../../src/store/quotas.js';
import { Store } from '../../src/store/store.js';
import type { Reread } from '../../src/store/uploads.js';
import type { Validation } from '../../src/store/validation.js';
import { SETTLED } from '../storage/places.js';
import { digestOf, manifestOf, OCI_MANIFEST } from './content.js';
import { memoryLog } from './listener.js';

export * from './content.js';

export interface Answer {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: Buffer;
  /** The first error code of an error body. */
  readonly code: string | undefined;
  json(): unknown;
}

export interface CallOptions {
  readonly headers?: http.OutgoingHttpHeaders;
  readonly body?: Buffer | string | AsyncIterable<Buffer>;
  /** The user who asks; the fixture believes it. Empty: nobody. */
  readonly user?: string;
}

/** A registry that tests push to and pull from over plain HTTP on loopback. */
export abstract class RegistryUnderTest {
  private readonly agent = new http.Agent({ keepAlive: true });

  constructor(readonly port: number) {}

  /** The headers by which a user is known; by which the usual one is, where none is named. */
  protected abstract headersOf(user: string | undefined): http.OutgoingHttpHeaders;

  protected close(): void {
    this.agent.destroy();
  }

  async call(method: string, path: string, options: CallOptions = {}): Promise<Answer> {
    const { body, user } = options;
    const headers: http.OutgoingHttpHeaders = {
      ...options.headers,
      ...this.headersOf(user),
    };
    if ((typeof body === 'string' || Buffer.isBuffer(body)) && !('transfer-encoding' in headers))
      headers['content-length'] ??= Buffer.byteLength(body);
    const request = http.request({ host: '127.0.0.1', port: this.port, method, path, headers, agent: this.agent });
    const answered = new Promise<http.IncomingMessage>((resolve, reject) => {
      request.once('response', resolve).once('error', reject);
    });
    if (body === undefined || typeof body === 'string' || Buffer.isBuffer(body)) request.end(body);
    else {
      for await (const chunk of body) request.write(chunk);
      request.end();
    }
    const response = await answered;
    const chunks: Buffer[] = [];
    for await (const chunk of response) chunks.push(chunk as Buffer);
    const data = Buffer.concat(chunks);
    const json = () => JSON.parse(data.toString('utf8')) as unknown;
    const isError = response.statusCode! >= 400 && data.length > 0;
    return {
      status: response.statusCode!,
      headers: response.headers,
      body: data,
      code: isError ? (json() as { errors: Array<{ code: string }> }).errors[0]!.code : undefined,
      json,
    };
  }

  /** Pushes a blob in one request. */
  async pushBlob(repository: string, data: Buffer, user?: string): Promise<Digest> {
    const digest = digestOf(data);
    const { status } = await this.call('POST', `/v2/${repository}/blobs/uploads/?digest=${digest}`, {
      body: data,
      ...(user !== undefined && { user }),
    });
    if (status !== 201) throw new Error(`pushing a blob to ${repository}: ${status}`);
    return digest;
  }

  /** Pushes an image of one config and one layer. */
  async pushImage(
    repository: string,
    tag: string,
    content: Partial<Record<string, unknown>> = {},
  ): Promise<PushedImage> {
    const layer = randomBytes(100);
    const config = Buffer.from(
      JSON.stringify({ os: 'linux', architecture: 'amd64', unique: randomBytes(8).toString('hex') }),
    );
    const data = manifestOf(config, [layer], content);
    await this.pushBlob(repository, layer);
    await this.pushBlob(repository, config);
    const answer = await this.pushManifest(repository, tag, data);
    if (answer.status !== 201) throw new Error(`pushing ${repository}:${tag}: ${answer.status} ${answer.body}`);
    return { digest: digestOf(data), data, layer: digestOf(layer), config: digestOf(config) };
  }

  async pushManifest(
    repository: string,
    reference: string,
    data: Buffer,
    type: string = OCI_MANIFEST,
  ): Promise<Answer> {
    return this.call('PUT', `/v2/${repository}/manifests/${reference}`, {
      body: data,
      headers: { 'content-type': type },
    });
  }
}

/**
 * A registry over loopback HTTP on a folder of its own. It believes the user that a header names, and only the user
 * `insider` may read the repositories below `hidden/`, so that these tests are about the protocol and the store alone.
 */
export class RegistryFixture extends RegistryUnderTest {
  /** Everything that was reported as the server's fault: empty in most tests, and checked there. */
  readonly faults: unknown[] = [];
  /** What the API has told of. */
  readonly changes: unknown[] = [];
  /** Why nothing can be changed; undefined while it can. */
  readOnly: string | undefined;

  private constructor(
    readonly root: string,
    readonly driver: StorageDriver,
    readonly store: Store,
    private readonly listener: Listener,
    port: number,
  ) {
    super(port);
  }

  static async start(
    options: {
      prefix?: string;
      /** As the application has them. */
      headers?: readonly string[];
      everythingByFramework?: boolean;
      limits?: { manifestBytes?: number };
      root?: string;
      /** Another storage than a folder, not yet opened; whoever made it removes it after `stop`. */
      driver?: StorageDriver;
      deletes?: boolean;
      readOnlyVolume?: boolean;
      validation?: Partial<Validation>;
      verify?: VerifyMode;
      quotas?: QuotaLimits;
      openUploads?: number;
      onCorruption?: (found: Corruption) => void;
      onReread?: (reread: Reread) => void;
      isImmutable?: (repository: string, tag: string) => boolean;
      grace?: number;
      authorise?: Authorise;
      /** Who a user is beyond the name. */
      identityOf?: (name: string) => Identity;
      /** Of the API, beyond the store. */
      services?: Partial<Services>;
    } = {},
  ): Promise<RegistryFixture> {
    const root = options.root ?? (options.driver ? '' : await mkdtemp(join(tmpdir(), 'registry-test-')));
    const driver =
      options.driver ?? new FilesystemDriver({ root, readOnly: options.readOnlyVolume ?? false, settled: SETTLED });
    await driver.open();
    const manifestBytes = options.limits?.manifestBytes ?? 4 * 1024 * 1024;
    const store = new Store(driver, {
      largestManifest: manifestBytes,
      validation: { urls: undefined, indexes: 'all', images: 'all', ...options.validation },
      verify: options.verify ?? 'daily',
      quotas: options.quotas ?? {},
      grace: options.grace ?? GRACE,
      isImmutable: options.isImmutable ?? (() => false),
      openUploads: options.openUploads ?? 0,
      onCorruption: options.onCorruption ?? (found => fixture.faults.push(found)),
      onReread: options.onReread ?? (() => {}),
    });
    const authorise: Authorise =
      options.authorise ??
      ((identity, action, repository) =>
        (action !== 'pull' && action !== 'list') ||
        !repository?.startsWith('hidden/') ||
        (identity.kind === 'user' && identity.name === 'insider'));
    const whoAsks = (request: http.IncomingMessage): Identity => {
      const user = request.headers['x-test-user'];
      if (user === 'nobody') throw new RegistryError('UNAUTHORIZED');
      if (user === '') return ANONYMOUS;
      const name = String(user ?? 'tester');
      return options.identityOf?.(name) ?? { kind: 'user', name };
    };
    const entrance: Entrance = {
      prefix: options.prefix ?? '',
      deletes: options.deletes ?? true,
      readOnly: () => fixture.readOnly,
      // In both ways in which who asks may become known.
      authenticate: request =>
        options.everythingByFramework ? Promise.resolve(request).then(whoAsks) : whoAsks(request),
      refusal: () => new RegistryError('DENIED'),
      onFault: error => fixture.faults.push(error),
    };
    const registry = createRegistry({
      ...entrance,
      store,
      limits: { manifestBytes, catalogEntries: 1000, tagEntries: 1000 },
      issueToken: async () => undefined,
      authorise,
    });
    const api = createApi({
      ...entrance,
      onChange: async change => void fixture.changes.push(change),
      origin: '',
      services: {
        store,
        authorise,
        driver,
        userFile: undefined,
        policyDocument: undefined,
        authoriseBy: policy => policyMay(policy, { open: false }),
        policy: () => undefined,
        machineTokens: true,
        addressOf: request => request.socket.remoteAddress,
        oidc: undefined,
        ...options.services,
      },
    });
    const handler = createApp({
      registry,
      api,
      prefix: options.prefix ?? '',
      headers: () => options.headers ?? [],
      everythingByFramework: options.everythingByFramework ?? false,
      health: { healthy: true, status: 'ok' },
      pages: new Map(),
      onFault: error => fixture.faults.push(error),
      onIdentity: () => {},
    });
    const listener = createListener({ tls: 'plain', handler, log: memoryLog([]) });
    const { port } = await listener.listen({ host: '127.0.0.1', port: 0 });
    const fixture = new RegistryFixture(root, driver, store, listener, port);
    return fixture;
  }

  async stop(options: { keep?: boolean } = {}): Promise<void> {
    this.close();
    await this.listener.drain(0);
    await this.driver.close();
    if (!options.keep && this.root) await rm(this.root, { recursive: true, force: true });
  }

  protected override headersOf(user: string | undefined): http.OutgoingHttpHeaders {
    return user === undefined ? {} : { 'x-test-user': user };
  }
}

export interface PushedImage {
  readonly digest: Digest;
  readonly data: Buffer;
  readonly layer: Digest;
  readonly config: Digest;
}
