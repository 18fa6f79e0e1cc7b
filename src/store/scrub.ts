import { setTimeout as pause } from 'node:timers/promises';
import type { Digest } from '../reference.js';
import type { StorageDriver } from '../storage/driver.js';
import { everyRepository } from './collector.js';
import { scrubBlobs } from './scrub-blobs.js';
import { type SecondLook, scrubRepository } from './scrub-repository.js';
import type { Store } from './store.js';
import type { Validation } from './validation.js';

/**
 * - `corrupt-blob`: bytes are not what their digest says, or cannot be read.
 * - `broken-image`: a manifest, or something that it needs, is missing or corrupt.
 * - `torn-link`: a link file that holds no digest, as a crash of `registry:2` leaves it.
 * - `dangling-tag`: a tag on a manifest that the repository does not have.
 * - `wrong-record`: what is noted of a manifest is not so.
 * - `missing-record`: nothing is noted of a manifest, or of its being a referrer, since `registry:2` wrote it.
 * - `orphan`: a link to bytes that are gone, and nothing needs, as the collector of `registry:2` leaves it; or a note of a
 *   manifest that is gone.
 */
type FindingKind =
  | 'corrupt-blob'
  | 'broken-image'
  | 'torn-link'
  | 'dangling-tag'
  | 'wrong-record'
  | 'missing-record'
  | 'orphan';

/** So long must a finding last (ms): then it is no push or delete that is under way. */
const PATIENCE = 500;

/** How many findings wait for that at a time. */
const MOST_SUSPECTS = 1_000;

export interface Finding {
  readonly kind: FindingKind;
  readonly repository?: string;
  /** The tags that lead to it. */
  readonly tags?: readonly string[];
  readonly digest?: Digest;
  /** Where it is in the storage. */
  readonly key?: string;
  /** One line. */
  readonly message: string;
  /** What was done about it; undefined where that was not asked for, or nothing can be. */
  readonly repaired?: string;
}

/** Harmless: the registry works as if these were not there. */
const NOTES: ReadonlySet<FindingKind> = new Set(['missing-record', 'orphan']);

/** Whether a finding means that something has been lost, and not that it is merely untidy. */
export function isLoss({ kind }: Finding): boolean {
  return !NOTES.has(kind);
}

/** What is left to do about a finding: corrupt bytes that were moved away have to be pushed again all the same. */
export function isOpen(finding: Finding): boolean {
  return isLoss(finding) && (finding.repaired === undefined || finding.kind === 'corrupt-blob');
}

export interface ScrubOptions {
  readonly repair: boolean;
  readonly validation: Validation;
  readonly onFinding: (finding: Finding) => void;
  /** Told of the report as it grows. */
  readonly onProgress: (report: ScrubReport) => void;
  /** How long a finding in a repository must last (ms), since a push or a delete may be under way. */
  readonly patience?: number;
}

export interface ScrubReport {
  /** Of the blobs: what is to be read, as it was at the start. */
  totalBytes: number;
  blobs: number;
  /** That were read. */
  bytes: number;
  repositories: number;
  manifests: number;
  tags: number;
  /** Findings that mean a loss, and those that do not. */
  losses: number;
  notes: number;
  repaired: number;
  /** Whether nothing is lost, or all of it was mended. */
  clean: boolean;
}

/** What the parts of one run share. */
export interface ScrubRun {
  readonly driver: StorageDriver;
  readonly store: Store;
  readonly options: ScrubOptions;
  readonly report: ScrubReport;
  /** Canonical digests of blobs whose bytes are not what they should be. */
  readonly corrupt: Set<Digest>;
  found(finding: Finding): void;
}

/**
 * Reads every stored byte and checks that it is what its digest says, then every link and what it leads to, while others
 * push, pull and delete. Memory does not grow with the store, but with what is found, and with the largest repository.
 */
export async function scrub(driver: StorageDriver, store: Store, options: ScrubOptions): Promise<ScrubReport> {
  const report: ScrubReport = {
    totalBytes: 0,
    blobs: 0,
    bytes: 0,
    repositories: 0,
    manifests: 0,
    tags: 0,
    losses: 0,
    notes: 0,
    repaired: 0,
    clean: true,
  };
  const run: ScrubRun = {
    driver,
    store,
    options,
    report,
    corrupt: new Set(),
    found(finding) {
      report[isLoss(finding) ? 'losses' : 'notes'] += 1;
      if (finding.repaired !== undefined) report.repaired += 1;
      if (isOpen(finding)) report.clean = false;
      options.onFinding(finding);
    },
  };
  await scrubBlobs(run);
  // Together, for a volume of `registry:2` has something in every repository.
  let waiting: SecondLook[] = [];
  const lookAgain = async () => {
    if (waiting.length > 0) await pause(options.patience ?? PATIENCE);
    for (const look of waiting) await look.again();
    waiting = [];
  };
  for await (const { name } of everyRepository(driver)) {
    const look = await scrubRepository(run, name);
    if (look) waiting.push(look);
    report.repositories += 1;
    options.onProgress(report);
    if (waiting.reduce((sum, { suspects }) => sum + suspects, 0) >= MOST_SUSPECTS) await lookAgain();
  }
  await lookAgain();
  return report;
}
