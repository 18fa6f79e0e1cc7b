import type { StorageDriver } from '../storage/driver.js';
import type { Log } from './log.js';

export interface Health {
  readonly healthy: boolean;
  close(): void;
}

/**
 * Looks at the storage in the background, so that asking for the health costs nothing.
 * @param options.interval in milliseconds
 * @param options.threshold how many looks must fail in a row
 */
export function watchHealth(
  driver: StorageDriver,
  log: Log,
  { enabled, interval, threshold }: { enabled: boolean; interval: number; threshold: number },
): Health {
  let failures = 0;
  let looking = false;
  const look = async () => {
    // A look that hangs, as on a dead NFS server, is a failed one.
    if (looking) failures++;
    else {
      looking = true;
      await driver.stat('docker').then(
        () => {
          if (failures >= threshold) log.info('the storage answers again');
          failures = 0;
        },
        error => {
          failures++;
          if (failures === threshold) log.error('the storage does not answer', { error });
        },
      );
      looking = false;
    }
  };
  const timer = enabled ? setInterval(look, interval).unref() : undefined;
  return {
    get healthy() {
      return failures < threshold;
    },
    close: () => clearInterval(timer),
  };
}
