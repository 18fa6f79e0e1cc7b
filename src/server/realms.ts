import { access, constants } from 'node:fs/promises';
import { BcryptPool } from '../auth/bcrypt-pool.js';
import { CertificateUsers } from '../auth/certificate-users.js';
import { HtpasswdCredentials } from '../auth/credentials.js';
import { LdapCredentials } from '../auth/ldap/credentials.js';
import { Directory } from '../auth/ldap/directory.js';
import type { LegacyHash } from '../auth/legacy-hash.js';
import { fromProxy, ProxyUsers } from '../auth/proxies.js';
import { type Realm, Realms } from '../auth/realms.js';
import type { CredentialSource, RequestSource } from '../auth/source.js';
import type { LdapConfig, RealmConfig, SourceConfig } from '../config/realms.js';
import type { Config } from '../config/schema.js';
import { OperatorError, systemCode } from '../errors.js';
import { parseGlob } from '../glob.js';
import type { Log } from './log.js';
import type { WatchFiles } from './watch.js';

interface RealmOptions {
  readonly config: Config;
  readonly watch: WatchFiles;
  readonly log: Log;
  readonly onClose: (close: () => void) => void;
}

interface Opening extends RealmOptions {
  /** One for all files, so that logins never take more than one core. */
  readonly bcrypt: BcryptPool;
}

/** The realms of the configuration with their sources, opened; undefined where nobody is asked. @throws OperatorError */
export async function openRealms(given: RealmOptions): Promise<Realms | undefined> {
  const options = { ...given, bcrypt: new BcryptPool() };
  const { auth, http } = options.config;
  const proxies = auth.realms.flatMap(({ sources }) => sources.flatMap(({ proxy }) => proxy ?? []));
  const trusted = [http.proxies, ...proxies].map(fromProxy);
  const isProxy: IsProxy = request => trusted.some(trusts => trusts(request));
  const realms: Realm[] = [];
  for (const realm of auth.realms) realms.push(await openRealm(realm, isProxy, options));
  if (auth.htpasswd) {
    const { realm, path, legacyhashes } = auth.htpasswd;
    const source = await openHtpasswd(path, legacyhashes, options);
    realms.push({ name: realm, covers: () => true, passwords: [source], requests: [] });
  }
  return realms.length > 0 ? new Realms(realms) : undefined;
}

/** What is read again while the registry runs, or at each connection. */
export function realmFiles({ auth }: Config): string[] {
  const sources = auth.realms.flatMap(({ sources }) => sources);
  return [
    auth.htpasswd?.path,
    ...sources.flatMap(({ htpasswd, ldap }) => [htpasswd?.path, ldap?.ca, ldap?.bindpasswordfile]),
  ].filter(file => file !== undefined);
}

type IsProxy = (request: Parameters<RequestSource['identify']>[0]) => boolean;

async function openRealm(
  { name, repositories, sources }: RealmConfig,
  isProxy: IsProxy,
  options: Opening,
): Promise<Realm> {
  const patterns = repositories.map(parseGlob);
  const passwords: CredentialSource[] = [];
  for (const { htpasswd, ldap } of sources) {
    if (htpasswd) passwords.push(await openHtpasswd(htpasswd.path, htpasswd.legacyhashes, options));
    if (ldap) passwords.push(await openLdap(ldap, options));
  }
  return {
    name,
    covers: repository => patterns.some(pattern => pattern(repository)),
    passwords,
    requests: sources.flatMap(source => requestSource(source, isProxy)),
  };
}

function requestSource({ certificate, proxy }: SourceConfig, isProxy: IsProxy): RequestSource[] {
  if (certificate) return [new CertificateUsers({ ...certificate, isProxy })];
  if (!proxy) return [];
  const { header, groupsheader } = proxy;
  return [new ProxyUsers({ header, groupsHeader: groupsheader, trusts: fromProxy(proxy) })];
}

async function openHtpasswd(
  file: string,
  legacy: readonly LegacyHash[],
  { watch, log, bcrypt }: Opening,
): Promise<HtpasswdCredentials> {
  let source: HtpasswdCredentials | undefined;
  watch([file], 'htpasswd file', async () => {
    if (!source) throw new Error('not read yet');
    await source.reload();
    for (const warning of source.warnings) log.warn(warning);
  });
  source = await HtpasswdCredentials.open(file, bcrypt, legacy);
  for (const warning of source.warnings) log.warn(warning);
  return source;
}

async function openLdap(ldap: LdapConfig, { log, onClose }: RealmOptions): Promise<LdapCredentials> {
  const { url, ca, binddn, bindpasswordfile, userbase, userfilter, userdn, groupbase, groupfilter } = ldap;
  for (const file of [ca, bindpasswordfile]) if (file !== undefined) await mustBeReadable(file);
  const directory = new Directory({
    url,
    startTls: ldap.starttls,
    authorities: ca,
    timeout: ldap.timeout,
    account:
      binddn !== undefined && bindpasswordfile !== undefined
        ? { name: binddn, passwordFile: bindpasswordfile }
        : undefined,
    onState: problem =>
      problem === undefined
        ? log.info(`the directory ${url} answers again`)
        : log.error(`the directory ${url} cannot be used, so nobody can log in by it: ${problem}`),
  });
  onClose(() => directory.close());
  // Not waited for: one that is down keeps nobody else out.
  void directory.probe();
  return new LdapCredentials(directory, {
    place: userdn === undefined ? { base: userbase!, filter: userfilter } : { name: userdn },
    attribute: ldap.userattribute,
    groups:
      groupbase === undefined ? undefined : { base: groupbase, filter: groupfilter, attribute: ldap.groupattribute },
    cache: ldap.cache,
  });
}

async function mustBeReadable(file: string): Promise<void> {
  await access(file, constants.R_OK).catch(cause => {
    throw new OperatorError(`${file}, which auth.realms names, cannot be read (${systemCode(cause) ?? cause})`, {
      fix: 'check the path and the rights of the file',
      cause,
    });
  });
}
