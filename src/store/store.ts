import type { StorageDriver } from '../storage/driver.js';
import { Blobs } from './blobs.js';
import { Catalog } from './catalog.js';
import { Locks } from './locks.js';
import { Manifests } from './manifests.js';
import { Uploads } from './uploads.js';

/** What a registry means, with no HTTP in it. Memory holds caches only, so that any process can serve any request. */
export class Store {
  readonly blobs: Blobs;
  readonly uploads: Uploads;
  readonly manifests: Manifests;
  readonly catalog: Catalog;

  /** @param options.largestManifest in bytes */
  constructor(driver: StorageDriver, options: { largestManifest: number }) {
    const locks = new Locks();
    this.catalog = new Catalog(driver, locks);
    this.blobs = new Blobs(driver, locks);
    this.uploads = new Uploads(driver, this.blobs);
    this.manifests = new Manifests(driver, locks, this.catalog, this.blobs, { largest: options.largestManifest });
  }
}
