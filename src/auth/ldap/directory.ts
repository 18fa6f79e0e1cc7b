import { readFile } from 'node:fs/promises';
import type { Entry, SearchOptions } from 'ldapts';
import { RegistryError } from '../../errors.js';
import { type Connection, connectLdap, type LdapServer } from './connection.js';

/** Connections that are kept for the next login. */
const IDLE = 4;
/** One that nobody has used for so long is closed, before the server or a firewall does so. In milliseconds. */
const IDLE_MS = 60_000;
/** After a failure nobody waits for the server for so long; twice as long after each further one. In milliseconds. */
const PAUSE = 1_000;
const LONGEST_PAUSE = 30_000;

/** What RFC 4511 (section 4.1.9, appendix A) and password policies answer to credentials that are not accepted. */
const REFUSED: ReadonlySet<number> = new Set([
  19, // constraintViolation: locked by too many failures
  32, // noSuchObject
  34, // invalidDNSyntax
  48, // inappropriateAuthentication: an entry without a password
  49, // invalidCredentials
  50, // insufficientAccessRights
  53, // unwillingToPerform: such as a disabled account
]);

/** busy, unavailable. */
const AWAY: ReadonlySet<number> = new Set([51, 52]);

export interface DirectoryOptions extends LdapServer {
  /** Who looks users and groups up; undefined: nobody in particular, as far as the server lets everybody read. */
  readonly account: { readonly name: string; readonly passwordFile: string } | undefined;
  /** Told once when the server cannot be used, and once when it can again. */
  readonly onState: (problem: string | undefined) => void;
}

export interface Search {
  readonly base: string;
  readonly scope: 'base' | 'sub';
  readonly filter: string;
  readonly attributes: readonly string[];
  readonly most: number;
}

/**
 * The server of a directory: few connections that are used again, time-outs, and a breaker: while the server is away only
 * one request at a time finds out whether it is back, and all others are told at once.
 */
export class Directory {
  #service: Connection | undefined;
  #connecting: Promise<Connection> | undefined;
  readonly #idle: Array<{ readonly connection: Connection; readonly timer: NodeJS.Timeout }> = [];
  #failures = 0;
  #closedUntil = 0;
  #probing = false;
  #ended = false;

  constructor(private readonly options: DirectoryOptions) {}

  /** Whether users can be looked up without their passwords. */
  get hasAccount(): boolean {
    return this.options.account !== undefined;
  }

  /** Finds out whether the server can be used, for `onState` to tell. */
  async probe(): Promise<void> {
    const connect = async () => {
      if (this.options.account) await this.#connectService();
      else (await connectLdap(this.options)).close();
    };
    await this.#guarded(connect).catch(() => {});
  }

  /** Entries, as the service account sees them. @throws RegistryError UNAVAILABLE */
  search(search: Search): Promise<Entry[]> {
    return this.#guarded(async () => {
      const kept = this.#service?.isOpen ? this.#service : undefined;
      const started = performance.now();
      try {
        return await searchOn(kept ?? (await this.#connectService()), search);
      } catch (error) {
        if (!kept || kept.isOpen || this.#waited(started)) throw error;
        return searchOn(await this.#connectService(), search);
      }
    });
  }

  /**
   * Whether the password is that of the entry; `then` is called with a search as that user sees entries.
   * @param password not empty: with an empty one every server says yes, to nobody (RFC 4513 section 5.1.2)
   * @throws RegistryError UNAVAILABLE
   */
  bind<T>(
    name: string,
    password: string,
    then: (search: (search: Search) => Promise<Entry[]>) => Promise<T>,
  ): Promise<T | undefined> {
    if (password === '') throw new Error('an empty password binds as nobody');
    return this.#guarded(async () => {
      const kept = this.#take();
      const started = performance.now();
      try {
        return await this.#bindOn(kept ?? (await connectLdap(this.options)), name, password, then);
      } catch (error) {
        if (!kept || kept.isOpen || this.#waited(started)) throw error;
        return this.#bindOn(await connectLdap(this.options), name, password, then);
      }
    });
  }

  async #bindOn<T>(
    connection: Connection,
    name: string,
    password: string,
    then: (search: (search: Search) => Promise<Entry[]>) => Promise<T>,
  ): Promise<T | undefined> {
    try {
      const right = await connection.client.bind(name, password).then(
        () => true,
        (error: unknown) => {
          if (REFUSED.has(codeOf(error) ?? -1)) return false;
          throw error;
        },
      );
      const result = right ? await then(search => searchOn(connection, search)) : undefined;
      this.#keep(connection);
      return result;
    } catch (error) {
      connection.close();
      throw error;
    }
  }

