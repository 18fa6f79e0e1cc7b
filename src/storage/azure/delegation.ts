import type { UserDelegationKey } from '@azure/storage-blob';
import { ServiceError } from '../object/requests.js';

/** For how long a key is asked for, and how long before its end the next one is (ms). */
const LIFE = 3_600_000;
const MARGIN = 600_000;

/** How long before now it begins (ms), for machines of the service that differ about the time. */
const BACKDATED = 60_000;

/** How long none is asked for after a failure (ms). */
const PAUSE = 60_000;

/** Asks the service for a key that is good within this time. @throws ServiceError */
export type AskForKey = (from: Date, until: Date) => Promise<UserDelegationKey>;

/** The key by which the service lets an identity sign, which has none of its own; it is asked for each hour. */
export class DelegatedKey {
  #key: UserDelegationKey | undefined;
  #asking: Promise<void> | undefined;
  #failure: unknown;
  #silentUntil = 0;

  /** @param ahead the service's clock less ours (ms) */
  constructor(
    private readonly ask: AskForKey,
    private readonly ahead: () => number,
  ) {}

  /** A key that is still good then; undefined where the service gives none now. */
  async goodUntil(until: Date): Promise<UserDelegationKey | undefined> {
    const lasts = (time: number) => this.#key !== undefined && this.#key.signedExpiresOn.getTime() >= time;
    if (!lasts(until.getTime() + MARGIN)) {
      const asking = this.#renew();
      if (!lasts(until.getTime())) await asking;
    }
    return lasts(until.getTime()) ? this.#key : undefined;
  }

  /** Why the service gives this identity no key; undefined where it gives one, or may well do so in a moment. */
  async refusal(): Promise<string | undefined> {
    await this.#renew();
    const { status = 0, code = '', message = '' } = this.#failure instanceof ServiceError ? this.#failure : {};
    if (status < 400 || status >= 500) return undefined;
    return `the service gives this identity no key to sign with (${code || `HTTP ${status}`}: ${message}); give it the role Storage Blob Delegator on the account`;
  }

  /** Never rejects. */
  #renew(): Promise<void> {
    if (Date.now() < this.#silentUntil) return Promise.resolve();
    const now = Date.now() + this.ahead();
    this.#asking ??= this.ask(new Date(now - BACKDATED), new Date(now + LIFE))
      .then(
        key => {
          this.#key = key;
          this.#failure = undefined;
        },
        error => {
          this.#failure = error;
          this.#silentUntil = Date.now() + PAUSE;
        },
      )
      .finally(() => {
        this.#asking = undefined;
      });
    return this.#asking;
  }
}
