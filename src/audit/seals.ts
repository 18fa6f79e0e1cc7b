import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import type { StorageDriver } from '../storage/driver.js';
import { layout } from '../store/layout.js';
import { CHAIN_ID, type Position, parseFileName } from './chain.js';

/** Up to where a chain has been written, to the disk. */
export interface Head extends Position {
  readonly chain: string;
  /** The number of its last file. */
  readonly part: number;
  /** The process has ended it: nothing follows. */
  readonly closed: boolean;
}

/** A file that was removed because the log was over its size. */
export interface Retired {
  readonly chain: string;
  readonly part: number;
  /** RFC 3339. */
  readonly at: string;
  /** Its last line; undefined where it could not be read. */
  readonly end: Position | undefined;
}

const LARGEST = 4096;

/**
 * What is known of the chains beside their files: heads, and which files were let go. Kept in the data, apart from the log,
 * and signed with a key (HMAC-SHA256) that lies there too: whoever can only write to the log cannot make them fit.
 */
export class Seals {
  private constructor(
    private readonly driver: StorageDriver,
    private readonly key: Buffer,
  ) {}

  /** @param make whether a key is made where there is none. @returns undefined where there is none */
  static async open(driver: StorageDriver, { make }: { make: boolean }): Promise<Seals | undefined> {
    // Of several processes that begin at once one makes it.
    if (make && !(await driver.stat(layout.auditKey))) await driver.create(layout.auditKey, randomBytes(32));
    const key = await driver.get(layout.auditKey, LARGEST);
    return key?.length === 32 ? new Seals(driver, key) : undefined;
  }

  async writeHead(head: Head): Promise<void> {
    await this.driver.write(layout.auditHead(head.chain), this.#sign({ ...head, kind: 'head' }));
  }

  /** Undefined where there is none; `forged` where it was not signed by us for this chain. */
  async head(chain: string): Promise<Head | 'forged' | undefined> {
    const data = await this.driver.get(layout.auditHead(chain), LARGEST);
    if (!data) return undefined;
    const head = this.#read(data) as (Head & { kind: string }) | undefined;
    return head?.kind === 'head' && head.chain === chain ? head : 'forged';
  }

  /** The chains that have a head, in the order of their starts. */
  async chains(): Promise<string[]> {
    return (await this.driver.list(layout.auditHeads)).map(({ name }) => name).filter(name => CHAIN_ID.test(name));
  }

  /** To be called before the file is removed. */
  async retire(file: string, retired: Retired): Promise<void> {
    await this.driver.create(layout.auditRetired(file), this.#sign({ ...retired, kind: 'retired' }));
  }

  async retired(file: string): Promise<Retired | 'forged' | undefined> {
    const data = await this.driver.get(layout.auditRetired(file), LARGEST);
    if (!data) return undefined;
    const retired = this.#read(data) as (Retired & { kind: string }) | undefined;
    const names = parseFileName(file);
    return retired?.kind === 'retired' && retired.chain === names?.chain && retired.part === names.part
      ? retired
      : 'forged';
  }

  /** The files of which it is known that they were let go. */
  async retiredFiles(): Promise<string[]> {
    return (await this.driver.list(layout.auditRetireds)).map(({ name }) => name).filter(name => parseFileName(name));
  }

  async forgetHead(chain: string): Promise<void> {
    await this.driver.remove(layout.auditHead(chain));
  }

  async forgetRetired(file: string): Promise<void> {
    await this.driver.remove(layout.auditRetired(file));
  }

  #sign(value: object): Buffer {
    const text = JSON.stringify(value);
    return Buffer.from(`${this.#mac(text)} ${text}\n`);
  }

  #read(data: Buffer): unknown {
    const [, mac, text] = /^([0-9a-f]{64}) (\{.*\})\n$/.exec(data.toString('utf8')) ?? [];
    if (mac === undefined || text === undefined) return undefined;
    return timingSafeEqual(Buffer.from(mac), Buffer.from(this.#mac(text))) ? JSON.parse(text) : undefined;
  }

  #mac(text: string): string {
    return createHmac('sha256', this.key).update(text).digest('hex');
  }
}
