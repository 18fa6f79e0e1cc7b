import type { IncomingMessage } from 'node:http';
import { dirname } from 'node:path';
import type { OidcLogins } from '../api/session.js';
import type { Access } from '../auth/access.js';
import { type Authentication as Asking, onlyActive } from '../auth/accounts.js';
import { Authenticator } from '../auth/authenticate.js';
import { HtpasswdCredentials } from '../auth/credentials.js';
import { LoginLimiter } from '../auth/login-limiter.js';
import { MachineTokens } from '../auth/machine-tokens.js';
import { type Authorise, type Policy, policyMay, usersMay } from '../auth/policy.js';
import type { PolicyDocument } from '../auth/policy-document.js';
import { type Origin, originBehind } from '../auth/proxies.js';
import { Tokens } from '../auth/tokens.js';
import { UserFile } from '../auth/user-file.js';
import type { Config } from '../config/schema.js';
import type { StorageDriver } from '../storage/driver.js';
import { Accounts } from '../store/accounts.js';
import { MachineTokenStore } from '../store/machine-tokens.js';
import { findOidcAccount } from '../store/oidc-accounts.js';
import { TokenKeys } from '../store/token-keys.js';
import type { Log } from './log.js';
import { namesakesOf, openOidc } from './oidc.js';
import { openOutsideTokens } from './outside-tokens.js';
import { type Account, handingOver } from './privileges.js';
import { openRealms, realmFiles } from './realms.js';
import { tokenRealm } from './token-realm.js';
import { ensureUsers, type Users } from './users.js';
import type { WatchFiles } from './watch.js';
import { OTHERS } from './worker.js';

export interface AuthenticationOptions {
  readonly config: Config;
  readonly firstUser: { readonly name?: string | undefined; readonly password?: string | undefined } | undefined;
  readonly terminal: boolean;
  /** Who is to own what is made; undefined: whoever runs this. */
  readonly account: Account | undefined;
  readonly watch: WatchFiles;
  /** Takes what is to be called at the end. */
  readonly onClose: (close: () => void) => void;
  readonly log: Log;
}

/** Who is asking, and what they may do, as the configuration has it. */
export interface Authentication {
  /** What became of the password file; undefined where there is none. */
  readonly users: Users | undefined;
  /** What is read again while the registry runs. */
  readonly files: readonly string[];
  readonly authorise: Authorise;
  /** The same by another policy. */
  readonly authoriseBy: (policy: Policy) => Authorise;
  /** Whether somebody is known to be called so, without asking anybody. */
  isUser(name: string): boolean;
  /** The users that can be changed here; undefined where none are kept. */
  readonly userFile: UserFile | undefined;
  /** Undefined where there is no policy. */
  readonly policyDocument: PolicyDocument | undefined;
  readonly policy: () => Policy | undefined;
  /** Whether tokens of machines are taken in place of passwords. */
  readonly machineTokens: boolean;
  /** Of the client, where not of the socket. */
  readonly addressOf: (request: IncomingMessage) => string | undefined;
  /** Undefined where no provider is configured. @param driver opened @param names as below */
  oidc(driver: StorageDriver, names: () => readonly string[] | undefined): OidcLogins | undefined;
  /** @param driver opened @param names those of the certificate that is served; undefined over plain HTTP */
  authenticator(driver: StorageDriver, names: () => readonly string[] | undefined): Asking;
}

