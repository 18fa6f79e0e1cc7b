import type { IncomingMessage } from 'node:http';
import { dirname } from 'node:path';
import { Access } from '../auth/access.js';
import { Authenticator } from '../auth/authenticate.js';
import { HtpasswdCredentials } from '../auth/credentials.js';
import { LoginLimiter } from '../auth/login-limiter.js';
import { type Authorise, usersMay } from '../auth/policy.js';
import { Tokens } from '../auth/tokens.js';
import type { Config } from '../config/schema.js';
import type { StorageDriver } from '../storage/driver.js';
import { TokenKeys } from '../store/token-keys.js';
import type { Log } from './log.js';
import { type Account, handingOver } from './privileges.js';
import { ensureUsers, type Users } from './users.js';
import { hearOthers, tellOthers } from './worker.js';

export interface AuthenticationOptions {
  readonly config: Config;
  readonly firstUser: { readonly name?: string | undefined; readonly password?: string | undefined } | undefined;
  readonly terminal: boolean;
  /** Who is to own what is made; undefined: whoever runs this. */
  readonly account: Account | undefined;
  /** Calls `reload` from then on whenever one of the files has changed. */
  readonly watch: (files: readonly string[], what: string, reload: () => Promise<void>) => void;
  readonly log: Log;
}

/** Who is asking, and what they may do, as the configuration has it. */
export interface Authentication {
  /** What became of the password file; undefined where there is none. */
  readonly users: Users | undefined;
  /** What is read again while the registry runs. */
  readonly files: readonly string[];
  readonly authorise: Authorise;
  /** @param driver opened @param tokenRealm as for `Authenticator` */
  authenticator(driver: StorageDriver, tokenRealm: (request: IncomingMessage) => string | undefined): Authenticator;
}

/** Makes the first user where there is none, and reads users and rights. @throws OperatorError */
export async function prepareAuthentication(options: AuthenticationOptions): Promise<Authentication> {
  const { config, log } = options;
  const users = await prepareUsers(options);
  const source = users && (await openHtpasswd(users.file, options));
  const access = await openPolicy(options, !source);
  if (!source && !access) log.warn('the registry is open (auth.none): everybody who reaches it may pull and push');
  return {
    users,
    files: [users?.file, config.access.policy, config.access.groups].filter(file => file !== undefined),
    authorise: access ? access.may : usersMay({ open: !source }),
    authenticator: (driver, tokenRealm) =>
      new Authenticator(
        source
          ? {
              realm: config.auth.htpasswd!.realm,
              source,
              welcomesAnonymous: () => access?.welcomesAnonymous === true,
              tokens: new Tokens(new TokenKeys(driver), user => source.versionOf(user)),
              tokenRealm,
              limiter: new LoginLimiter({ tell: tellOthers, hear: hearOthers }),
            }
          : 'open',
      ),
  };
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

async function openHtpasswd(file: string, { watch, log }: AuthenticationOptions): Promise<HtpasswdCredentials> {
  let source: HtpasswdCredentials | undefined;
  watch([file], 'htpasswd file', async () => {
    if (!source) throw new Error('not read yet');
    await source.reload();
    for (const warning of source.warnings) log.warn(warning);
  });
  source = await HtpasswdCredentials.open(file);
  for (const warning of source.warnings) log.warn(warning);
  return source;
}

async function openPolicy({ config, watch }: AuthenticationOptions, open: boolean): Promise<Access | undefined> {
  const { policy, groups } = config.access;
  if (policy === undefined) return undefined;
  let access: Access | undefined;
  watch(groups === undefined ? [policy] : [policy, groups], 'access policy', async () => {
    if (!access) throw new Error('not read yet');
    await access.reload();
  });
  access = await Access.load({ policy, groups }, open);
  return access;
}
