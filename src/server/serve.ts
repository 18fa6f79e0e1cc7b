import type { IncomingMessage } from 'node:http';
import { setFlagsFromString } from 'node:v8';
import { identityOf, setIdentity } from '../auth/identity.js';
import type { Config } from '../config/schema.js';
import { parseAddress } from '../config/values.js';
import { OperatorError } from '../errors.js';
import type { Certificates } from '../pki/certificates.js';
import type { Passphrase } from '../pki/folder.js';
import type { ServerPair } from '../pki/inspect.js';
import type { Machine } from '../pki/machine.js';
import { folderOf } from '../pki/renewal.js';
import { createRegistry, type Entrance } from '../registry/registry.js';
import type { StorageDriver } from '../storage/driver.js';
import { dataFolderOf, placeOf, storageOf } from '../storage/open.js';
import { releaseBackup } from '../store/backup.js';
import { Store } from '../store/store.js';
import type { Anchor } from '../ui/trust-pages.js';
import { followAnchor } from './anchor.js';
import { type AppOptions, createApp } from './app.js';
import { Audit } from './audit.js';
import { type Authentication, addressOf, prepareAuthentication } from './authentication.js';
import { openCertificate, type ServedCertificate } from './certificate.js';
import type { ClientTrust } from './client-trust.js';
import { type Clients, openClients, startListUpkeep } from './clients.js';
import { allowPause } from './guard.js';
import { type Health, watchHealth } from './health.js';
import { immutableOf, startHousekeeping } from './housekeeping.js';
import { createListener, type Handler, type Listener } from './listener.js';
import { createAccessLog, createLogger, type Log, requestId, requestIdOf, withoutSecrets } from './log.js';
import { watchMaintenance } from './maintenance.js';
import { apiOnDemand, trustPagesOnDemand } from './on-demand.js';
import { type Account, become, unreadable, volumeOwner } from './privileges.js';
import { startRenewal } from './renewal.js';
import type { Users } from './users.js';
import { validationOf } from './validation.js';
import { type WatchFiles, watchFiles } from './watch.js';
import { type Charge, isFirstToServe, OTHERS } from './worker.js';

export interface ServeOptions {
  /** The folder that holds `certs/`, `auth/` and `data/`. */
  readonly dir: string;
  readonly config: Config;
  /** Names that the operator gave for the certificate of our own authority. */
  readonly names: readonly string[];
  readonly machine: Machine;
  /** Of the configuration, for the log. */
  readonly warnings: readonly string[];
  readonly firstUser?: { readonly name?: string | undefined; readonly password?: string | undefined };
  /** Whether standard output is a terminal, on which a new password may be shown. */
  readonly terminal: boolean;
  /** Opens ca.key where it is encrypted, and encrypts one that is made. */
  readonly passphrase?: Passphrase | undefined;
  /** Where that comes from. */
  readonly passphraseFile?: string | undefined;
  /** Undefined where this process serves alone. */
  readonly worker?: Charge | undefined;
  /** Started as root, to become the owner of the volume once keys and port are open. */
  readonly asVolumeOwner: boolean;
}

export interface RunningServer {
  readonly host: string;
  readonly port: number;
  /** The folder of our own authority; undefined where the operator brought a certificate, and over plain HTTP. */
  readonly certificates: Certificates | undefined;
  /** The certificate that is served at the start; undefined over plain HTTP. */
  readonly pair: (ServerPair & { readonly path: string }) | undefined;
  /** What became of the password file; undefined where there is none. */
  readonly users: Users | undefined;
  /** Whether nobody is asked who they are. */
  readonly open: boolean;
  readonly data: string;
  /** Whether it has read what it could not read again, since it has given up root. */
  readonly readAsRoot: boolean;
  /** Drains: no new connections, running transfers finish in the time that the configuration gives them. */
  stop(): Promise<void>;
}

/**
 * How long a request waits for the storage to be opened (ms). Behind a load balancer a replica that starts gets requests at once,
 * and docker gives a push up for one that is refused.
 */
const PATIENCE_MS = 10_000;

/** Takes what is to be called at the end: last come, first called. */
type OnClose = (closer: () => unknown) => void;