/** Makes the first user where there is none, and reads users and rights. @throws OperatorError */
export async function prepareAuthentication(options: AuthenticationOptions): Promise<Authentication> {
  const { config, log } = options;
  const users = await prepareUsers(options);
  const realms = await openRealms(options);
  const outside = await openOutsideTokens(options);
  const oidc = await openOidc(config);
  const namesakes = namesakesOf(config);
  if (namesakes !== undefined) log.warn(namesakes);
  const own = config.auth.htpasswd && realms?.all.at(-1)?.passwords[0];
  const source = own instanceof HtpasswdCredentials ? own : undefined;
  const access = await openPolicy(options, !realms);
  if (!realms && !outside && !access)
    log.warn('the registry is open (auth.none): everybody who reaches it may pull and push');
  const may = access ? access.may : usersMay({ open: !realms });
  const inRealms = (may: Authorise) => realms?.decide(may) ?? may;
  const { policy, groups } = config.access;
  const origin = originOf(config);
  const isKnown = async (user: string) => (await realms?.known(user)) !== undefined;
  return {
    users,
    files: [...realmFiles(config), ...(outside?.files ?? []), policy, groups].filter(file => file !== undefined),
    authorise: inRealms(may),
    authoriseBy: policy => inRealms(policyMay(policy, { open: !realms })),
    isUser: name => realms?.knows(name) ?? false,
    userFile: users && source && new UserFile(users.file, source),
    policyDocument: access?.documentOf(() => (config.auth.realms.length > 0 || oidc ? undefined : source?.names)),
    policy: () => access?.policy,
    machineTokens: realms !== undefined && !outside,
    addressOf: request => origin(request).address,
    oidc: (driver, names) => oidc?.(driver, tokenRealm(config.http, names, origin), user => isKnown(user)),
    authenticator: (driver, names) => {
      const accounts = new Accounts(driver);
      const isActive = (user: string) => accounts.isActive(user);
      const ownRealm = tokenRealm(config.http, names, origin);
      if (outside) return onlyActive(outside.authenticator(ownRealm), isActive);
      if (!realms) return new Authenticator('open');
      const machineTokens = new MachineTokens(new MachineTokenStore(driver), async (user, among) => {
        if (among ? among.length > 0 : await isKnown(user)) return realms.known(user, among);
        const isTheirs = oidc && !(await isKnown(user)) && (await findOidcAccount(driver, user));
        return isTheirs ? { kind: 'user', name: user } : undefined;
      });
      const authenticator = new Authenticator({
        realms,
        welcomesAnonymous: () => access?.welcomesAnonymous === true,
        tokens: new Tokens(new TokenKeys(driver), realms, machineTokens),
        machineTokens,
        tokenRealm: ownRealm,
        addressOf: request => origin(request).address,
        limiter: new LoginLimiter(OTHERS),
      });
      return onlyActive(authenticator, isActive);
    },
  };
}

/** Where a request began, as those proxies say that are believed, for whatever reason. */
function originOf({ http, auth }: Config): (request: IncomingMessage) => Origin {
  const all = [http.proxies, ...auth.realms.flatMap(({ sources }) => sources.flatMap(({ proxy }) => proxy ?? []))];
  return originBehind({
    addresses: all.flatMap(({ addresses }) => addresses),
    certificates: all.flatMap(({ certificates }) => certificates),
  });
}

/** Of the client that a request comes from, for the log; undefined once its connection is gone. */
export function addressOf(config: Config): (request: IncomingMessage) => string | undefined {
  const origin = originOf(config);
  return request => origin(request).address;
}

async function prepareUsers({
  config,
  firstUser,
  terminal,
  account,
}: AuthenticationOptions): Promise<Users | undefined> {
  const file = config.auth.htpasswd?.path;
  if (file === undefined) return undefined;
  return handingOver(account, dirname(file), () => ensureUsers({ file, terminal, ...firstUser }));
}

async function openPolicy({ config, watch }: AuthenticationOptions, open: boolean): Promise<Access | undefined> {
  const { policy, groups } = config.access;
  if (policy === undefined) return undefined;
  // With all that reads and checks it, which who has no policy never needs.
  const { Access } = await import('../auth/access.js');
  let access: Access | undefined;
  watch(groups === undefined ? [policy] : [policy, groups], 'access policy', async () => {
    if (!access) throw new Error('not read yet');
    await access.reload();
  });
  access = await Access.load({ policy, groups }, open);
  return access;
}
