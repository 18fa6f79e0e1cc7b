import { OperatorError } from '../errors.js';
import { roughSize } from '../size.js';
import { type StorageDriver, StorageError } from '../storage/driver.js';
import { type CollectOptions, type CollectorReport, collect } from '../store/collector.js';
import { recordCollected, runningCollector, whileAlone } from '../store/collector-lease.js';
import { SIGNALS } from './signals.js';

/**
 * Collects garbage, with its progress where there is a terminal; a signal stops it between two objects.
 * @throws OperatorError when it was stopped, or another collector is at work on the same data
 */
export async function collectAlone(driver: StorageDriver, options: CollectOptions): Promise<CollectorReport> {
  const progress = process.stderr.isTTY ? showProgress() : undefined;
  const stop = new AbortController();
  const stopped = () => stop.abort();
  for (const signal of SIGNALS) process.once(signal, stopped);
  try {
    const onProgress = progress && { onProgress: progress.show };
    const run = () => collect(driver, { ...options, signal: stop.signal, ...onProgress });
    if (options.dryRun) return await run();
    const report = await whileAlone(driver, run, unleased);
    if (report) {
      await recordCollected(driver, report);
      return report;
    }
  } catch (error) {
    if (stop.signal.aborted)
      throw new OperatorError('stopped on the way', { fix: 'run it again for the rest: what is needed is untouched' });
    if (!(error instanceof StorageError)) throw error;
    const fix = 'check the disk, then run it again; what is needed is untouched';
    throw new OperatorError(`the storage failed: ${error.message}`, { fix, cause: error });
  } finally {
    progress?.end();
    for (const signal of SIGNALS) process.off(signal, stopped);
  }
  throw new OperatorError(`a collector is running already, ${await runningCollector(driver)}`, {
    fix: 'wait until it is done; one that was killed counts for ten minutes',
  });
}

function unleased(): void {
  process.stderr.write(
    'registry-secure: warning: the disk is full, so other collectors cannot be told of this one; that does no harm\n',
  );
}

/** One line on the terminal that is written anew as the run goes on. */
function showProgress(): { show: (report: CollectorReport) => void; end: () => void } {
  let last = 0;
  return {
    show(report) {
      if (performance.now() - last < 100) return;
      last = performance.now();
      const { repositories, manifests, blobs } = report;
      const blobsSeen = blobs.kept + blobs.removed;
      const line = `${repositories} repositories, ${manifests.kept + manifests.removed} manifests, ${blobsSeen} blobs: ${roughSize(report.freedBytes)} freed`;
      process.stderr.write(`\r\x1b[K${line}`);
    },
    end: () => void process.stderr.write('\r\x1b[K'),
  };
}
