import { setTimeout as pause } from 'node:timers/promises';
import type { AuditEvent } from '../audit/event.js';
import type { Config } from '../config/schema.js';
import { parseGlob } from '../glob.js';
import type { StorageDriver } from '../storage/driver.js';
import type { AbandonedUploads } from '../store/abandoned.js';
import {
  type CollectOptions,
  type CollectorEvent,
  type CollectorReport,
  collect,
  purgeUploads,
} from '../store/collector.js';
import { lastCollected, recordCollected, whileAlone } from '../store/collector-lease.js';
import { inScope, type Scope } from '../store/retention.js';
import type { Log } from './log.js';

/** Nothing is cleaned up while the first clients come back after a start. */
const FIRST_LOOK_MS = 60_000;

/** What the configuration says about what is kept, and for how long. */
export function collectOptionsOf(config: Config): CollectOptions {
  const { gc, retention } = config.storage.maintenance;
  const policies = retention.policies.map(({ keeplast, keepdays, untagged, ...scope }) => ({
    ...scopeOf(scope),
    keepLast: keeplast,
    keepDays: keepdays,
    untagged,
  }));
  return {
    grace: gc.grace,
    untagged: gc.untagged,
    retention: { policies, dryRun: retention.dryrun },
    isImmutable: immutableOf(config),
  };
}

/** Which tags the configuration calls immutable. */
export function immutableOf({ storage }: Config): (repository: string, tag: string) => boolean {
  const scopes = storage.tag.immutable.map(scopeOf);
  return (repository, tag) => scopes.some(scope => inScope(scope, repository, tag));
}

function scopeOf({ repositories, tags }: { repositories: readonly string[]; tags: readonly string[] }): Scope {
  return { repositories: repositories.map(parseGlob), tags: tags.map(parseGlob) };
}

/** Which uploads were abandoned; undefined where they are kept. */
export function abandonedOf({ storage }: Config): AbandonedUploads | undefined {
  const { enabled, age, dryrun } = storage.maintenance.uploadpurging;
  return enabled ? { age, dryRun: dryrun } : undefined;
}

export interface Housekeeping {
  /** Stops what is running, and waits until it has. */
  close(): Promise<void>;
}

/**
 * Collects garbage and removes abandoned uploads from time to time, while the registry serves. Of several processes on one
 * store one does it.
 * @param mayWrite asked each time before it begins
 * @param record told of what was done, for the audit log
 */
export function startHousekeeping(
  driver: StorageDriver,
  config: Config,
  log: Log,
  mayWrite: () => boolean,
  record: (event: AuditEvent) => void = () => {},
): Housekeeping {
  const { gc, uploadpurging } = config.storage.maintenance;
  const uploads = abandonedOf(config);
  const stop = new AbortController();
  const jobs: Promise<void>[] = [];
  const start = (job: Omit<Job, 'log' | 'mayWrite'>) => {
    jobs.push(repeat({ ...job, log, mayWrite }, stop.signal));
  };
  if (gc.enabled) {
    let last: Date | undefined;
    const unleased = () => log.warn('the disk is full: collecting garbage without a lease, others may do the same');
    start({
      what: 'collection of garbage',
      interval: gc.interval,
      // Counted across restarts, and across all processes; this one's own also where there was no room to note it.
      last: async () => latest(await lastCollected(driver), last),
      task: signal =>
        whileAlone(
          driver,
          async () => {
            await collectGarbage(driver, config, log, signal, record);
            last = new Date();
          },
          unleased,
        ),
    });
  }
  if (uploads) {
    let last: Date | undefined;
    start({
      what: 'removal of abandoned uploads',
      interval: uploadpurging.interval,
      last: async () => last,
      task: async signal => {
        await purgeUploads(driver, uploads, { signal, onEvent: telling(log, { dryRun: uploads.dryRun }) });
        record({ type: 'maintenance.uploads', outcome: 'done', what: { 'dry run': uploads.dryRun } });
        last = new Date();
      },
    });
  }
  return {
    async close() {
      stop.abort();
      await Promise.all(jobs);
    },
  };
}

