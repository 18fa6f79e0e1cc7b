import { createHash } from 'node:crypto';
import type { StorageDriver } from '../storage/driver.js';
import { parseStrictJson } from './json.js';
import { layout } from './layout.js';

/** Somebody who has logged in at an OpenID Connect provider: whose name it is, and stays. */
export interface OidcAccount {
  readonly name: string;
  readonly issuer: string;
  /** Who it is at the provider, whatever they are called there. */
  readonly subject: string;
  /** RFC 3339, of the first login. */
  readonly created: string;
}

/** In bytes. */
const LARGEST = 8 * 1024;

/** Undefined where nobody of this name has logged in, or the record cannot be made out. @throws StorageError */
export async function findOidcAccount(driver: StorageDriver, name: string): Promise<OidcAccount | undefined> {
  const data = await driver.get(keyOf(name), LARGEST);
  return data && parse(data);
}

/** @throws StorageError */
export async function listOidcAccounts(driver: StorageDriver): Promise<OidcAccount[]> {
  const accounts: OidcAccount[] = [];
  for (const { name } of await driver.list(layout.oidcAccounts)) {
    const data = await driver.get(layout.oidcAccount(name), LARGEST);
    const account = data && parse(data);
    if (account) accounts.push(account);
  }
  return accounts;
}

/**
 * The account, which the first login makes.
 * @returns undefined where the name is somebody else's: who comes later must not become who was there before
 * @throws StorageError
 */
export async function claimOidcAccount(
  driver: StorageDriver,
  { name, issuer, subject }: Omit<OidcAccount, 'created'>,
): Promise<OidcAccount | undefined> {
  const record: OidcAccount = { name, issuer, subject, created: new Date().toISOString() };
  if (await driver.create(keyOf(name), Buffer.from(`${JSON.stringify(record)}\n`))) return record;
  const known = await findOidcAccount(driver, name);
  return known?.issuer === issuer && known.subject === subject ? known : undefined;
}

/** @returns false where there is none */
export async function removeOidcAccount(driver: StorageDriver, name: string): Promise<boolean> {
  return driver.remove(keyOf(name));
}

/** A user may be called anything. */
function keyOf(name: string): string {
  return layout.oidcAccount(createHash('sha256').update(name.normalize('NFC')).digest('hex'));
}

function parse(data: Uint8Array): OidcAccount | undefined {
  try {
    const { name, issuer, subject, created } = parseStrictJson(data) as Record<string, unknown>;
    const isText = (value: unknown): value is string => typeof value === 'string';
    return isText(name) && isText(issuer) && isText(subject) && isText(created)
      ? { name, issuer, subject, created }
      : undefined;
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof TypeError) return undefined;
    throw error;
  }
}