/**
 * Node makes a buffer of each TLS record that comes in, and V8 counts these 16 KiB against a limit that it derives from
 * the small live heap: at 300 MB/s that is a full collection every 50 ms, a third of the processor time of an upload
 * (docs/performance.md). So the limit lies higher: the heap may triple between two full collections.
 */
setFlagsFromString('--heap-growing-percent=200');

/**
 * The composition root: configuration → keys, port, users → (root no longer) → storage → store → application.
 * @throws OperatorError for whatever keeps the registry from being served as configured
 */
export async function serve(options: ServeOptions): Promise<RunningServer> {
  const closers: Array<() => unknown> = [];
  const close = async () => {
    for (const closer of closers.reverse()) await closer();
  };
  try {
    return await start(options, closer => void closers.push(closer), close);
  } catch (error) {
    await close();
    throw error;
  }
}

async function start(options: ServeOptions, onClose: OnClose, close: () => Promise<void>): Promise<RunningServer> {
  const { config, dir, firstUser, terminal, passphrase, worker } = options;
  const { log, started } = openLog(options, onClose);
  let authentication: Authentication | undefined;
  const audit = new Audit(config, log, name => authentication?.isUser(name) ?? false);
  onClose(() => audit.close());
  const watch = watching(audit, log, onClose);
  for (const warning of options.warnings) log.warn(warning);
  const address = parseAddress(config.http.addr);
  const folder = dataFolderOf(config.storage);
  const { account, warning: stillRoot } = options.asVolumeOwner ? await volumeOwner(folder) : {};
  if (stillRoot) log.warn(stillRoot);

  const certificate = await openCertificate({ ...options, host: address.host, account, watch, log });
  const { certificates, files, pair } = certificate;
  const anchor = await followAnchor(files?.certificate);
  const clients = await openClients({ config, dir, passphrase, account, watch, log });

  // The port is taken before the storage is opened, so that a second start by mistake touches nothing.
  const door = openDoor({ config, pair, trust: clients?.trust(), worker, log, onClose });
  const { listener } = door;
  // One that serves beside others has it anyway, and takes no connection before it can answer.
  const early = isFirstToServe(worker) ? await listener.listen(address) : undefined;
  certificate.follow(next => listener.setCertificate(next));
  clients?.follow(next => listener.setClientTrust(next));
  onClose(() => listener.drain(0));

  authentication = await prepareAuthentication({ config, firstUser, terminal, account, watch, onClose, log });
  await audit.prepare(account);
  const read = [
    ...(files ? [files.certificate, files.key] : []),
    ...authentication.files,
    ...(options.passphraseFile === undefined ? [] : [options.passphraseFile]),
    ...(clients ? [...clients.files.authorities, ...clients.files.lists] : []),
  ];
  const readAsRoot = account !== undefined && (await giveUpRoot(account, read, log));

  // Of several processes one is enough.
  const leads = (worker?.number ?? 1) === 1;
  if (leads) await startUpkeep({ passphrase, certificate, clients, log, record: audit.record, onClose });

  const readOnly = config.storage.maintenance.readonly.enabled;
  const driver = await storageOf(config.storage, {
    readOnly,
    onFault: message => log.error(message),
    onNotice: message => log.warn(message),
    onRedirects: warning => log.warn(warning),
  });
  await driver.open();
  onClose(() => driver.close());
  if (driver.solitary && worker && !readOnly)
    throw new OperatorError('several processes would overwrite what the others have written to this object store', {
      fix: 'serve with one: workers: 1 (REGISTRY_WORKERS=1), and no other replica',
    });
  await audit.open(driver);
  audit.started(certificates, authentication.users);
  if (leads && !readOnly) await releaseBackup(driver);
  if (readOnly) log.warn('read-only: pushes and deletes are refused (storage.maintenance.readonly)');
  const maintenance = await watchMaintenance(driver, log);
  onClose(() => maintenance.close());
  const health = watchHealth(driver, log, config.health.storagedriver);
  onClose(() => health.close());
  if (leads && !readOnly) {
    const mayWrite = () => maintenance.refusal === undefined;
    const housekeeping = startHousekeeping(driver, config, log, mayWrite, audit.record);
    onClose(() => housekeeping.close());
  }

  const names = () => certificate.names();
  const refusal = () => (readOnly ? 'the registry is read-only' : maintenance.refusal);
  door.admit(createApplication({ config, driver, authentication, audit, anchor, health, names, refusal, door, log }));

  const { port } = early ?? (await listener.listen(address));
  started();
  const data = placeOf(config.storage);
  if (isFirstToServe(worker)) log.info('listening', { addr: config.http.addr, port, tls: pair !== undefined, data });
  return {
    host: address.host,
    port,
    certificates,
    pair,
    users: authentication.users,
    open: config.auth.none !== undefined,
    data,
    readAsRoot,
    stop: async () => {
      const timeout = config.http.draintimeout;
      log.info('stopping: running transfers may finish', { timeout_ms: timeout });
      const { aborted } = await listener.drain(timeout);
      if (aborted > 0) log.warn('cut off transfers that took too long', { aborted });
      await close();
    },
  };
}

