/**
 * Locks by name, within this process: any number of holders at once of a shared one, a single holder of an exclusive
 * one, each in the order in which they asked. Nothing relies on them for what must be right across processes.
 */
export class Locks {
  /** Of each name in use, what the next comer has to wait for. Neither promise ever rejects. */
  readonly #locks = new Map<string, { exclusive: Promise<unknown>; shared: Promise<unknown>; users: number }>();

  shared<T>(name: string, action: () => Promise<T>): Promise<T> {
    return this.#hold(name, lock => {
      const done = lock.exclusive.then(action);
      // Without a value, or each would keep all before it for as long as the name is in use.
      lock.shared = Promise.allSettled([lock.shared, done]).then(() => undefined);
      return done;
    });
  }

  exclusive<T>(name: string, action: () => Promise<T>): Promise<T> {
    return this.#hold(name, lock => {
      const done = Promise.all([lock.exclusive, lock.shared]).then(action);
      lock.exclusive = Promise.allSettled([done]);
      return done;
    });
  }

  async #hold<T>(
    name: string,
    start: (lock: { exclusive: Promise<unknown>; shared: Promise<unknown> }) => Promise<T>,
  ): Promise<T> {
    const free = { exclusive: Promise.resolve(), shared: Promise.resolve(), users: 0 };
    const lock = this.#locks.get(name) ?? free;
    this.#locks.set(name, lock);
    lock.users++;
    try {
      return await start(lock);
    } finally {
      if (--lock.users === 0) this.#locks.delete(name);
    }
  }
}
