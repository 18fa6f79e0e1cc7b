import { createHash } from 'node:crypto';
import { andThen, type MaybeLater } from '../at-once.js';
import { growingCache } from '../growing-cache.js';
import type { StorageDriver } from '../storage/driver.js';
import { parseStrictJson } from './json.js';
import { layout } from './layout.js';

/** What is known of an account beside its credentials, wherever those are. */
export interface AccountState {
  /** RFC 3339: since when it is disabled. */
  readonly disabled?: string;
  /** RFC 3339: when it ends. */
  readonly expires?: string;
}

/** One that nobody has said anything about. */
const USUAL: AccountState = {};
/** In bytes. */
const LARGEST = 4096;
/** How old what this process knows of an account may be: half of the second in which a change counts. In milliseconds. */
const FRESH = 500;
/** From this age on it is read again, beside whoever asks. In milliseconds. */
const AHEAD = 250;
/** While the storage cannot be read, what is younger still counts. */
const KEPT = 1_000;
const CACHED = 10_000;

/**
 * Which accounts are disabled or have ended, as every process on the same data sees them. What cannot be known is refused:
 * where the storage is not readable for a second, nobody is let in.
 */
export class Accounts {
  readonly #seen = growingCache<string, { readonly state: AccountState; readonly read: number }>(CACHED);
  readonly #reading = new Map<string, Promise<AccountState>>();

  constructor(private readonly driver: StorageDriver) {}

  /** Whether a user may log in now, or be logged in, however they show who they are. @throws StorageError */
  isActive(user: string): MaybeLater<boolean> {
    return andThen(this.#stateOf(user), state => isActive(state, Date.now()));
  }

  #stateOf(user: string): MaybeLater<AccountState> {
    const seen = this.#seen.get(user);
    const now = performance.now();
    if (!seen || now - seen.read >= FRESH) return this.#readAgain(user, now);
    // In time, so that of those who come again and again none waits for a disk that is busy. A failure is met when it is due.
    if (now - seen.read >= AHEAD) this.#readAgain(user, now).catch(() => undefined);
    return seen.state;
  }

  async #readAgain(user: string, now: number): Promise<AccountState> {
    const seen = this.#seen.get(user);
    let reading = this.#reading.get(user);
    if (!reading) {
      reading = this.#read(user, now).finally(() => this.#reading.delete(user));
      this.#reading.set(user, reading);
    }
    try {
      return await reading;
    } catch (error) {
      if (seen && performance.now() - seen.read < KEPT) return seen.state;
      throw error;
    }
  }

  async #read(user: string, begun: number): Promise<AccountState> {
    const state = await readAccount(this.driver, user);
    this.#seen.set(user, { state, read: begun });
    return state;
  }
}

/** @param now milliseconds since 1970 */
export function isActive({ disabled, expires }: AccountState, now: number): boolean {
  return disabled === undefined && (expires === undefined || now < Date.parse(expires));
}

/** @throws StorageError */
export async function readAccount(driver: StorageDriver, user: string): Promise<AccountState> {
  const data = await driver.get(keyOf(user), LARGEST);
  return data ? (parse(data)?.state ?? { disabled: UNKNOWN }) : USUAL;
}

/** Of a record that cannot be made out: whoever made it wanted somebody kept out. */
const UNKNOWN = new Date(0).toISOString();

/** Every account that is not a usual one, by name. A record that cannot be made out has no name. */
export async function listAccounts(driver: StorageDriver): Promise<Map<string, AccountState>> {
  const accounts = new Map<string, AccountState>();
  for (const { name: hash } of await driver.list(layout.accounts)) {
    const data = await driver.get(layout.account(hash), LARGEST);
    const account = data && parse(data);
    if (account) accounts.set(account.user, account.state);
  }
  return accounts;
}

/**
 * Changes what is known of an account; counts in every process within a second. Two changes of one account at once: the
 * later one counts.
 * @returns as it is from now on
 */
export async function changeAccount(
  driver: StorageDriver,
  user: string,
  change: (before: AccountState) => AccountState,
): Promise<AccountState> {
  const state = change(await readAccount(driver, user));
  if (state.disabled === undefined && state.expires === undefined) await driver.remove(keyOf(user));
  else await driver.write(keyOf(user), Buffer.from(`${JSON.stringify({ user: user.normalize('NFC'), ...state })}\n`));
  return state;
}

/** What is to be another with an account; what is absent stays. */
export interface AccountChange {
  readonly disabled?: boolean | undefined;
  /** RFC 3339; null: it does not end. */
  readonly expires?: string | null | undefined;
}

/** The state after a change, for `changeAccount`. Who is disabled already stays so since then. */
export function changed({ disabled, expires }: AccountChange): (before: AccountState) => AccountState {
  return before => {
    const off = disabled ?? before.disabled !== undefined;
    const end = expires === undefined ? before.expires : expires;
    return { ...(off && { disabled: before.disabled ?? new Date().toISOString() }), ...(end && { expires: end }) };
  };
}

/** A user may be called anything. */
function keyOf(user: string): string {
  return layout.account(createHash('sha256').update(user.normalize('NFC')).digest('hex'));
}

function parse(data: Uint8Array): { user: string; state: AccountState } | undefined {
  try {
    const { user, disabled, expires } = parseStrictJson(data) as Record<string, unknown>;
    const isTime = (value: unknown) => typeof value === 'string' && Number.isFinite(Date.parse(value));
    if (typeof user !== 'string' || ![disabled, expires].every(value => value === undefined || isTime(value)))
      return undefined;
    return {
      user,
      state: {
        ...(disabled ? { disabled: disabled as string } : {}),
        ...(expires ? { expires: expires as string } : {}),
      },
    };
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof TypeError) return undefined;
    throw error;
  }
}
