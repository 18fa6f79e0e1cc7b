import type { IncomingMessage } from 'node:http';
import { isIP } from 'node:net';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import type { Config } from '../config/schema.js';
import { parseAddress } from '../config/values.js';
import { type Certificates, ensureCertificates } from '../pki/certificates.js';
import type { Passphrase } from '../pki/folder.js';
import { loadServerPair, type ServerPair } from '../pki/inspect.js';
import { type Machine, namesHint } from '../pki/machine.js';
import { folderOf } from '../pki/renewal.js';
import { createRegistry, type Entrance } from '../registry/registry.js';
import { FilesystemDriver } from '../storage/filesystem.js';
import { releaseBackup } from '../store/backup.js';
import { Store } from '../store/store.js';
import { createTrustPages } from '../ui/trust-pages.js';
import { followAnchor } from './anchor.js';
import { serveApi } from './api.js';
import { createApp } from './app.js';
import { Audit } from './audit.js';
import { type Authentication, addressOf, prepareAuthentication } from './authentication.js';
import { type ClientTrust, clientTrustWarnings, loadClientTrust, refuseOlderLists } from './client-trust.js';
import { clientSetupOf, prepareOwnClients, startListUpkeep } from './clients.js';
import { allowPause } from './guard.js';
import { watchHealth } from './health.js';
import { immutableOf, startHousekeeping } from './housekeeping.js';
import { createListener, type Handler, type Listener } from './listener.js';
import { createAccessLog, createLogger, type Log, requestId, withoutSecrets } from './log.js';
import { watchMaintenance } from './maintenance.js';
import { type Account, become, handingOver, unreadable, volumeOwner } from './privileges.js';
import { type RenewalTask, startRenewal } from './renewal.js';
import type { Users } from './users.js';
import { validationOf } from './validation.js';
import { watchFiles } from './watch.js';
import { type Charge, isFirstToServe } from './worker.js';

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
  /** Drains: no new connections, running transfers finish in the time that the configuration gives them. */
  stop(): Promise<void>;
}

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
  const { config } = options;
  const { worker } = options;
  const { level, formatter } = config.log;
  const fields = { ...config.log.fields, ...(worker && { worker: worker.number }) };
  const { close: closeLog, ...spoken } = createLogger({ level, formatter, fields });
  let starting = true;
  const isQuiet = () => starting && !isFirstToServe(worker);
  const log: Log = {
    ...spoken,
    warn: (...said) => isQuiet() || spoken.warn(...said),
    info: (...said) => isQuiet() || spoken.info(...said),
  };
  const closers: Array<() => unknown> = [closeLog];
  const close = async () => {
    for (const closer of closers.reverse()) await closer();
  };
  // To be called before the files are read for the first time: then no change can fall in between.
  const watch = (files: readonly string[], what: string, reload: () => Promise<void>) => {
    const watcher = watchFiles(files, audit.reloading(files, what, reload), { what, log });
    closers.push(() => watcher.close());
  };
  let authentication: Authentication | undefined;
  const audit = new Audit(config, log, name => authentication?.isUser(name) ?? false);
  closers.push(() => audit.close());
  try {
    for (const warning of options.warnings) log.warn(warning);
    const address = parseAddress(config.http.addr);
    const data = config.storage.filesystem.rootdirectory;
    const { account, warning: stillRoot } = options.asVolumeOwner ? await volumeOwner(data) : {};
    if (stillRoot) log.warn(stillRoot);
    const { certificates, files } = await prepareCertificates(options, address.host, account);
    let listener: Listener | undefined;
    let served: ServerPair | undefined;
    let renewal: RenewalTask | undefined;
    if (files)
      watch([files.certificate, files.key], 'certificate', async () => {
        const next = await loadServerPair(files);
        if (!listener) throw new Error('not listening yet');
        listener.setCertificate(next);
        served = next;
        renewal?.changed();
        for (const warning of next.warnings) log.warn(warning);
      });
    const pair = files && { ...(await loadServerPair(files)), path: files.certificate };
    served = pair;
    for (const warning of new Set([...(certificates?.warnings ?? []), ...(pair?.warnings ?? [])])) log.warn(warning);
    const hint = certificates && namesHint(certificates.server.names, options.machine);
    if (hint) log.warn(hint);
    if (!files)
      log.warn(
        'serving plain HTTP: passwords and images can be read on the way; put TLS in front, or listen on loopback only',
      );

    const anchor = await followAnchor(files?.certificate);

    const clients = clientSetupOf(config, options.dir);
    let clientTrust: ClientTrust | undefined;
    if (clients) {
      const { mode, files, ownFolder } = clients;
      if (ownFolder !== undefined) {
        const prepare = () => prepareOwnClients(ownFolder, options.passphrase);
        for (const warning of await handingOver(account, ownFolder, prepare)) log.warn(warning);
      }
      watch([...files.authorities, ...files.lists], 'trust in client certificates', async () => {
        const next = await loadClientTrust(mode, files);
        if (!listener || !clientTrust) throw new Error('not listening yet');
        refuseOlderLists(clientTrust, next);
        listener.setClientTrust(next);
        clientTrust = next;
      });
      clientTrust = await loadClientTrust(mode, files);
      for (const warning of clientTrustWarnings(clientTrust)) log.warn(warning);
    }

    const principals = new WeakMap<IncomingMessage, string>();
    const accessLog = config.log.accesslog.disabled
      ? undefined
      : createAccessLog({
          formatter,
          fields,
          principal: request => principals.get(request),
          address: addressOf(config),
        });
    if (accessLog) closers.push(() => accessLog.close());
    // The port is taken before the storage is opened, so that a second start by mistake touches nothing.
    let app: Handler = (_request, response) => void response.writeHead(503, { 'Retry-After': '1' }).end();
    const server = createListener({
      tls: pair
        ? {
            ...pair,
            minimumVersion: config.http.tls.minimumtls,
            ciphers: config.http.tls.ciphersuites,
            ...(clientTrust && { clients: clientTrust }),
          }
        : 'plain',
      log,
      handler: (request, response) => {
        const id = requestId(request);
        response.setHeader('X-Request-Id', id);
        accessLog?.follow(request, response, id);
        app(request, response);
      },
    });
    // One that serves beside others has it anyway, and takes no connection before it can answer.
    const early = isFirstToServe(worker) ? await server.listen(address) : undefined;
    listener = server;
    closers.push(() => server.drain(0));

    const { firstUser, terminal } = options;
    const onClose = (closer: () => void) => void closers.push(closer);
    authentication = await prepareAuthentication({ config, firstUser, terminal, account, watch, onClose, log });
    await audit.prepare(account);
    if (account) {
      become(account);
      log.info('gave up root', { ...account });
      const read = [
        ...(files ? [files.certificate, files.key] : []),
        ...authentication.files,
        ...(clients ? [...clients.files.authorities, ...clients.files.lists] : []),
      ];
      for (const warning of await unreadable(account, read)) log.warn(warning);
    }

    // Of several processes one is enough.
    const leads = (worker?.number ?? 1) === 1;
    if (leads && files) {
      const { passphrase } = options;
      const folder = certificates ? certificates.dir : await folderOf(files);
      const task = startRenewal({ folder, files, passphrase, log, record: audit.record });
      closers.push(() => task.close());
      renewal = task;
    }

    if (leads && clients) {
      const { ownFolder } = clients;
      const { passphrase } = options;
      const { record } = audit;
      const upkeep = startListUpkeep({ ownFolder, passphrase, trust: () => clientTrust!, log, record });
      closers.push(() => upkeep.close());
    }

    const { readonly } = config.storage.maintenance;
    const driver = new FilesystemDriver({
      root: data,
      readOnly: readonly.enabled,
      onFault: message => log.error(message),
    });
    await driver.open();
    closers.push(() => driver.close());
    await audit.open(driver);
    audit.started(certificates, authentication.users);
    if (leads && !readonly.enabled) await releaseBackup(driver);
    if (readonly.enabled) log.warn('read-only: pushes and deletes are refused (storage.maintenance.readonly)');
    const maintenance = await watchMaintenance(driver, log);
    closers.push(() => maintenance.close());
    const health = watchHealth(driver, log, config.health.storagedriver);
    closers.push(() => health.close());
    if (leads && !readonly.enabled) {
      const housekeeping = startHousekeeping(
        driver,
        config,
        log,
        () => maintenance.refusal === undefined,
        audit.record,
      );
      closers.push(() => housekeeping.close());
    }

    const { prefix } = config.http;
    const authenticator = authentication.authenticator(driver, () => served?.names);

    const store = new Store(driver, {
      largestManifest: config.limits.manifestsize,
      quotas: config.limits.quotas,
      openUploads: config.limits.uploads,
      validation: validationOf(config),
      grace: config.storage.maintenance.gc.grace,
      isImmutable: immutableOf(config),
      verify: config.storage.verify,
      onCorruption: ({ digest, actual, key }) =>
        log.error('the stored bytes are corrupt; push the image again, or run registry-secure verify --repair', {
          digest,
          actual,
          key,
        }),
    });
    const entrance: Entrance = {
      prefix,
      deletes: config.storage.delete.enabled,
      readOnly: () => (readonly.enabled ? 'the registry is read-only' : maintenance.refusal),
      authenticate: (...asked) => authenticator.authenticate(...asked),
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
    app = createApp({
      registry,
      api: serveApi({
        entrance,
        onChange: audit.changed,
        config,
        driver,
        store,
        authentication,
        names: () => served?.names,
      }),
      prefix,
      headers: config.http.headers,
      health,
      pages: createTrustPages({ anchor, prefix }),
      onIdentity: (request, identity) => {
        audit.identified(request, identity);
        if (identity.kind !== 'user') return;
        principals.set(request, identity.name);
        allowPause(request);
      },
    });

    const { port } = early ?? (await server.listen(address));
    starting = false;
    if (isFirstToServe(worker)) log.info('listening', { addr: config.http.addr, port, tls: pair !== undefined, data });
    return {
      host: address.host,
      port,
      certificates,
      pair,
      users: authentication.users,
      open: config.auth.none !== undefined,
      data,
      stop: async () => {
        const timeout = config.http.draintimeout;
        log.info('stopping: running transfers may finish', { timeout_ms: timeout });
        const { aborted } = await server.drain(timeout);
        if (aborted > 0) log.warn('cut off transfers that took too long', { aborted });
        await close();
      },
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Whose certificate is served: the operator's, or one of our own authority in `certs/`; none over plain HTTP. */
async function prepareCertificates(
  { config, dir, names, machine, passphrase }: ServeOptions,
  host: string,
  account: Account | undefined,
) {
  if (config.http.insecureplainhttp) return { certificates: undefined, files: undefined };
  const { certificate, key } = config.http.tls;
  if (certificate !== undefined && key !== undefined) return { certificates: undefined, files: { certificate, key } };
  // An address that we are told to listen on is one that clients use; 0.0.0.0 and [::] are none.
  const own = isIP(host) === 0 || /^[0.:]*$/.test(host) ? [] : [host];
  const folder = join(dir, 'certs');
  const certificates = await handingOver(account, folder, () =>
    ensureCertificates({
      dir: folder,
      names,
      machineNames: [...own, ...machine.names],
      passphrase,
      encryptWith: passphrase,
    }),
  );
  return { certificates, files: certificates.server };
}
