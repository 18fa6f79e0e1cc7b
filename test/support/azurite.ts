import { mkdtemp, rm } from 'node:fs/promises';
import https from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ContainerClient, newPipeline, StorageSharedKeyCredential } from '@azure/storage-blob';
import type { AzureOptions } from '../../src/storage/azure/options.js';
import { AzureStore } from '../../src/storage/azure.js';
import { ObjectDriver, type ObjectDriverOptions } from '../../src/storage/object.js';
import type { CrashPlace } from '../crash/suite.js';
import type { Place } from '../storage/places.js';
import { freePort } from './ports.js';
import { Daemon, requireTools } from './process.js';

const MIB = 1024 * 1024;

/** The one account that it has. The key is published with it. */
const ACCOUNT = 'devstoreaccount1';
const KEY = 'Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==';

/** Azure Blob Storage on loopback: azurite, which keeps all in memory. */
export class Azurite {
  #containers = 0;

  private constructor(
    private readonly dir: string,
    readonly port: number,
    private daemon: Daemon,
    private readonly flags: readonly string[],
  ) {}

  /** @param flags of azurite-blob */
  static async start(...flags: string[]): Promise<Azurite> {
    requireTools('azurite-blob');
    const dir = await mkdtemp(join(tmpdir(), 'azurite-'));
    const port = await freePort();
    return new Azurite(dir, port, await run(dir, port, flags), flags);
  }

  get endpoint(): string {
    return `http${this.agent ? 's' : ''}://127.0.0.1:${this.port}`;
  }

  /** Where it has a certificate, of nobody's. */
  private get agent(): https.Agent | undefined {
    return this.flags.includes('--cert') ? new https.Agent({ rejectUnauthorized: false }) : undefined;
  }

  /** Makes a container. */
  async makeContainer(): Promise<string> {
    const name = `container-${++this.#containers}`;
    await this.client(name).create();
    return name;
  }

  client(container: string): ContainerClient {
    const pipeline = newPipeline(new StorageSharedKeyCredential(ACCOUNT, KEY));
    const { agent } = this;
    pipeline.factories.push({
      create: next => ({ sendRequest: request => next.sendRequest(Object.assign(request, agent && { agent })) }),
    });
    return new ContainerClient(`${this.endpoint}/${ACCOUNT}/${container}`, pipeline);
  }

  /** What reaches a container of this service. @param endpoint of what stands before it */
  options(container: string, more: Partial<AzureOptions> & { endpoint?: string } = {}): AzureOptions {
    const { endpoint = this.endpoint, ...rest } = more;
    return {
      serviceUrl: `${endpoint}/${ACCOUNT}`,
      account: ACCOUNT,
      container,
      login: { key: KEY },
      root: '',
      skipVerify: false,
      ...rest,
    };
  }

  driver(options: AzureOptions, more: Partial<ObjectDriverOptions> = {}): ObjectDriver {
    return new ObjectDriver(new AzureStore(options), { chunkSize: 10 * MIB, readOnly: false, ...more });
  }

  /** A container of its own, as the tests of every driver want it. */
  async place(more: Partial<ObjectDriverOptions> = {}): Promise<Place> {
    const container = await this.makeContainer();
    return {
      connect: () => this.driver(this.options(container, { pageSize: 100 }), more),
      remove: async () => {
        await this.client(container).delete();
      },
      wholeSeconds: true,
      share: process.env.LONG === '1' ? 1 : 0.25,
    };
  }

  /** The same for the tests of processes that are killed. */
  async crashPlace(): Promise<CrashPlace> {
    const container = await this.makeContainer();
    const options = this.options(container);
    return {
      storage: { azure: { accountname: ACCOUNT, accountkey: KEY, container, serviceurl: options.serviceUrl } },
      connect: () => this.driver(options),
      leftovers: async () => {
        const count = async (includeUncommitedBlobs: boolean) => {
          let names = 0;
          for await (const _ of this.client(container).listBlobsFlat({ includeUncommitedBlobs })) names += 1;
          return names;
        };
        return (await count(true)) - (await count(false));
      },
    };
  }

  /** On the same port, with nothing in it. */
  async restart(): Promise<void> {
    this.daemon = await run(this.dir, this.port, this.flags);
  }

  async kill(): Promise<void> {
    await this.daemon.stop('SIGKILL');
  }

  async stop(): Promise<void> {
    await this.kill();
    await rm(this.dir, { recursive: true });
  }
}

async function run(dir: string, port: number, flags: readonly string[]): Promise<Daemon> {
  const daemon = new Daemon(
    'azurite',
    [
      'azurite-blob',
      ...['--blobHost', '127.0.0.1', '--blobPort', String(port), '--inMemoryPersistence'],
      // It is behind the SDK by a version or two.
      ...['--skipApiVersionCheck', '--silent', '--disableTelemetry', ...flags],
    ],
    { env: { HOME: dir }, log: join(dir, 'log') },
  );
  const scheme = flags.includes('--cert') ? 'https' : 'http';
  await daemon.ready(() =>
    fetch(`${scheme}://127.0.0.1:${port}/`).then(
      () => true,
      // A certificate of nobody's: it is there.
      error => scheme === 'https' && /CERT/.test(String((error as Error & { cause?: { code?: string } }).cause?.code)),
    ),
  );
  return daemon;
}