/** The log; that of a process which joins others keeps to itself, until `started`, what the first one has said. */
function openLog({ config, worker }: ServeOptions, onClose: OnClose): { log: Log; started: () => void } {
  const { level, formatter } = config.log;
  const { close, ...spoken } = createLogger({ level, formatter, fields: fieldsOf(config, worker) });
  onClose(close);
  let isQuiet = !isFirstToServe(worker);
  return {
    log: {
      ...spoken,
      warn: (...said) => isQuiet || spoken.warn(...said),
      info: (...said) => isQuiet || spoken.info(...said),
    },
    started: () => {
      isQuiet = false;
    },
  };
}

function fieldsOf({ log: { fields } }: Config, worker: Charge | undefined) {
  return { ...fields, ...(worker && { worker: worker.number }) };
}

/** To be called before the files are read for the first time: then no change can fall in between. */
function watching(audit: Audit, log: Log, onClose: OnClose): WatchFiles {
  return (files, what, reload) => {
    const watcher = watchFiles(files, audit.reloading(files, what, reload), { what, log });
    onClose(() => watcher.close());
  };
}

interface Door {
  readonly listener: Listener;
  /** Has every request answered by the application; until then they wait, and are asked to come again after a while. */
  admit(app: Handler): void;
  /** What every answer carries. */
  readonly headers: AppOptions['headers'];
}

/** The listener and its access log. */
function openDoor(options: {
  readonly config: Config;
  readonly pair: ServerPair | undefined;
  readonly trust: ClientTrust | undefined;
  readonly worker: Charge | undefined;
  readonly log: Log;
  readonly onClose: OnClose;
}): Door {
  const { config, pair, trust, worker, log, onClose } = options;
  const { minimumtls, ciphersuites } = config.http.tls;
  const headers = carried(config.http.headers);
  const accessLog = config.log.accesslog.disabled
    ? undefined
    : createAccessLog({
        formatter: config.log.formatter,
        fields: fieldsOf(config, worker),
        principal: userOf,
        address: addressOf(config),
      });
  if (accessLog) onClose(() => accessLog.close());
  const waiting = new Set<() => void>();
  let app: Handler = (request, response) => {
    const enter = () => {
      clearTimeout(patience);
      if (!response.destroyed) app(request, response);
    };
    const patience = setTimeout(() => {
      waiting.delete(enter);
      response.writeHead(503, [...headers(request), 'Retry-After', '1']).end();
    }, PATIENCE_MS).unref();
    waiting.add(enter);
  };
  const listener = createListener({
    tls: pair
      ? { ...pair, minimumVersion: minimumtls, ciphers: ciphersuites, ...(trust && { clients: trust }) }
      : 'plain',
    log,
    handler: (request, response) => {
      const id = requestId(request);
      accessLog?.begin(request, id);
      app(request, response);
    },
    ...(accessLog && { onEnd: accessLog.end }),
  });
  return {
    listener,
    admit: handler => {
      app = handler;
      for (const enter of waiting) enter();
      waiting.clear();
    },
    headers,
  };
}

/** The number of the request, and `http.headers`, which may have another one. */
function carried(configured: Config['http']['headers']): AppOptions['headers'] {
  const always = Object.entries(configured).flatMap(([name, values]) => values.flatMap(value => [name, value]));
  if (Object.keys(configured).some(name => name.toLowerCase() === 'x-request-id')) return () => always;
  return request => ['X-Request-Id', requestIdOf(request)!, ...always];
}

