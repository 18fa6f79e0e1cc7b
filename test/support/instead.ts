import type { StorageDriver } from '../../src/storage/driver.js';

/** A driver of which some methods do something else. */
export function instead(driver: StorageDriver, methods: Partial<StorageDriver>): StorageDriver {
  return new Proxy(driver, {
    get: (_, name: keyof StorageDriver) => {
      const member = methods[name] ?? driver[name];
      return typeof member === 'function' ? member.bind(driver) : member;
    },
  });
}
