import type { X509Certificate } from 'node:crypto';
import { access, constants, readdir, stat, statfs } from 'node:fs/promises';
import { createServer, isIP } from 'node:net';
import { networkInterfaces } from 'node:os';
import { dirname, join } from 'node:path';
import { loadHtpasswd } from '../auth/htpasswd-file.js';
import type { LegacyHash } from '../auth/legacy-hash.js';
import type { Inspected } from '../config/load.js';
import type { Config } from '../config/schema.js';
import { parseAddress } from '../config/values.js';
import { OperatorError, systemCode } from '../errors.js';
import { PublishedKeyError, readTrustAnchor } from '../pki/certificates.js';
import { checkChain } from '../pki/check.js';
import { exposedKey, loadServerPair, parseCertificates, readPem, type ServerPair } from '../pki/inspect.js';
import { namesHint, thisMachine } from '../pki/machine.js';
import { notAfter } from '../pki/x509.js';
import { FilesystemDriver } from '../storage/filesystem.js';
import { dataFolderOf, placeOf, storageOf } from '../storage/open.js';
import { quoted } from '../trust/shell.js';
import type { Check, Say } from './check.js';
import { ask, askPlainly, type Endpoint, refusalOf, shakeHands } from './connection.js';

const DAY = 86_400_000;
/** An authority that ends within this time should be followed by another one now. */
const AUTHORITY_NOTICE = 90 * DAY;
/** Hashes that are cheaper than what Apache's htpasswd and ours make are guessed too quickly. */
const LOWEST_COST = 10;
const LEAST_FREE_BYTES = 1024 ** 3;
/** Of all bytes, and of all inodes. */
const LEAST_FREE_SHARE = 0.05;

/** The registry that is installed here, with what its checks find out. */
export class Installation {
  /** The pair on the disk, where it is good. */
  pair: ServerPair | undefined;

  constructor(
    /** The folder that holds `certs/`, `auth/` and `data/`. */
    readonly dir: string,
    readonly inspected: Inspected,
    readonly now: () => Date = () => new Date(),
  ) {}

  /** @throws OperatorError where it is invalid, which the first check says in detail */
  get config(): Config {
    if (this.inspected.config) return this.inspected.config;
    throw new OperatorError('the configuration is invalid');
  }
}

export const INSTALLATION_CHECKS: ReadonlyArray<Check<Installation>> = [
  { name: 'config', title: 'the configuration', run: checkConfiguration },
  { name: 'certificate', title: 'the certificate and its key', run: checkPair },
  { name: 'authority', title: 'the authority and its key', run: checkAuthority },
  { name: 'htpasswd', title: 'the users', run: checkUsers },
  { name: 'data', title: 'the data folder', run: checkData },
  { name: 'server', title: 'the running server', run: checkServer },
];

function checkConfiguration({ inspected: { config, problems, warnings, file } }: Installation, say: Say): void {
  for (const { what, fix } of problems) say.error(what, { fix });
  for (const warning of warnings) say.warning(warning);
  if (config?.http.insecureplainhttp)
    say.warning('it serves plain HTTP: passwords and images can be read on the way', {
      error: 'plain-http',
      fix: 'put TLS in front, or listen on loopback only',
    });
  if (config) say.ok(`the configuration is valid (${file ?? 'without a file'})`);
}

const sayError = (say: Say, error: unknown, prefix = ''): void => {
  if (!(error instanceof OperatorError)) throw error;
  say.error(`${prefix}${error.message}`, { fix: error.fix });
};

function pairOf({ dir, config: { http } }: Installation): { certificate: string; key: string } | undefined {
  if (http.insecureplainhttp) return undefined;
  const { certificate, key } = http.tls;
  if (certificate !== undefined && key !== undefined) return { certificate, key };
  return { certificate: join(dir, 'certs', 'domain.crt'), key: join(dir, 'certs', 'domain.key') };
}

async function checkPair(installation: Installation, say: Say): Promise<void> {
  if (!installation.inspected.config) return;
  const files = pairOf(installation);
  if (!files) return;
  if ((await isMissing(files.certificate)) && (await isMissing(files.key))) {
    say.warning(`there is no certificate yet: ${files.certificate}`, {
      fix: 'up, serve and init-certs make one',
      commands: [`registry-secure init-certs --out ${quoted(dirname(files.certificate))}`],
    });
    return;
  }
  try {
    installation.pair = await loadServerPair(files, installation.now());
  } catch (error) {
    sayError(say, error);
    return;
  }
  const { warnings, names, notAfter } = installation.pair;
  for (const warning of warnings) say.warning(warning);
  const hint = namesHint(names, thisMachine());
  if (hint) say.warning(hint);
  say.ok(`${files.certificate} is good for ${names.join(', ')} until ${notAfter.toISOString()}`);
}

async function isMissing(path: string): Promise<boolean> {
  return access(path).then(
    () => false,
    error => systemCode(error) === 'ENOENT',
  );
}

