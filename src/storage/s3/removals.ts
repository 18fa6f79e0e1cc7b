import { createHash, randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { StorageError } from '../driver.js';
import { PRIVATE } from '../format.js';
import { type Bucket, endOfSecond, type Listed } from './bucket.js';

/**
 * How `removeStale` never takes what somebody has just changed, replaced or renewed, on services that cannot delete on a
 * condition (docs/decisions/0026). Who removes puts up a sign for the key, looks at the object once more, and only then
 * deletes it. Who writes waits after the write until there are no signs, and then looks whether it is still there; else it
 * writes again. Whoever puts up a sign later than that sees the write.
 *
 *     registry-secure/removers/<id>                         somebody removes things: only then are there signs
 *     registry-secure/doomed/<SHA-256 of the key>/<id>      the sign for one key
 *
 * To look for removers costs one request in `CALM` milliseconds: therefore a remover waits for twice as long before its
 * first sign. Each has names of its own, so that nobody ever deletes another's. A sign whose remover died counts for
 * `SIGN_S` seconds: the delete that it stood for has been refused by the service since then.
 */
const REMOVERS = `${PRIVATE}/removers/`;
const DOOMED = `${PRIVATE}/doomed/`;

/** How long a process may rely on having seen no remover (ms). */
const CALM = 2_000;

/** How long a remover counts as one that is at work (s). */
const REMOVER_S = 120;

/** How long a sign counts, and how long after it was put up its delete may be sent and may arrive (s). */
const SIGN_S = 30;
const SEND_S = 10;
const ARRIVE_S = 10;

const POLL_MS = 50;

/** How often it is tried whether lists show the last write, before anything is removed. */
const PROBES = 3;

interface Sign {
  readonly key: string;
  /** By this process's clock, before it was put up (ms). */
  readonly since: number;
  /** Whether a delete was sent whose outcome nobody knows: then the sign has to stay. */
  inDoubt: boolean;
}

interface Announced {
  readonly key: string;
  /** By this process's clock (ms): for so long everybody knows of it. */
  readonly until: number;
}

export class Removals {
  readonly #calm: number;
  /** When removers were looked for, and whether there were any. */
  #seen = { at: Number.NEGATIVE_INFINITY, any: true };
  #looking: Promise<void> | undefined;
  #announced: Announced | undefined;
  #announcing: Promise<void> | undefined;

  constructor(
    private readonly bucket: Bucket,
    calm = CALM,
  ) {
    this.#calm = calm;
  }

  /**
   * To be called after an object was written or renewed. Waits for whoever may be removing it.
   * @returns false where somebody may have removed it: then it has to be looked for, and written again where it is gone
   */
  async spared(key: string): Promise<boolean> {
    if (!(await this.#anyRemover())) return true;
    while (await this.#isDoomed(key)) await sleep(POLL_MS);
    return false;
  }

  /**
   * Removes an object that nobody has changed meanwhile, and with it what belongs to it.
   * @param look at the object, and whether it may go; undefined where it may not
   * @returns whether it has gone
   */
  async remove(key: string, look: () => Promise<{ also: readonly string[] } | undefined>): Promise<boolean> {
    await this.#announce();
    const sign = await this.#putUp(key);
    try {
      const doomed = await look();
      if (!doomed) return false;
      for (const one of [...doomed.also, key]) {
        // Others take the sign for a dead process's after a while, and this one may have been stopped meanwhile.
        if (performance.now() - sign.since > SEND_S * 1000) return false;
        sign.inDoubt = true;
        await this.bucket.deleteWithin(ARRIVE_S, one);
        sign.inDoubt = false;
      }
      return true;
    } finally {
      if (!sign.inDoubt) await this.bucket.delete(sign.key);
    }
  }

  /** Nobody has to look out for this process any more. */
  async close(): Promise<void> {
    const announced = this.#announced;
    this.#announced = undefined;
    if (announced) await this.bucket.delete(announced.key);
  }

  async #anyRemover(): Promise<boolean> {
    const asked = performance.now();
    while (this.#seen.at < asked && performance.now() - this.#seen.at >= this.#calm) {
      this.#looking ??= this.#look().finally(() => {
        this.#looking = undefined;
      });
      await this.#looking;
    }
    return this.#seen.any;
  }

  async #look(): Promise<void> {
    const at = performance.now();
    const { objects } = await this.bucket.list(REMOVERS);
    this.#seen = { at, any: objects.some(({ modified }) => this.#isYoung(modified, REMOVER_S)) };
  }

  async #isDoomed(key: string): Promise<boolean> {
    const { objects } = await this.bucket.list(signsOf(key));
    return objects.some(({ modified }) => this.#isYoung(modified, SIGN_S));
  }

  /** By the service's clock alone, in whole seconds. */
  #isYoung(modified: Date, seconds: number): boolean {
    return this.bucket.now() - endOfSecond(modified).getTime() < (seconds + 2) * 1000;
  }

  async #putUp(key: string): Promise<Sign> {
    const since = performance.now();
    const sign = { key: `${signsOf(key)}${randomUUID()}`, since, inDoubt: false };
    await this.bucket.put(sign.key, Buffer.from(key));
    return sign;
  }

  #announce(): Promise<void> {
    const left = (this.#announced?.until ?? 0) - performance.now();
    if (left > 1000 * SIGN_S) return Promise.resolve();
    this.#announcing ??= (left > 0 ? this.#goOn() : this.#begin()).finally(() => {
      this.#announcing = undefined;
    });
    return this.#announcing;
  }

  async #goOn(): Promise<void> {
    this.#announced = await this.#renew(this.#announced!.key);
  }

  async #begin(): Promise<void> {
    const key = `${REMOVERS}${randomUUID()}`;
    const announced = await this.#renew(key);
    await this.#tidy(await this.#checkLists(key));
    await sleep(2 * this.#calm);
    this.#announced = announced;
  }

  /**
   * Everything here rests on lists that show the last write. A service whose lists lag behind does not say so, and may show one
   * write in time and another one late: so several are looked for, each as it comes and as it goes.
   * @param key of an object that was just written
   * @returns what the last list has shown
   * @throws StorageError where they do
   */
  async #checkLists(key: string): Promise<readonly Listed[]> {
    const look = async (key: string, there: boolean) => {
      const { objects } = await this.bucket.list(REMOVERS);
      if (objects.some(other => other.key === key) !== there)
        throw new StorageError(
          'unavailable',
          'the lists of this object store lag behind: nothing can be removed safely',
        );
      return objects;
    };
    for (let probe = 0; probe < PROBES; probe++) {
      const other = `${REMOVERS}${randomUUID()}`;
      await this.bucket.put(other, Buffer.alloc(0));
      await look(other, true).finally(() => this.bucket.delete(other));
      await look(other, false);
    }
    return look(key, true);
  }

  async #renew(key: string): Promise<Announced> {
    const since = performance.now();
    await this.bucket.put(key, Buffer.alloc(0));
    return { key, until: since + 1000 * (REMOVER_S - SIGN_S) };
  }

  /** What those have left who died. */
  async #tidy(removers: readonly Listed[]): Promise<void> {
    const { objects: signs } = await this.bucket.list(DOOMED);
    for (const { key, modified } of [...removers, ...signs])
      if (!this.#isYoung(modified, 3600)) await this.bucket.delete(key);
  }
}

function signsOf(key: string): string {
  return `${DOOMED}${createHash('sha256').update(key).digest('hex')}/`;
}
