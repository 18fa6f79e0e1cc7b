import { mkdirSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from './ports.js';
import { Daemon, requireTools } from './process.js';
import { S3Service } from './s3-service.js';

/** versitygw over a folder of its own. */
export class Versitygw extends S3Service {
  private constructor(
    readonly dir: string,
    readonly port: number,
    private daemon: Daemon,
  ) {
    super();
  }

  static async start(): Promise<Versitygw> {
    requireTools('versitygw');
    const dir = await mkdtemp(join(tmpdir(), 'versitygw-'));
    mkdirSync(join(dir, 'data'));
    const port = await freePort();
    return new Versitygw(dir, port, await run(dir, port));
  }

  override makeBucket(): string {
    const name = this.nextName();
    mkdirSync(join(this.dir, 'data', name));
    return name;
  }

  protected override async removeBucket(name: string): Promise<void> {
    await rm(join(this.dir, 'data', name), { recursive: true });
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
