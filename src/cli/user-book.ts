import { join, resolve } from 'node:path';
import type { Command } from 'commander';
import { HtpasswdCredentials } from '../auth/credentials.js';
import { addUser, changePassword, removeUser } from '../auth/htpasswd-edit.js';
import { loadHtpasswd } from '../auth/htpasswd-file.js';
import type { AccountState } from '../store/accounts.js';
import { accountsBeside, leftBehind } from './accounts.js';
import { Refused, type Remote, remoteOf } from './remote.js';

/** One user, as `user list` shows it. What only a file knows is undefined of a registry's. */
interface Entry {
  readonly name: string;
  readonly line?: number;
  readonly cost?: number | undefined;
  readonly problem?: string | undefined;
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
}

/** What the command's options name. @throws OperatorError */
export async function userBookOf(command: Command): Promise<UserBook> {
  const remote = await remoteOf(command);
  return remote ? ofRegistry(remote) : ofFile(fileOf(command), command);
}

/** The file that the registry reads in the same folder, or inside a container with the same variables. */
function fileOf(command: Command): string {
  const { dir, file } = command.opts<FileOptions>();
  const variable = command.getOptionValueSource('dir') === 'default' && process.env.REGISTRY_AUTH_HTPASSWD_PATH;
  return resolve(file ?? (variable || join(dir, 'auth', 'htpasswd')));
}

function ofFile(file: string, command: Command): UserBook {
  return {
    place: file,
    add: (name, password) => addUser(file, name, password),
    changePassword: (name, password) => changePassword(file, name, password),
    remove: async name => [...(await removeUser(file, name)), ...(await leftBehind(name, command))],
    list: async () => {
      const { entries, warnings } = await loadHtpasswd(file);
      const { accounts, warning } = await accountsBeside(command);
      return { entries, accounts, warnings: warning === undefined ? warnings : [warning, ...warnings] };
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
      const entries = await remote.all<Entry & AccountState>('/accounts', 'accounts');
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
