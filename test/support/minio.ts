import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from './ports.js';
import { Daemon, requireTools } from './process.js';
import { S3Service } from './s3-service.js';

/** MinIO over a folder of its own. */
export class Minio extends S3Service {
  private constructor(
    private readonly dir: string,
    readonly port: number,
    private readonly daemon: Daemon,
  ) {
    super();
  }

  static async start(): Promise<Minio> {
    requireTools('minio');
    const dir = await mkdtemp(join(tmpdir(), 'minio-'));
    const port = await freePort();
    const { accessKeyId, secretAccessKey } = S3Service.credentials;
    const env = { MINIO_ROOT_USER: accessKeyId, MINIO_ROOT_PASSWORD: secretAccessKey, MINIO_BROWSER: 'off', HOME: dir };
    const argv = ['minio', 'server', '--quiet', '--address', `127.0.0.1:${port}`, join(dir, 'data')];
    const daemon = new Daemon('minio', argv, { env, log: join(dir, 'log') });
    await daemon.ready(() =>
      fetch(`http://127.0.0.1:${port}/minio/health/ready`).then(
        ({ ok }) => ok,
        () => false,
      ),
    );
    return new Minio(dir, port, daemon);
  }

  async stop(): Promise<void> {
    await this.daemon.stop('SIGKILL');
    await rm(this.dir, { recursive: true });
  }
}
