import { after, before, describe } from 'node:test';
import { Ceph } from './ceph.js';
import { Minio } from './minio.js';
import type { S3Service } from './s3-service.js';
import { Versitygw } from './versitygw.js';

const { CEPH_TEST, MINIO_TEST } = process.env;

/** The services of S3 that this run is about: the heavy ones for whoever has them at hand. */
export const S3_SERVICES: Readonly<Record<string, () => Promise<S3Service>>> = {
  versitygw: () => Versitygw.start(),
  ...(CEPH_TEST && { Ceph: () => Ceph.start() }),
  ...(MINIO_TEST && { MinIO: () => Minio.start() }),
};

/** Describes the same of each of them. @param tests is told how to get at the service, which is there once tests run */
export function onEachS3(tests: (service: () => S3Service) => void, options: { readonly timeout?: number } = {}): void {
  for (const [name, start] of Object.entries(S3_SERVICES))
    describe(`on ${name}`, options, () => {
      let service: S3Service;
      before(async () => {
        service = await start();
      });
      after(() => service?.stop());
      tests(() => service);
    });
}
