import type { StorageDriver } from '../storage/driver.js';
import { type Maintenance, readMaintenance } from '../store/maintenance.js';
import type { Log } from './log.js';

export interface MaintenanceWatch {
  /** What to tell clients that want to change something; undefined while everything is served. */
  readonly refusal: string | undefined;
  close(): void;
}

/**
 * Looks whether maintenance has begun or ended, so that `registry-secure maintenance` reaches every process within a
 * second. While the storage does not answer, what was seen last counts.
 * @param interval in milliseconds
 */
export async function watchMaintenance(driver: StorageDriver, log: Log, interval = 500): Promise<MaintenanceWatch> {
  let current: Maintenance | undefined;
  let timer: NodeJS.Timeout | undefined;
  let closed = false;

  async function look(): Promise<void> {
    try {
      const seen = await readMaintenance(driver);
      if (closed) return;
      if (seen && !current)
        log.warn('read-only for maintenance; end it by: registry-secure maintenance off', { ...seen });
      if (!seen && current) log.info('maintenance is over: pushes and deletes are served again');
      current = seen;
    } catch {
      // The watch of the storage's health reports it.
    }
    if (!closed) timer = setTimeout(look, interval).unref();
  }

  await look();
  return {
    get refusal() {
      const { reason } = current ?? {};
      return current && `the registry is read-only for maintenance${reason ? `: ${reason}` : ''}`;
    },
    close() {
      closed = true;
      clearTimeout(timer);
    },
  };
}
