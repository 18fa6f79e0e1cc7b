import { randomBytes } from 'node:crypto';
import { type StorageDriver, StorageError } from '../storage/driver.js';
import { layout } from './layout.js';

/** A key signs for a day, and is known for longer than what it has signed. In milliseconds. */
const SIGNS = 24 * 3_600_000;
const KEPT = 2 * SIGNS;
/** How old what this process knows of the keys may be. */
const FRESH = 60_000;
/** A token with the name of an unknown key has the keys looked up again, at most so often. */
const LOOK = 1_000;

interface Key {
  readonly id: string;
  readonly secret: Buffer;
}

/**
 * The keys of tokens: small files that every process on the same data reads, and that any of them makes when the newest
 * is a day old. A key's name begins with the time it was made at. Two processes that make one at once have two, and both
 * are good. Whoever removes them ends all tokens within a minute.
 */
export class TokenKeys {
  #keys: readonly Key[] = [];
  #read = Number.NEGATIVE_INFINITY;
  #reading: Promise<void> | undefined;
  #making: Promise<Key> | undefined;

  constructor(private readonly driver: StorageDriver) {}

  async current(): Promise<Key> {
    await this.#look(FRESH);
    const newest = this.#keys.at(-1);
    if (newest && ageOf(newest.id) < SIGNS) return newest;
    this.#making ??= this.#make().finally(() => {
      this.#making = undefined;
    });
    return this.#making;
  }

  async find(id: string): Promise<Key | undefined> {
    await this.#look(FRESH);
    const known = this.#keys.find(key => key.id === id);
    if (known || !isId(id)) return known;
    await this.#look(LOOK);
    return this.#keys.find(key => key.id === id);
  }

  async #look(age: number): Promise<void> {
    if (performance.now() - this.#read < age) return;
    this.#reading ??= this.#readAll().finally(() => {
      this.#reading = undefined;
    });
    return this.#reading;
  }

  async #readAll(): Promise<void> {
    const names = (await this.driver.list(layout.tokenKeys)).map(({ name }) => name).filter(isId);
    const keys = await Promise.all(
      names.map(async (id): Promise<Key[]> => {
        const known = this.#keys.find(key => key.id === id);
        const secret = known?.secret ?? (await this.driver.get(layout.tokenKey(id), 1024));
        return secret?.length === 32 && ageOf(id) < KEPT ? [{ id, secret }] : [];
      }),
    );
    this.#keys = keys.flat();
    this.#read = performance.now();
  }

  async #make(): Promise<Key> {
    const key = {
      id: `${Date.now().toString(36).padStart(9, '0')}-${randomBytes(8).toString('hex')}`,
      secret: randomBytes(32),
    };
    try {
      await this.driver.create(layout.tokenKey(key.id), key.secret);
      for (const { name } of await this.driver.list(layout.tokenKeys))
        if (isId(name) && ageOf(name) > KEPT) await this.driver.remove(layout.tokenKey(name));
    } catch (error) {
      // A volume that takes no writes: then the key is this process's own, and clients log in again after a restart.
      if (!(error instanceof StorageError)) throw error;
    }
    this.#keys = [...this.#keys, key];
    return key;
  }
}

function isId(name: string): boolean {
  return /^[0-9a-z]{9}-[0-9a-f]{16}$/.test(name);
}

function ageOf(id: string): number {
  return Date.now() - Number.parseInt(id.slice(0, 9), 36);
}
