import { join, resolve } from 'node:path';
import type { Command } from 'commander';
import { HtpasswdCredentials } from '../auth/credentials.js';
import { addUser, changePassword, removeUser } from '../auth/htpasswd-edit.js';
import { loadHtpasswd } from '../auth/htpasswd-file.js';
import { OperatorError } from '../errors.js';
import type { AccountState } from '../store/accounts.js';
import { accountsBeside, leftBehind, remarkOff } from './accounts.js';
import { Refused, type Remote, remoteOf } from './remote.js';
import { volumeConfig } from './volume.js';

/** One user, as `user list` shows it. What only a file knows is undefined of a registry's. */
interface Entry {
  readonly name: string;
  readonly line?: number;
  readonly cost?: number | undefined;
  readonly problem?: string | undefined;
  /** Known only for the state of the account: the credentials are those of a directory, a certificate, a proxy, or gone. */
  readonly elsewhere?: boolean;
}

/** Where users are kept: a file of this machine, or a running registry. Each change resolves to warnings. */
export interface UserBook {
  /** For people. */
  readonly place: string;
  add(name: string, password: string): Promise<readonly string[]>;
  changePassword(name: string, password: string): Promise<readonly string[]>;
  remove(name: string): Promise<readonly string[]>;
  list(): Promise<{
    readonly entries: readonly Entry[];
    readonly accounts: ReadonlyMap<string, AccountState>;
    readonly warnings: readonly string[];
  }>;
  verify(name: string, password: string): Promise<boolean>;
}

export interface FileOptions {
  readonly dir: string;
  readonly file?: string;
  readonly config?: string;
}

/** What the command's options name. @throws OperatorError */
export async function userBookOf(command: Command): Promise<UserBook> {
  const remote = await remoteOf(command);
  return remote ? ofRegistry(remote) : ofFile(fileOf(command), command);
}

/** The file that the registry reads by the same configuration, in the same folder, or inside a container with the same variables. */
function fileOf(command: Command): string {
  const { dir, file, config } = command.opts<FileOptions>();
  if (file === undefined && config !== undefined) {
    const { htpasswd } = volumeConfig(command).auth;
    if (htpasswd) return htpasswd.path;
    throw new OperatorError(`${config} has no auth.htpasswd`, { fix: 'name the password file with --file' });
  }
  const variable = command.getOptionValueSource('dir') === 'default' && process.env.REGISTRY_AUTH_HTPASSWD_PATH;
  return resolve(file ?? (variable || join(dir, 'auth', 'htpasswd')));
}

function ofFile(file: string, command: Command): UserBook {
  return {
    place: file,
    add: async (name, password) => [...(await addUser(file, name, password)), ...(await remarkOff(name, command))],
    changePassword: (name, password) => changePassword(file, name, password),
    remove: async name => [...(await removeUser(file, name)), ...(await leftBehind(name, command))],
    list: async () => {
      const { entries, warnings } = await loadHtpasswd(file);
      const { accounts, warning } = await accountsBeside(command);
      const here = new Set(entries.map(({ name }) => name));
      const others = [...accounts.keys()].filter(name => !here.has(name)).sort();
      const all = [...entries, ...others.map(name => ({ name, elsewhere: true }))];
      return { entries: all, accounts, warnings: warning === undefined ? warnings : [warning, ...warnings] };
    },
    verify: async (name, password) =>
      (await HtpasswdCredentials.open(file)).verify(name.normalize('NFC'), password, 'this terminal'),
  };
}

function ofRegistry(remote: Remote): UserBook {
  const account = (name: string) => `/accounts/${encodeURIComponent(name)}`;
  const done = async (request: Promise<unknown>) => {
    await request;
    return [];
  };
  return {
    place: remote.host,
    add: (name, password) => done(remote.ask('POST', '/accounts', { body: { name, password } })),
    changePassword: async (name, password) => {
      const login = await remote.login;
      const own = name.normalize('NFC') === login.user.normalize('NFC');
      const body = { password, ...(own && { current: login.password }) };
      return done(remote.ask('PUT', `${account(name)}/password`, { body }));
    },
    remove: name => done(remote.ask('DELETE', account(name))),
    list: async () => {
      const found = await remote.all<Entry & AccountState & { source?: string }>('/accounts', 'accounts');
      const entries = found.map(entry => ({ ...entry, elsewhere: entry.source === undefined }));
      return { entries, accounts: new Map(entries.map(entry => [entry.name, entry])), warnings: [] };
    },
    verify: async (user, password) => {
      try {
        await remote.as({ user, password }).ask('GET', '/whoami');
        return true;
      } catch (error) {
        if (error instanceof Refused) return false;
        throw error;
      }
    },
  };
}