async function checkAuthority(installation: Installation, say: Say): Promise<void> {
  const files = installation.inspected.config && pairOf(installation);
  if (!files || (await isMissing(files.certificate))) return;
  const folder = dirname(files.certificate);
  const key = join(folder, 'ca.key');
  const exposed = (await isMissing(key)) ? undefined : await exposedKey(key);
  if (exposed) say.error(exposed.message, { commands: [exposed.fix!] });
  let path: string;
  try {
    ({ path } = await readTrustAnchor(files.certificate));
  } catch (error) {
    if (!(error instanceof OperatorError)) throw error;
    if (error instanceof PublishedKeyError) say.error(error.message, { fix: error.fix! });
    else say.ok(error.message);
    return;
  }
  const anchors: readonly X509Certificate[] = parseCertificates(path, await readPem(path));
  const chain = parseCertificates(files.certificate, await readPem(files.certificate));
  const now = installation.now();
  const alone = checkChain(chain, { now }).map(({ code }) => code);
  for (const { severity, code, message, fix } of checkChain(chain, { now, anchors }))
    if (!alone.includes(code)) say[severity](`${path}: ${message}`, { fix });
  for (const anchor of anchors) {
    const left = notAfter(anchor).getTime() - now.getTime();
    if (left > 0 && left < AUTHORITY_NOTICE)
      say.warning(`${path} expires on ${notAfter(anchor).toISOString()}: clients need its successor before`, {
        commands: ['registry-secure certs rotate-ca'],
      });
  }
  say.ok(`clients install ${path}; SHA-256 ${anchors.map(({ fingerprint256 }) => fingerprint256).join(', ')}`);
}

async function checkUsers({ inspected: { config } }: Installation, say: Say): Promise<void> {
  if (!config) return;
  const { htpasswd, none, realms } = config.auth;
  if (none) say.warning('the registry is open: everybody who reaches it may pull and push (auth.none)');
  const files = realms.flatMap(({ sources }) => sources.flatMap(source => source.htpasswd ?? []));
  if (htpasswd) files.push(htpasswd);
  for (const { path, legacyhashes } of files) await checkPasswords(path, legacyhashes, say);
  if (files.length === 0 && realms.length > 0)
    say.ok(`users are those of auth.realms: ${realms.map(({ name }) => name).join(', ')}`);
}

async function checkPasswords(file: string, legacy: readonly LegacyHash[], say: Say): Promise<void> {
  if (await isMissing(file)) {
    say.warning(`there are no users yet: ${file} is missing`, {
      fix: 'up and serve make the first one',
      commands: [`registry-secure user add NAME --file ${quoted(file)}`],
    });
    return;
  }
  try {
    const { users, entries, warnings } = await loadHtpasswd(file, legacy);
    for (const warning of warnings) say.warning(warning);
    for (const { name, line, cost } of entries)
      if (cost !== undefined && cost < LOWEST_COST)
        say.warning(`${file}:${line}: bcrypt cost ${cost} of user ${JSON.stringify(name)} is guessed quickly`, {
          commands: [`registry-secure user passwd ${quoted(name)} --file ${quoted(file)}`],
        });
    if (users.size === 0)
      say.error(`nobody in ${file} can log in`, { commands: [`registry-secure user add NAME --file ${quoted(file)}`] });
    else say.ok(`${users.size} ${users.size === 1 ? 'user' : 'users'} can log in (${file})`);
  } catch (error) {
    sayError(say, error);
    return;
  }
  const exposed = await exposedKey(file).catch(() => undefined);
  if (exposed) say.warning(exposed.message, { commands: [exposed.fix!] });
}

async function checkData({ inspected: { config } }: Installation, say: Say): Promise<void> {
  if (!config) return;
  const root = dataFolderOf(config.storage);
  if (root === undefined) return checkBucket(config, say);
  if (await isMissing(root)) {
    say.warning(`there is no data folder ${root} yet`, {
      fix: 'serve makes it; where a volume should be mounted there, it is not',
    });
    return;
  }
  const driver = new FilesystemDriver({ root, readOnly: true });
  try {
    await driver.open();
    await driver.close();
  } catch (error) {
    sayError(say, error);
    return;
  }
  await sayWhose(root, config.storage.maintenance.readonly.enabled, say);
  const names = (await readdir(root)).filter(name => name !== 'lost+found' && name !== 'README.md');
  if (names.length > 0 && !names.includes('docker') && !names.includes('registry-secure'))
    say.warning(`${root} holds something else than a registry (${names.slice(0, 3).join(', ')})`, {
      fix: 'check the path, or the mount',
    });
  await sayRoom(root, say);
}

async function checkBucket({ storage }: Config, say: Say): Promise<void> {
  const readOnly = storage.maintenance.readonly.enabled;
  try {
    const driver = await storageOf(storage, {
      readOnly,
      onNotice: message => say.warning(message),
      onRedirects: warning => say.warning(warning),
    });
    await driver.open().finally(() => driver.close());
    say.ok(`${placeOf(storage)} can be ${readOnly ? 'read' : 'written'}`);
  } catch (error) {
    sayError(say, error);
  }
}

