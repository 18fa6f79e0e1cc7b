import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import { resolve, sep } from 'node:path';
import type { ChangeDetails } from '../api/route.js';
import type { AuditEvent } from '../audit/event.js';
import { AuditLog } from '../audit/log.js';
import { Repeats } from '../audit/repeats.js';
import { Seals } from '../audit/seals.js';
import { authorizationOf } from '../auth/basic.js';
import { parseHtpasswd } from '../auth/htpasswd.js';
import { type Identity, identityOf } from '../auth/identity.js';
import { networkOf } from '../auth/login-limiter.js';
import type { Config } from '../config/schema.js';
import { OperatorError, RegistryError, systemCode } from '../errors.js';
import { makeFolders } from '../folder.js';
import { growingCache } from '../growing-cache.js';
import type { Certificates } from '../pki/certificates.js';
import type { Change } from '../registry/exchange.js';
import { type StorageDriver, StorageError } from '../storage/driver.js';
import { FilesystemDriver } from '../storage/filesystem.js';
import { dataFolderOf } from '../storage/open.js';
import { addressOf } from './authentication.js';
import { type Log, requestIdOf, withoutSecrets } from './log.js';
import { type Account, handingOver } from './privileges.js';
import type { Users } from './users.js';

/** Begins the audit log of this process. @param driver opened, of the data. @throws OperatorError */
export async function openAuditLog(
  { audit }: Pick<Config, 'audit'>,
  driver: StorageDriver,
  program: string,
  report: Pick<Log, 'error' | 'warn' | 'info'>,
): Promise<AuditLog> {
  const seals = await Seals.open(await sealDriver(audit, driver, { readOnly: false }), { make: true });
  if (!seals)
    throw new OperatorError('the key of the audit log is damaged', { fix: 'restore registry-secure/audit/key' });
  const { folder, rotatesize: rotateSize, rotateage: rotateAge, keep } = audit;
  return AuditLog.open({ folder, seals, rotateSize, rotateAge, keep, program, report });
}

/** Where the seals are. @param driver of the data */
export async function sealDriver(
  { head }: Config['audit'],
  driver: StorageDriver,
  options: { readOnly: boolean },
): Promise<StorageDriver> {
  if (head === undefined) return driver;
  const other = new FilesystemDriver({ root: head, ...options });
  try {
    await other.open();
  } catch (error) {
    if (!(error instanceof OperatorError)) throw error;
    throw new OperatorError(`the seals of the audit log have no place: ${error.message}`, {
      fix: 'let this user write there, or name another folder: audit.head (REGISTRY_AUDIT_HEAD)',
      cause: error,
    });
  }
  return other;
}

const SEEN = 10_000;
/** What waits for the log to be begun. */
const MOST_EARLY = 10_000;
/** Between two tries to begin it (ms). */
const LATER = 5_000;

/** What of the watched files each change of theirs is called. */
const RELOADS: Readonly<Record<string, string>> = {
  certificate: 'certificate.reload',
  'trust in client certificates': 'client-trust.reload',
  'htpasswd file': 'users.reload',
  'access policy': 'rights.reload',
};

/** Who was heard of by a connection that stays open is not looked up again for so long (ms). */
const TOLD_FOR = 60_000;
const TOLD = Symbol('told');

type Told = object & { [TOLD]?: { identity: Identity; address: string | undefined; until: number } };

/**
 * What a serving process tells its audit log. From before the log is open: what happens until then is told when it is.
 */
export class Audit {
  #log: AuditLog | undefined;
  #early: AuditEvent[] | undefined;
  #missed = 0;
  #later: NodeJS.Timeout | undefined;
  readonly #repeats = new Repeats(event => this.record(event));
  /** Those who have logged in. */
  readonly #seen = growingCache<string, true>(SEEN);
  readonly #addressOf: (request: IncomingMessage) => string | undefined;

  /** @param isUser whether somebody is called so: other names are not told, since people type passwords in their place */
  constructor(
    private readonly config: Config,
    private readonly log: Log,
    private readonly isUser: (name: string) => boolean,
  ) {
    this.#addressOf = addressOf(config);
    const { readonly } = config.storage.maintenance;
    const possible = !readonly.enabled || config.audit.head !== undefined;
    if (config.audit.enabled && possible) this.#early = [];
    else if (config.audit.enabled)
      log.warn('there is no audit log, since the volume is read-only and its seals have no place: see audit.head');
  }