  /**
   * A server may close what nobody has used for long at the moment when somebody does: that is tried once more, but not
   * an answer that was waited for.
   */
  #waited(started: number): boolean {
    return performance.now() - started > this.options.timeout / 2;
  }

  close(): void {
    this.#ended = true;
    this.#service?.close();
    for (const { connection, timer } of this.#idle.splice(0)) {
      clearTimeout(timer);
      connection.close();
    }
  }

  /** Of several requests at once one connects, and all use it: answers find their questions by their numbers. */
  #connectService(): Promise<Connection> {
    this.#connecting ??= this.#connectAsService().finally(() => {
      this.#connecting = undefined;
    });
    return this.#connecting;
  }

  async #connectAsService(): Promise<Connection> {
    this.#service?.close();
    const { account } = this.options;
    const password = account && (await readFile(account.passwordFile, 'utf8')).replace(/\r?\n$/, '');
    if (password === '') throw new Error(`${account?.passwordFile} is empty`);
    const connection = await connectLdap(this.options);
    try {
      if (account && password !== undefined) await connection.client.bind(account.name, password);
    } catch (error) {
      connection.close();
      throw new Error(`the service account ${account?.name} cannot log in: ${(error as Error).message}`, {
        cause: error,
      });
    }
    if (this.#ended) connection.close();
    this.#service = connection;
    return connection;
  }

  #take(): Connection | undefined {
    for (let kept = this.#idle.pop(); kept; kept = this.#idle.pop()) {
      clearTimeout(kept.timer);
      if (kept.connection.isOpen) return kept.connection;
      kept.connection.close();
    }
    return undefined;
  }

  #keep(connection: Connection): void {
    if (this.#ended || this.#idle.length >= IDLE || !connection.isOpen) {
      connection.close();
      return;
    }
    const timer = setTimeout(() => {
      this.#idle.splice(
        this.#idle.findIndex(kept => kept.connection === connection),
        1,
      );
      connection.close();
    }, IDLE_MS).unref();
    this.#idle.push({ connection, timer });
  }

  /** @throws RegistryError UNAVAILABLE: for whatever goes wrong, and at once while the server is away */
  async #guarded<T>(work: () => Promise<T>): Promise<T> {
    const broken = this.#failures > 0;
    if (broken && (this.#probing || performance.now() < this.#closedUntil)) throw this.#unavailable();
    if (broken) this.#probing = true;
    try {
      const result = await work();
      if (this.#failures > 0) this.options.onState(undefined);
      this.#failures = 0;
      return result;
    } catch (error) {
      const code = codeOf(error);
      // A server that answers is there, whatever it does not like.
      if (this.#ended || (code !== undefined && !AWAY.has(code))) throw this.#unavailable(error);
      if (this.#failures === 0) this.options.onState((error as Error).message);
      // Those that were under way when it broke are one failure.
      if (broken || this.#failures === 0) this.#failures++;
      this.#closedUntil = performance.now() + Math.min(PAUSE * 2 ** (this.#failures - 1), LONGEST_PAUSE);
      throw this.#unavailable();
    } finally {
      if (broken) this.#probing = false;
    }
  }

  #unavailable(cause?: unknown): RegistryError {
    const seconds = Math.max(1, Math.ceil((this.#closedUntil - performance.now()) / 1000));
    return new RegistryError('UNAVAILABLE', {
      message: 'logins cannot be checked at present',
      headers: { 'Retry-After': String(seconds) },
      ...(cause !== undefined && { cause }),
    });
  }
}

async function searchOn({ client }: Connection, { base, scope, filter, attributes, most }: Search): Promise<Entry[]> {
  const options: SearchOptions = {
    scope,
    filter,
    attributes: [...attributes],
    sizeLimit: most,
    explicitBufferAttributes: ['objectGUID'],
  };
  try {
    return (await client.search(base, options)).searchEntries;
  } catch (error) {
    // The entry itself is what is not there, or cannot be (noSuchObject, invalidDNSyntax).
    if (scope === 'base' && [32, 34].includes(codeOf(error) ?? -1)) return [];
    throw error;
  }
}

/** The result code of an answer; undefined where there was none. */
function codeOf(error: unknown): number | undefined {
  const code = (error as { code?: unknown }).code;
  return typeof code === 'number' ? code : undefined;
}