async function collectGarbage(
  driver: StorageDriver,
  config: Config,
  log: Log,
  signal: AbortSignal,
  record: (event: AuditEvent) => void,
): Promise<void> {
  const started = performance.now();
  const options = collectOptionsOf(config);
  const tell = telling(log, { retentionDryRun: options.retention?.dryRun });
  const onEvent = (event: CollectorEvent) => {
    tell(event);
    // Layers and blobs are too many, and have no names; of a tag the policy's word counts, as in the log.
    if (event.event === 'expired' && !options.retention?.dryRun) record(deleted(event.repository, { tag: event.name }));
    else if (event.event === 'removed' && event.kind === 'manifest')
      record(deleted(event.repository, { digest: event.name }));
  };
  const report = await collect(driver, { ...options, signal, onEvent });
  for (const problem of report.problems) log.warn(problem);
  log.info('collected garbage', {
    bytes: report.freedBytes,
    blobs: report.blobs.removed,
    layers: report.layers.removed,
    manifests: report.manifests.removed,
    tags: report.tags.removed,
    ms: Math.round(performance.now() - started),
  });
  record({ type: 'maintenance.gc', outcome: 'done', what: collected(report) });
  await recordCollected(driver, report);
}

function deleted(repository: string | undefined, what: { tag?: string; digest?: string }): AuditEvent {
  return { type: 'delete', outcome: 'done', via: 'collector', what: { repository, ...what } };
}

/** What a run has freed, as the audit log tells of it. */
function collected({ freedBytes, blobs, layers, manifests, tags }: CollectorReport) {
  return {
    bytes: freedBytes,
    blobs: blobs.removed,
    layers: layers.removed,
    manifests: manifests.removed,
    tags: tags.removed,
  };
}

function latest(one: Date | undefined, other: Date | undefined): Date | undefined {
  return one && other ? new Date(Math.max(one.getTime(), other.getTime())) : (one ?? other);
}

/** Logs what an operator may ask for one day: by name, what a policy or the age let go. */
function telling(
  log: Log,
  { dryRun = false, retentionDryRun = dryRun }: { dryRun?: boolean | undefined; retentionDryRun?: boolean | undefined },
): (event: CollectorEvent) => void {
  return event => {
    const kind = event.event === 'expired' ? 'tag' : event.event === 'removed' ? event.kind : undefined;
    const would = kind === 'tag' ? retentionDryRun : dryRun;
    // Of a tag the policy's word counts, not the deed that follows; layers and blobs are too many, and have no names.
    if (event.event === 'expired' || (event.event === 'removed' && (kind === 'manifest' || kind === 'upload')))
      log.info(`${would ? 'would remove' : 'removing'} the ${kind} ${event.name}`, { repository: event.repository });
  };
}

interface Job {
  readonly what: string;
  /** In milliseconds. */
  readonly interval: number;
  /** When it was done last. */
  readonly last: () => Promise<Date | undefined>;
  readonly task: (signal: AbortSignal) => Promise<unknown>;
  readonly mayWrite: () => boolean;
  readonly log: Log;
}

/** Does a job at each interval, after a failure at the next one, until the signal. Never rejects. */
async function repeat({ what, interval, last, task, mayWrite, log }: Job, stopped: AbortSignal): Promise<void> {
  let notBefore = 0;
  while (!stopped.aborted) {
    try {
      await pause(Math.min(interval, FIRST_LOOK_MS), undefined, { signal: stopped, ref: false });
      const due = ((await last())?.getTime() ?? 0) + interval;
      if (mayWrite() && Date.now() >= Math.max(notBefore, due)) await whileAllowed(task, mayWrite, stopped);
    } catch (error) {
      if (stopped.aborted) return;
      if (!mayWrite()) log.info(`${what}: stopped, since nothing may be written now`);
      else {
        notBefore = Date.now() + interval;
        log.error(`${what} failed`, { error });
      }
    }
  }
}

/** Stops the task when maintenance begins, which may be for a copy of the volume. */
async function whileAllowed(task: Job['task'], mayWrite: () => boolean, stopped: AbortSignal): Promise<void> {
  const forbidden = new AbortController();
  const watch = setInterval(() => mayWrite() || forbidden.abort(), 200).unref();
  try {
    await task(AbortSignal.any([stopped, forbidden.signal]));
  } finally {
    clearInterval(watch);
  }
}