async function sayWhose(root: string, readOnly: boolean, say: Say): Promise<void> {
  const { uid } = await stat(root);
  const writable = await access(root, constants.W_OK | constants.X_OK).then(
    () => true,
    () => false,
  );
  if (writable || readOnly) say.ok(`${root} can be ${readOnly ? 'read' : 'written'}, and belongs to user ${uid}`);
  else
    say.error(
      `no permission to write to ${root}: it belongs to user ${uid}, this process is user ${process.getuid?.()}`,
      {
        fix: `run as user ${uid}, or give it away`,
        commands: [`sudo chown -R ${process.getuid?.()} ${quoted(root)}`],
      },
    );
}

async function sayRoom(root: string, say: Say): Promise<void> {
  const { bsize, bavail, blocks, files, ffree } = await statfs(root);
  const gib = (bytes: number) => `${(bytes / 1024 ** 3).toFixed(1)} GiB`;
  const free = bsize * bavail;
  if (free < LEAST_FREE_BYTES || bavail < blocks * LEAST_FREE_SHARE)
    say.warning(`${root} has ${gib(free)} of ${gib(bsize * blocks)} left`, {
      fix: 'free some space',
      commands: ['registry-secure gc', `df -h ${quoted(root)}`],
    });
  else say.ok(`${root} has ${gib(free)} left`);
  // Some file systems (btrfs, xfs in part) have no fixed number, and say 0.
  if (files > 0 && ffree < files * LEAST_FREE_SHARE)
    say.warning(`${root} has ${ffree} of ${files} inodes left`, { commands: [`df -i ${quoted(root)}`] });
}

async function checkServer(installation: Installation, say: Say): Promise<void> {
  const { config } = installation.inspected;
  if (!config) return;
  const { host, port } = parseAddress(config.http.addr);
  const address = host === '0.0.0.0' ? '127.0.0.1' : host === '' || host === '::' ? 'localhost' : host;
  const endpoint: Endpoint = { address, port, name: address };
  if (isIP(address) !== 0 && !isOwn(address)) {
    const fix = `listen on all addresses: --addr 0.0.0.0:${port}`;
    say.error(`this machine has no address ${address}, so nothing can be served at ${config.http.addr}`, { fix });
    return;
  }
  if ((await refusalOf(endpoint)) !== undefined) {
    const problem = await whyNotListen(host, port);
    if (problem === undefined)
      say.warning(`no registry runs at ${config.http.addr}; the port is free`, { fix: 'start it: up, or serve' });
    else
      say.error(`nothing answers at ${config.http.addr}, and ${problem}`, {
        fix: 'choose another address: --addr 0.0.0.0:5000',
      });
    return;
  }
  const asked = { path: '/healthz' };
  const answer = await (config.http.insecureplainhttp ? askPlainly(endpoint, asked.path) : ask(endpoint, asked)).catch(
    error => error as Error,
  );
  if (answer instanceof Error || !answer.body.includes('"status"')) {
    const said = answer instanceof Error ? (systemCode(answer) ?? answer.message) : `status ${answer.status}`;
    say.error(`what answers at ${config.http.addr} is not this registry (${said})`, {
      fix: 'see who holds the port, and end that, or choose another',
      commands: [`sudo ss -ltnp 'sport = :${port}'`],
    });
    return;
  }
  if (answer.status === 200) say.ok(`a registry runs at ${config.http.addr}, and is well`);
  else say.error(`the registry at ${config.http.addr} is not well: ${answer.body.trim()}`, { fix: 'look at its log' });
  await sayServed(installation, endpoint, say);
}

function isOwn(address: string): boolean {
  const own = Object.values(networkInterfaces()).flatMap(list => list ?? []);
  return /^127\.|^::1$/.test(address) || own.some(one => one.address === address);
}

/** What the server has in memory is what clients meet. */
async function sayServed({ pair }: Installation, endpoint: Endpoint, say: Say): Promise<void> {
  if (!pair) return;
  const { chain } = await shakeHands(endpoint, 'TLSv1.3');
  if (chain[0]?.fingerprint256 === pair.fingerprint) say.ok('it serves the certificate that is on the disk');
  else
    say.error(
      `it serves another certificate than the one on the disk: ${chain[0]?.fingerprint256}, not ${pair.fingerprint}`,
      {
        fix: 'look at its log for why it did not take the new one, or restart it',
      },
    );
}

/** Undefined when the address could be listened on now. */
async function whyNotListen(host: string, port: number): Promise<string | undefined> {
  const server = createServer();
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen({ host: host === '' ? undefined : host, port }, resolve);
    });
    return undefined;
  } catch (error) {
    const reasons: Readonly<Record<string, string>> = {
      EADDRINUSE: 'the port is in use',
      EACCES: 'this user may not listen on it',
    };
    return reasons[systemCode(error) ?? ''] ?? (error as Error).message;
  } finally {
    server.close();
  }
}
