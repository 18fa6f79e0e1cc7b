import type { Others } from '../others.js';
import type { StorageDriver } from '../storage/driver.js';
import { Blobs } from './blobs.js';
import { Catalog } from './catalog.js';
import { ImmutableTags } from './immutable.js';
import { type Corruption, Integrity, type VerifyMode } from './integrity.js';
import { GRACE, Leases } from './leases.js';
import { Locks } from './locks.js';
import { Manifests } from './manifests.js';
import { Overview } from './overview.js';
import { type QuotaLimits, Quotas } from './quotas.js';
import { Referrers } from './referrers.js';
import { Search } from './search.js';
import { UploadCap } from './upload-cap.js';
import { type Reread, Uploads } from './uploads.js';
import type { Validation } from './validation.js';

export interface StoreOptions {
  /** In bytes. */
  readonly largestManifest: number;
  readonly validation: Validation;
  /** For how long the collector leaves alone what nothing refers to, in milliseconds; a day unless told. */
  readonly grace?: number;
  /** Which tags never change; none unless told. */
  readonly isImmutable?: (repository: string, tag: string) => boolean;
  readonly quotas?: QuotaLimits;
  /** How many unfinished uploads a principal may have; any number unless told. */
  readonly openUploads?: number;
  /** When a pulled blob is hashed: `daily` unless told. */
  readonly verify?: VerifyMode;
  /** Told of each blob and manifest whose bytes turn out to be others than its digest says. */
  readonly onCorruption?: (found: Corruption) => void;
  /** Told of each upload whose bytes were read again for its digest. */
  readonly onReread?: (reread: Reread) => void;
  /** None unless told. */
  readonly others?: Others;
}

/** What a registry means, with no HTTP in it. Memory holds caches only, so that any process can serve any request. */
export class Store {
  readonly blobs: Blobs;
  readonly uploads: Uploads;
  readonly manifests: Manifests;
  readonly referrers: Referrers;
  readonly search: Search;
  readonly catalog: Catalog;
  readonly quotas: Quotas;
  readonly overview: Overview;

  constructor(driver: StorageDriver, options: StoreOptions) {
    const { largestManifest, validation, grace = GRACE, verify = 'daily' } = options;
    const { onCorruption = () => {}, onReread = () => {} } = options;
    const locks = new Locks();
    const integrity = new Integrity(verify, onCorruption, options.others);
    const leases = new Leases(driver, integrity, grace);
    const immutable = new ImmutableTags(driver, options.isImmutable ?? (() => false));
    this.catalog = new Catalog(driver, locks, immutable);
    this.quotas = new Quotas(driver, this.catalog, options.quotas ?? {}, options.others);
    this.blobs = new Blobs(driver, locks, leases, integrity, this.quotas, this.catalog, immutable);
    this.uploads = new Uploads(
      driver,
      this.blobs,
      this.quotas,
      new UploadCap(driver, options.openUploads ?? 0, options.others),
      onReread,
    );
    this.manifests = new Manifests(driver, locks, leases, integrity, this.quotas, immutable, this.catalog, this.blobs, {
      largest: largestManifest,
      validation,
    });
    this.referrers = new Referrers(driver, this.manifests);
    this.search = new Search(driver, this.catalog, this.manifests);
    this.overview = new Overview(driver, this.catalog, this.manifests);
  }
}
