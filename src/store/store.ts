import type { StorageDriver } from '../storage/driver.js';
import { Blobs } from './blobs.js';
import { Catalog } from './catalog.js';
import { GRACE, Leases } from './leases.js';
import { Locks } from './locks.js';
import { Manifests } from './manifests.js';
import { Referrers } from './referrers.js';
import { Search } from './search.js';
import { Uploads } from './uploads.js';
import type { Validation } from './validation.js';

export interface StoreOptions {
  /** In bytes. */
  readonly largestManifest: number;
  readonly validation: Validation;
  /** For how long the collector leaves alone what nothing refers to, in milliseconds; a day unless told. */
  readonly grace?: number;
}

/** What a registry means, with no HTTP in it. Memory holds caches only, so that any process can serve any request. */
export class Store {
  readonly blobs: Blobs;
  readonly uploads: Uploads;
  readonly manifests: Manifests;
  readonly referrers: Referrers;
  readonly search: Search;
  readonly catalog: Catalog;

  constructor(driver: StorageDriver, { largestManifest, validation, grace = GRACE }: StoreOptions) {
    const locks = new Locks();
    const leases = new Leases(driver, grace);
    this.catalog = new Catalog(driver, locks);
    this.blobs = new Blobs(driver, locks, leases, this.catalog);
    this.uploads = new Uploads(driver, this.blobs);
    this.manifests = new Manifests(driver, locks, leases, this.catalog, this.blobs, {
      largest: largestManifest,
      validation,
    });
    this.referrers = new Referrers(driver, this.manifests);
    this.search = new Search(driver, this.catalog, this.manifests);
  }
}
