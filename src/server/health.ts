import type { StorageDriver } from '../storage/driver.js';
import type { Log } from './log.js';

/** In a few words, which anybody may read. */
export interface Health {
  /** Whether it can be pulled from. */
  readonly healthy: boolean;
  readonly status: string;
}

export interface HealthWatch extends Health {
  close(): void;
}

/** Pulls go on, so whoever restarts what is not healthy would only end them. */
const IMPEDIMENTS = {
  full: 'ok, but the storage is full: nothing can be pushed',
  failed: 'ok, but the storage takes no more writes: nothing can be pushed',
};

/**
 * Looks at the storage in the background, so that asking for the health costs nothing.
 * @param options.interval in milliseconds
 * @param options.threshold how many looks must fail in a row
 */
export function watchHealth(
  driver: StorageDriver,
  log: Log,
  { enabled, interval, threshold }: { enabled: boolean; interval: number; threshold: number },
): HealthWatch {
  let failures = 0;
  let impediment: keyof typeof IMPEDIMENTS | undefined;
  let looking = false;
  const look = async () => {
    // A look that hangs, as on a dead NFS server, is a failed one.
    if (looking) failures++;
    else {
      looking = true;
      await see().then(
        found => {
          if (failures >= threshold) log.info('the storage answers again');
          failures = 0;
          if (found === 'full' && impediment !== 'full')
            log.error(
              'the storage is full: pulls go on, pushes are refused until there is room again, see docs/operations.md',
            );
          if (found === undefined && impediment === 'full') log.info('the storage has room again');
          impediment = found;
        },
        error => {
          failures++;
          if (failures === threshold) log.error('the storage does not answer', { error });
        },
      );
      looking = false;
    }
  };
  const see = async () => {
    await driver.stat('docker');
    return driver.impediment?.();
  };
  const timer = enabled ? setInterval(look, interval).unref() : undefined;
  return {
    get healthy() {
      return failures < threshold;
    },
    get status() {
      if (failures >= threshold) return 'the storage does not answer';
      return impediment === undefined ? 'ok' : IMPEDIMENTS[impediment];
    },
    close: () => clearInterval(timer),
  };
}
