import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3';
import { SMALLEST_PART } from '../../src/storage/object/parts.js';
import { Bucket } from '../../src/storage/s3/bucket.js';
import type { S3Options } from '../../src/storage/s3/options.js';
import { S3Driver } from '../../src/storage/s3.js';
import type { CrashPlace } from '../crash/suite.js';
import type { Place } from '../storage/places.js';

const MIB = 1024 * 1024;

/** An S3 service on loopback, of the test's own. */
export abstract class S3Service {
  static readonly credentials = { accessKeyId: 'test', secretAccessKey: 'testsecret' };

  abstract readonly port: number;
  #buckets = 0;

  abstract stop(): Promise<void>;

  /** By the interface itself, where a service has no quicker way. @returns the name of an empty one */
  makeBucket(): string | Promise<string> {
    return this.#create(this.nextName());
  }

  protected nextName(): string {
    return `bucket-${++this.#buckets}`;
  }

  /** Of one that the service loses with all that it has, there need be nothing to do. */
  protected async removeBucket(_name: string): Promise<void> {}

  get endpoint(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** What reaches a bucket of this service. */
  options(bucket: string, more: Partial<S3Options> = {}): S3Options {
    return {
      bucket,
      region: 'us-east-1',
      endpoint: this.endpoint,
      pathStyle: true,
      credentials: S3Service.credentials,
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
    const bucket = await this.makeBucket();
    return {
      connect: () => new S3Driver(this.options(bucket, more)),
      remove: () => this.removeBucket(bucket),
      wholeSeconds: true,
    };
  }

  /** The same for the tests of processes that are killed. */
  async crashPlace(): Promise<CrashPlace> {
    const options = this.options(await this.makeBucket());
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

  async #create(name: string): Promise<string> {
    const { region, credentials } = this.options(name);
    const client = new S3Client({ endpoint: this.endpoint, region, credentials: credentials!, forcePathStyle: true });
    await client.send(new CreateBucketCommand({ Bucket: name }));
    client.destroy();
    return name;
  }
}
