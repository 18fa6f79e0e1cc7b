import { mkdirSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SMALLEST_PART } from '../../src/storage/object/parts.js';
import { Bucket } from '../../src/storage/s3/bucket.js';
import type { S3Options } from '../../src/storage/s3/options.js';
import { S3Driver } from '../../src/storage/s3.js';
import type { CrashPlace } from '../crash/suite.js';
import type { Place } from '../storage/places.js';
import { freePort } from './ports.js';
import { Daemon, requireTools } from './process.js';

const MIB = 1024 * 1024;

/** An S3 service on loopback: versitygw over a folder of its own. */
export class Versitygw {
  static readonly credentials = { accessKeyId: 'test', secretAccessKey: 'testsecret' };
  #buckets = 0;

  private constructor(
    readonly dir: string,
    readonly port: number,
    private daemon: Daemon,
  ) {}

  static async start(): Promise<Versitygw> {
    requireTools('versitygw');
    const dir = await mkdtemp(join(tmpdir(), 'versitygw-'));
    mkdirSync(join(dir, 'data'));
    const port = await freePort();
    return new Versitygw(dir, port, await run(dir, port));
  }

  get endpoint(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** Makes a bucket. */
  makeBucket(): string {
    const name = `bucket-${++this.#buckets}`;
    mkdirSync(join(this.dir, 'data', name));
    return name;
  }

  /** What reaches a bucket of this service. */
  options(bucket: string, more: Partial<S3Options> = {}): S3Options {
    return {
      bucket,
      region: 'us-east-1',
      endpoint: this.endpoint,
      pathStyle: true,
      credentials: Versitygw.credentials,
      root: '',
      secure: false,
      chunkSize: 10 * MIB,
      copy: { chunkSize: 32 * MIB, concurrency: 100, threshold: 32 * MIB },
      calm: 100,
      ...more,
    };
  }

  /** A bucket of its own, as the tests of every driver want it. */
  async place(more: Partial<S3Options> = {}): Promise<Place> {
    const bucket = this.makeBucket();
    return {
      connect: () => new S3Driver(this.options(bucket, more)),
      remove: () => rm(join(this.dir, 'data', bucket), { recursive: true }),
      wholeSeconds: true,
    };
  }

  /** The same for the tests of processes that are killed. */
  async crashPlace(): Promise<CrashPlace> {
    const options = this.options(this.makeBucket());
    const { bucket, region, endpoint, credentials } = options;
    const { accessKeyId, secretAccessKey } = credentials!;
    return {
      storage: {
        s3: {
          ...{ bucket, region, regionendpoint: endpoint, chunksize: SMALLEST_PART },
          ...{ accesskey: accessKeyId, secretkey: secretAccessKey },
        },
      },
      connect: () => new S3Driver(options),
      leftovers: async () => {
        const opened = new Bucket(options);
        const { length } = await opened.unfinishedUploads('');
        opened.close();
        return length;
      },
    };
  }

  /** On the same folder and port. @param flags of versitygw */
  async restart(...flags: string[]): Promise<void> {
    await this.kill();
    this.daemon = await run(this.dir, this.port, flags);
  }

  async kill(): Promise<void> {
    await this.daemon.stop('SIGKILL');
  }

  async stop(): Promise<void> {
    await this.daemon.stop('SIGKILL');
    await rm(this.dir, { recursive: true });
  }
}

/** What serves the folders in a folder as buckets, on loopback. */
export function gateway(port: number, folder: string, flags: readonly string[] = []) {
  const { accessKeyId, secretAccessKey } = Versitygw.credentials;
  return {
    argv: ['versitygw', '-q', ...flags, '--port', `127.0.0.1:${port}`, 'posix', folder],
    env: { ROOT_ACCESS_KEY: accessKeyId, ROOT_SECRET_KEY: secretAccessKey },
  };
}

/** The variables by which ours and `registry:2` both find a bucket of it. */
export function bucketVariables(endpoint: string, bucket: string): Record<string, string> {
  return {
    REGISTRY_STORAGE: 's3',
    REGISTRY_STORAGE_S3_BUCKET: bucket,
    REGISTRY_STORAGE_S3_REGION: 'us-east-1',
    REGISTRY_STORAGE_S3_REGIONENDPOINT: endpoint,
    REGISTRY_STORAGE_S3_FORCEPATHSTYLE: 'true',
    REGISTRY_STORAGE_S3_SECURE: 'false',
    REGISTRY_STORAGE_S3_V4AUTH: 'true',
    REGISTRY_STORAGE_S3_ACCESSKEY: Versitygw.credentials.accessKeyId,
    REGISTRY_STORAGE_S3_SECRETKEY: Versitygw.credentials.secretAccessKey,
    REGISTRY_STORAGE_REDIRECT_DISABLE: 'true',
  };
}

async function run(dir: string, port: number, flags: readonly string[] = []): Promise<Daemon> {
  const { argv, env } = gateway(port, join(dir, 'data'), flags);
  const daemon = new Daemon('versitygw', argv, { env: { ...env, HOME: dir }, log: join(dir, 'log') });
  await daemon.ready(() =>
    fetch(`http://127.0.0.1:${port}/`).then(
      () => true,
      () => false,
    ),
  );
  return daemon;
}
