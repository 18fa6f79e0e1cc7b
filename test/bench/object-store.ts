import { mkdirSync, readFileSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import type { Namespace } from '../support/namespace.js';
import type { Daemon } from '../support/process.js';
import { gateway } from '../support/versitygw.js';
import { cpuSeconds, type Usage } from './family.js';

const PORT = 7070;
const NEWLINE = 10;

/** An S3 service inside of the namespace, on the disk that its other folders are on, which counts what it is asked. */
export class ObjectStore {
  readonly endpoint = `http://127.0.0.1:${PORT}`;

  private constructor(
    private readonly dir: string,
    private readonly daemon: Daemon,
  ) {}

  static async start(namespace: Namespace): Promise<ObjectStore> {
    const dir = join(namespace.dir, 'objects');
    mkdirSync(join(dir, 'buckets'), { recursive: true });
    const { argv, env } = gateway(PORT, join(dir, 'buckets'), [
      '--keep-alive',
      '--access-log',
      join(dir, 'access.log'),
    ]);
    const store = new ObjectStore(dir, namespace.start('versitygw', argv, { env, cwd: dir }));
    await store.daemon.ready(() => namespace.answers(store.endpoint));
    return store;
  }

  /** @returns its folder, in which each object is a file */
  makeBucket(name: string): string {
    const folder = join(this.dir, 'buckets', `bucket-${name}`);
    mkdirSync(folder);
    return folder;
  }

  /** Begins to watch it; the function ends it. Only one can at a time. */
  watch(): () => NonNullable<Usage['store']> {
    const log = join(this.dir, 'access.log');
    const before = cpuSeconds(this.daemon.pid);
    // It appends to its log, which has a line for each request.
    truncateSync(log);
    return () => ({
      cpu: cpuSeconds(this.daemon.pid) - before,
      requests: readFileSync(log).reduce((lines, byte) => lines + (byte === NEWLINE ? 1 : 0), 0),
    });
  }
}