  /** Makes the folders, while it is still root who may: they are for the account that will serve. Those in the data it makes itself. */
  async prepare(account: Account | undefined): Promise<void> {
    const { folder, head } = this.config.audit;
    if (!this.#early || !account) return;
    const data = dataFolderOf(this.config.storage);
    for (const place of [folder, head])
      if (place !== undefined && (data === undefined || !place.startsWith(`${data}${sep}`)))
        await handingOver(account, place, async () => void (await makeFolders(place, 0o700)));
  }

  /**
   * Begins the log. On a disk that is full, later: what can be pulled must not wait for it.
   * @throws OperatorError where it cannot be written for any other reason
   */
  async open(driver: StorageDriver): Promise<void> {
    if (!this.#early) return;
    try {
      this.#begun(await openAuditLog(this.config, driver, 'serve', this.log));
    } catch (error) {
      if (!isFull(error)) throw error;
      this.log.error('the audit log cannot be begun yet', { error });
      this.#later = setTimeout(() => this.open(driver).catch(error => this.#givenUp(error)), LATER).unref();
    }
  }

  #begun(log: AuditLog): void {
    this.#log = log;
    for (const event of this.#early ?? []) log.record(event);
    if (this.#missed > 0) log.record({ type: 'audit.gap', outcome: 'failed', what: { events: this.#missed } });
    this.#early = undefined;
  }

  #givenUp(error: unknown): void {
    this.#early = undefined;
    this.log.error('there is no audit log until the next start', { error });
  }

  /** What the start itself has made. */
  started(certificates: Certificates | undefined, users: Users | undefined): void {
    const made = (type: string, what: AuditEvent['what']) => this.record({ type, outcome: 'done', what });
    if (certificates?.authority?.action === 'created')
      made('certificate.authority', { fingerprint: certificates.authority.fingerprint });
    if (certificates && certificates.server.action !== 'reused')
      made('certificate.create', { names: certificates.server.names });
    if (users?.action === 'created') made('user.add', { user: users.name, file: users.file });
  }

  async close(): Promise<void> {
    clearTimeout(this.#later);
    this.#repeats.tell();
    if (this.#early?.length) this.log.error('events are missing in the audit log', { events: this.#early.length });
    await this.#log?.close();
  }

  readonly record = (event: AuditEvent): void => {
    if (this.#log) this.#log.record(event);
    else if (this.#early && this.#early.length < MOST_EARLY) this.#early.push(event);
    else this.#missed++;
  };

  /** Somebody has shown who they are. */
  readonly identified = (request: IncomingMessage, identity: Identity): void => {
    if (identity.kind !== 'user') return;
    const address = this.#addressOf(request);
    const told = (request.socket as Told)[TOLD];
    const now = performance.now();
    if (told && told.identity === identity && told.address === address && now < told.until) return;
    (request.socket as Told)[TOLD] = { identity, address, until: now + TOLD_FOR };
    const { name, via = '', machineToken } = identity;
    this.#seen.set(name, true);
    const network = networkOf(address);
    // No name holds a line break.
    this.#repeats.login(`${name}\n${via}\n${machineToken ?? ''}\n${network}`, () => ({
      type: 'login',
      outcome: 'done',
      ...this.#client(request),
      what: machineToken === undefined ? undefined : { token: machineToken },
    }));
  };

  /** A request is answered with 401, 403 or 429. */
  readonly refused = (error: RegistryError, request: IncomingMessage): void => {
    const { status } = error;
    const reason = status === 401 ? whyUnauthorized(request) : error.message;
    const what = { reason, status, method: request.method, path: withoutSecrets(request.url ?? '') };
    const event: AuditEvent = {
      type: 'refusal',
      outcome: 'refused',
      who: this.#claimed(request),
      ...this.#client(request),
      what,
    };
    const network = networkOf(this.#addressOf(request));
    // What stands behind a colon may be another's word, which must not make it another reason each time.
    const [kind = ''] = reason.split(':', 1);
    this.#repeats.refusal(network, `${status} ${kind}`, event, reason === NO_CREDENTIALS);
  };

  /** Something was pushed or deleted. */
  readonly changed = async (
    { type, ...what }: Change | ({ readonly type: string } & ChangeDetails),
    request: IncomingMessage,
  ): Promise<void> => {
    const event: AuditEvent = { type, outcome: 'done', ...this.#client(request), what };
    if (this.#log) await this.#log.recorded(event);
    else this.record(event);
  };

  /** A watch's `reload`, which tells what has become of the files. */
  reloading(files: readonly string[], what: string, reload: () => Promise<void>): () => Promise<void> {
    if (!this.#early && !this.#log) return reload;
    const type = RELOADS[what] ?? 'reload';
    let before = files.map(file => digestNow(file));
    let users = what === 'htpasswd file' ? usersIn(readNow(files[0]!), files[0]!) : undefined;
    let failed = '';
    return async () => {
      const contents = await Promise.all(files.map(file => readFile(file).catch(systemCode)));
      const after = contents.map(digestOf);
      const details = { files: [...files], before, after };
      try {
        await reload();
      } catch (error) {
        // It is tried again and again: one line for each content.
        if (failed !== after.join())
          this.record({ type, outcome: 'failed', what: { ...details, reason: (error as Error).message } });
        failed = after.join();
        throw error;
      }
      failed = '';
      const [content] = contents;
      const now = users && Buffer.isBuffer(content) ? usersIn(content, files[0]!) : undefined;
      this.record({ type, outcome: 'done', what: { ...details, ...(users && now && difference(users, now)) } });
      before = after;
      users = now ?? users;
    };
  }

  #client(request: IncomingMessage): Pick<AuditEvent, 'who' | 'realm' | 'via' | 'from' | 'request'> {
    const identity = identityOf(request);
    const user = identity?.kind === 'user' ? identity : undefined;
    return {
      ...(user && { who: user.name, via: user.via, realm: user.realms && [...user.realms.keys()].join(', ') }),
      from: this.#addressOf(request),
      request: requestIdOf(request),
    };
  }

  /** The user that wrong credentials were for. */
  #claimed(request: IncomingMessage): string | undefined {
    try {
      const credentials = authorizationOf(request);
      if (typeof credentials === 'string' || !('user' in credentials)) return undefined;
      return this.#seen.has(credentials.user) || this.isUser(credentials.user) ? credentials.user : undefined;
    } catch (error) {
      if (error instanceof RegistryError) return undefined;
      throw error;
    }
  }
}

const NO_CREDENTIALS = 'no credentials';

function isFull(error: unknown): boolean {
  if (error instanceof StorageError) return error.kind === 'full';
  return error instanceof OperatorError && ['ENOSPC', 'EDQUOT'].includes(systemCode(error.cause) ?? '');
}

function whyUnauthorized(request: IncomingMessage): string {
  const { authorization } = request.headers;
  if (authorization === undefined) return NO_CREDENTIALS;
  return /^bearer /i.test(authorization) ? 'a token that is not good' : 'wrong credentials';
}

const digestNow = (file: string): string => digestOf(readNow(file));

function readNow(file: string): Buffer | string | undefined {
  try {
    return readFileSync(resolve(file));
  } catch (error) {
    return systemCode(error);
  }
}

/** Of a file's content, or why it cannot be read. */
function digestOf(content: Buffer | string | undefined): string {
  if (!Buffer.isBuffer(content)) return `none (${content})`;
  return `sha256:${createHash('sha256').update(content).digest('hex')}`;
}

function usersIn(content: Buffer | string | undefined, file: string): ReadonlyMap<string, string> | undefined {
  try {
    return Buffer.isBuffer(content) ? parseHtpasswd(content.toString('utf8'), file).users : undefined;
  } catch (error) {
    if (error instanceof OperatorError) return undefined;
    throw error;
  }
}

function difference(before: ReadonlyMap<string, string>, after: ReadonlyMap<string, string>) {
  return {
    added: [...after.keys()].filter(name => !before.has(name)),
    removed: [...before.keys()].filter(name => !after.has(name)),
    'new password': [...after.keys()].filter(name => before.has(name) && before.get(name) !== after.get(name)),
  };
}
