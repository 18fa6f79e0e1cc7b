import { type StorageDriver, StorageError } from '../storage/driver.js';
import { parseStrictJson } from './json.js';
import { layout } from './layout.js';

/** What is kept of one token. It never changes: a token is revoked by removing this. */
export interface MachineToken {
  /** Lower-case letters and digits. */
  readonly id: string;
  /** In Unicode NFC. */
  readonly user: string;
  /** Names of the realms in which it is this user; none: as one of an OpenID Connect provider. Undefined: wherever there is one. */
  readonly realms?: readonly string[];
  /** What it is good for: `RIGHT:PATTERN` each. */
  readonly allow: readonly string[];
  /** SHA-256 of the whole token, in hex. */
  readonly hash: string;
  /** RFC 3339. */
  readonly created: string;
  /** RFC 3339; undefined for one that does not end. */
  readonly expires?: string;
  readonly description?: string;
}

/** In bytes: the longest name, a hundred patterns. */
const LARGEST = 64 * 1024;
/** Every process lists all of them twice a second while tokens are used. */
const MOST = 10_000;
/** How old what this process knows may be: half of the second in which a revocation counts. In milliseconds, as below. */
const FRESH = 500;
/** The same, before a token is refused: it may have been made a moment ago. */
const FRESHEST = 50;
/** While the storage cannot be read, what is younger still counts. */
const KEPT = 1_000;
/** How exactly the last use is known. */
const USE = 3_600_000;

/**
 * The tokens of machines, as every process on the same data sees them. Nothing is read while none is used.
 *
 * What cannot be known is refused: where the storage is not readable for a second, no token counts.
 */
export class MachineTokenStore {
  #tokens: ReadonlyMap<string, MachineToken> = new Map();
  #read = Number.NEGATIVE_INFINITY;
  #reading: Promise<void> | undefined;
  /** When this process has last looked after the last use of a token, in milliseconds of `performance.now`. */
  readonly #noted = new Map<string, number>();

  constructor(private readonly driver: StorageDriver) {}

  /**
   * @param last whether it will be refused otherwise
   * @throws StorageError
   */
  async find(id: string, last: boolean): Promise<MachineToken | undefined> {
    await this.#look(last ? FRESHEST : FRESH);
    return this.#tokens.get(id);
  }

  /**
   * Notes that a token was used, at most once an hour for all processes together, and only where that can be written.
   * Nobody needs to wait for it.
   */
  async noteUse(id: string): Promise<void> {
    const now = performance.now();
    if (now - (this.#noted.get(id) ?? Number.NEGATIVE_INFINITY) < USE) return;
    this.#noted.set(id, now);
    await noteUse(this.driver, id).catch(error => {
      if (!(error instanceof StorageError)) throw error;
    });
  }

  async #look(age: number): Promise<void> {
    if (performance.now() - this.#read < age) return;
    this.#reading ??= this.#readAll().finally(() => {
      this.#reading = undefined;
    });
    try {
      await this.#reading;
    } catch (error) {
      if (performance.now() - this.#read > KEPT) throw error;
    }
  }

  async #readAll(): Promise<void> {
    const begun = performance.now();
    const { tokens } = await listMachineTokens(this.driver, id => this.#tokens.get(id));
    this.#tokens = new Map(tokens.map(token => [token.id, token]));
    for (const id of this.#noted.keys()) if (!this.#tokens.has(id)) this.#noted.delete(id);
    this.#read = begun;
  }
}

/**
 * @param known what need not be read again
 * @returns `damaged`: those whose record cannot be made out; they count for nothing
 * @throws StorageError
 */
export async function listMachineTokens(
  driver: StorageDriver,
  known: (id: string) => MachineToken | undefined = () => undefined,
): Promise<{ tokens: MachineToken[]; damaged: string[] }> {
  const ids = (await driver.list(layout.machineTokens)).map(({ name }) => name).filter(isTokenId);
  const tokens: MachineToken[] = [];
  const damaged: string[] = [];
  for (const id of ids) {
    const data = known(id) ?? (await readOne(driver, id));
    // It was removed meanwhile.
    if (data === undefined) continue;
    const token = data instanceof Uint8Array ? parse(id, data) : data;
    if (token) tokens.push(token);
    else damaged.push(id);
  }
  return { tokens, damaged };
}

/** Of one that cannot be read nothing counts, and the others count all the same. */
async function readOne(driver: StorageDriver, id: string): Promise<Uint8Array | undefined> {
  return driver.get(layout.machineToken(id), LARGEST).catch(error => {
    if (error instanceof StorageError) return new Uint8Array();
    throw error;
  });
}

/** @returns false where there are as many as there may be, or one of this id */
export async function addMachineToken(driver: StorageDriver, token: MachineToken): Promise<boolean> {
  if ((await driver.list(layout.machineTokens)).length >= MOST) return false;
  const { id, ...record } = token;
  return driver.create(layout.machineToken(id), Buffer.from(`${JSON.stringify(record)}\n`));
}

/** From then on it counts nowhere, within a second. @returns false where there is none */
export async function revokeMachineToken(driver: StorageDriver, id: string): Promise<boolean> {
  if (!isTokenId(id)) return false;
  const removed = await driver.remove(layout.machineToken(id));
  await driver.remove(layout.machineTokenUse(id));
  return removed;
}

/** When it was used last, to the hour; undefined for never. */
export async function lastUseOf(driver: StorageDriver, id: string): Promise<Date | undefined> {
  return (await driver.stat(layout.machineTokenUse(id)))?.modified;
}

async function noteUse(driver: StorageDriver, id: string): Promise<void> {
  const last = await lastUseOf(driver, id);
  if (last && Date.now() - last.getTime() < USE) return;
  await driver.write(layout.machineTokenUse(id), new Uint8Array());
  // Revoked while this was written: nobody would remove it.
  if (!(await driver.stat(layout.machineToken(id)))) await driver.remove(layout.machineTokenUse(id));
}

export function isTokenId(name: string): boolean {
  return /^[0-9a-z]{12}$/.test(name);
}

function parse(id: string, data: Uint8Array): MachineToken | undefined {
  try {
    const record = parseStrictJson(data) as Record<string, unknown>;
    const { user, realms, allow, hash, created, expires, description } = record;
    if (
      !isText(user) ||
      !isText(hash) ||
      !/^[0-9a-f]{64}$/.test(hash) ||
      !isText(created) ||
      !Number.isFinite(Date.parse(created))
    )
      return undefined;
    if (!isTexts(allow) || !(realms === undefined || isTexts(realms))) return undefined;
    // An end that cannot be read is no token without an end.
    if (expires !== undefined && !(isText(expires) && Number.isFinite(Date.parse(expires)))) return undefined;
    return {
      id,
      user,
      ...(realms && { realms }),
      allow,
      hash,
      created,
      ...(expires !== undefined && { expires }),
      ...(isText(description) && { description }),
    };
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof TypeError) return undefined;
    throw error;
  }
}

function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.every(isText);
}

function isText(value: unknown): value is string {
  return typeof value === 'string';
}