function userOf(request: IncomingMessage): string | undefined {
  const identity = identityOf(request);
  return identity?.kind === 'user' ? identity.name : undefined;
}

/** @returns whether there is something that cannot be read again, which is warned of */
async function giveUpRoot(account: Account, read: readonly string[], log: Log): Promise<boolean> {
  become(account);
  log.info('gave up root', { ...account });
  const warnings = await unreadable(account, read);
  for (const warning of warnings) log.warn(warning);
  return warnings.length > 0;
}

/** Renews the certificate, and issues lists of revoked clients anew, as long as this process serves. */
async function startUpkeep(options: {
  readonly passphrase: Passphrase | undefined;
  readonly certificate: ServedCertificate;
  readonly clients: Clients | undefined;
  readonly log: Log;
  readonly record: Audit['record'];
  readonly onClose: OnClose;
}): Promise<void> {
  const { passphrase, certificate, clients, log, record, onClose } = options;
  const { certificates, files } = certificate;
  if (files) {
    const folder = certificates ? certificates.dir : await folderOf(files);
    const renewal = startRenewal({ folder, files, passphrase, log, record });
    onClose(() => renewal.close());
    certificate.follow(() => renewal.changed());
  }
  if (clients) {
    const { ownFolder, trust } = clients;
    const upkeep = startListUpkeep({ ownFolder, passphrase, trust, log, record });
    onClose(() => upkeep.close());
  }
}

/** What answers requests, from the storage to the web. */
function createApplication(parts: {
  readonly config: Config;
  readonly driver: StorageDriver;
  readonly authentication: Authentication;
  readonly audit: Audit;
  readonly anchor: () => Promise<Anchor | undefined>;
  readonly health: Health;
  /** Of the certificate that is served; undefined over plain HTTP. */
  readonly names: () => readonly string[] | undefined;
  /** Why nothing can be changed at present. */
  readonly refusal: () => string | undefined;
  readonly door: Door;
  readonly log: Log;
}): Handler {
  const { config, driver, authentication, audit, anchor, health, names, refusal, door, log } = parts;
  const { prefix } = config.http;
  const authenticator = authentication.authenticator(driver, names);
  const store = openStore(config, driver, log);
  const entrance: Entrance = {
    prefix,
    deletes: config.storage.delete.enabled,
    readOnly: refusal,
    authenticate: (request, repositories) => authenticator.authenticate(request, repositories),
    refusal: (...refused) => authenticator.refusal(...refused),
    onRefusal: audit.refused,
    onFault: (error, request) =>
      log.error('a request failed', { method: request.method, path: withoutSecrets(request.url ?? ''), error }),
  };
  const registry = createRegistry({
    ...entrance,
    store,
    limits: {
      manifestBytes: config.limits.manifestsize,
      catalogEntries: config.catalog.maxentries,
      tagEntries: config.tags.maxtags,
    },
    issueToken: identity => authenticator.issueToken(identity),
    authorise: authentication.authorise,
    onChange: audit.changed,
  });
  return createApp({
    registry,
    api: apiOnDemand({ entrance, onChange: audit.changed, config, driver, store, authentication, names }),
    prefix,
    headers: door.headers,
    health,
    pages: trustPagesOnDemand({ anchor, prefix }, entrance.onFault),
    onFault: entrance.onFault,
    onIdentity: (request, identity) => {
      setIdentity(request, identity);
      audit.identified(request, identity);
      if (identity.kind === 'user') allowPause(request);
    },
  });
}

function openStore(config: Config, driver: StorageDriver, log: Log): Store {
  return new Store(driver, {
    largestManifest: config.limits.manifestsize,
    quotas: config.limits.quotas,
    openUploads: config.limits.uploads,
    validation: validationOf(config),
    grace: config.storage.maintenance.gc.grace,
    isImmutable: immutableOf(config),
    verify: config.storage.verify,
    others: OTHERS,
    onCorruption: ({ digest, actual, key }) =>
      log.error('the stored bytes are corrupt; push the image again, or run registry-secure verify --repair', {
        digest,
        actual,
        key,
      }),
    onReread: reread => log.info('read an upload again for its digest', { ...reread }),
  });
}
