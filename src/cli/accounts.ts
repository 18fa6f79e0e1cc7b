import { existsSync } from 'node:fs';
import { type Command, Option } from 'commander';
import { newName } from '../auth/htpasswd-edit.js';
import type { Config } from '../config/schema.js';
import { OperatorError } from '../errors.js';
import type { StorageDriver } from '../storage/driver.js';
import { dataFolderOf } from '../storage/open.js';
import {
  type AccountChange,
  type AccountState,
  changeAccount,
  changed,
  isActive,
  listAccounts,
} from '../store/accounts.js';
import { listMachineTokens } from '../store/machine-tokens.js';
import { unknownUser } from './known-user.js';
import { usage } from './options.js';
import { type Remote, remoteOf, withServer } from './remote.js';
import { pointInTime, timeSpan } from './times.js';
import { addVolumeOptionsBeside, volumeConfig, withVolume } from './volume.js';

/** `user disable|enable|expire`: whether an account counts, beside its credentials and wherever those are. */
export function addAccountCommands(users: Command): void {
  onAccount(users.command('disable <name>'))
    .summary('let a user in no more')
    .description(
      'Lets a user in no more, whether by password, token or certificate, until user enable. Every process obeys within a second. Credentials, rights and tokens stay as they are.',
    )
    .action((name: string, _options: unknown, command: Command) => change(name, command, { disabled: true }));

  onAccount(users.command('enable <name>'))
    .summary('let a disabled user in again')
    .description('Lets a user in again who was disabled; an end that was set for the account stays.')
    .action((name: string, _options: unknown, command: Command) => change(name, command, { disabled: false }));

  onAccount(users.command('expire <name>'))
    .summary('say when the account of a user ends')
    .description('Lets a user in until a time, and no more from then on, as if the account were disabled.')
    .addOption(
      new Option('--at <time>', 'a day, or a time as in RFC 3339').argParser(pointInTime).conflicts(['in', 'never']),
    )
    .addOption(new Option('--in <time>', 'from now on, such as 90d or 12h').argParser(timeSpan).conflicts('never'))
    .option('--never', 'take the end away')
    .action((name: string, { at, in: span, never }: { at?: Date; in?: number; never?: true }, command: Command) => {
      const end = span === undefined ? at : new Date(Date.now() + span);
      if (!end && !never) throw usage('say when the account ends', 'by --at 2027-01-31, --in 90d or --never');
      return change(name, command, { expires: end?.toISOString() ?? null });
    });
}

function onAccount(command: Command): Command {
  return withServer(addVolumeOptionsBeside(command)).option('--json', 'print the account as JSON');
}

async function change(name: string, command: Command, to: AccountChange): Promise<void> {
  const user = newName(name);
  const remote = await remoteOf(command);
  const state = remote ? await changeThere(remote, user, to) : await changeHere(command, user, to);
  const active = isActive(state, Date.now());
  if (command.opts<{ json?: true }>().json) {
    process.stdout.write(`${JSON.stringify({ user, active, ...state }, undefined, 2)}\n`);
    return;
  }
  const since = state.disabled === undefined ? '' : `, disabled since ${state.disabled}`;
  const end = state.expires === undefined ? '' : `, ${active ? 'until' : 'with its end at'} ${state.expires}`;
  process.stdout.write(
    `user ${JSON.stringify(user)} is let in ${active ? '' : 'no more'}${since}${end}\n`.replace(/ (?=[,\n])/g, ''),
  );
}

async function changeHere(command: Command, user: string, to: AccountChange): Promise<AccountState> {
  const config = volumeConfig(command);
  await remarkUnknown(user, config);
  return withVolume(config, { readOnly: false }, driver => changeAccount(driver, user, changed(to)));
}

async function changeThere(remote: Remote, user: string, body: AccountChange): Promise<AccountState> {
  const { value } = await remote.ask<AccountState>('PATCH', `/accounts/${encodeURIComponent(user)}`, { body });
  const { disabled, expires } = value;
  return { ...(disabled !== undefined && { disabled }), ...(expires !== undefined && { expires }) };
}

/** Not an error: the user may be one of a directory, or may be about to be added. */
async function remarkUnknown(user: string, config: Config): Promise<void> {
  const missing = await unknownUser(user, config);
  if (missing && !missing.elsewhere)
    process.stderr.write(`registry-secure: warning: no user ${JSON.stringify(user)} can log in by ${missing.places}\n`);
}

/** What is known of accounts in the data that belongs to a file of users; of none where there is no data yet. */
export async function accountsBeside(
  command: Command,
): Promise<{ accounts: ReadonlyMap<string, AccountState>; warning?: string }> {
  try {
    return { accounts: (await beside(command, listAccounts)) ?? new Map() };
  } catch (error) {
    if (!(error instanceof OperatorError)) throw error;
    return { accounts: new Map(), warning: `who is disabled is not known: ${error.message}` };
  }
}

/** What to know of a user who was added: the state of an account outlives its password. */
export async function remarkOff(user: string, command: Command): Promise<string[]> {
  const { accounts } = await accountsBeside(command);
  const name = user.normalize('NFC');
  const state = accounts.get(name) ?? {};
  if (state.disabled !== undefined)
    return [`this user is disabled since ${state.disabled}, and let in by: registry-secure user enable ${name}`];
  if (isActive(state, Date.now())) return [];
  return [
    `the account of this user ended at ${state.expires}, and goes on by: registry-secure user expire ${name} --never`,
  ];
}

/** What to know of a user who was removed: who is called so next would get what the old one has left. */
export async function leftBehind(user: string, command: Command): Promise<string[]> {
  const found = await beside(command, listMachineTokens).catch(error => {
    if (error instanceof OperatorError) return undefined;
    throw error;
  });
  const count = found?.tokens.filter(token => token.user === user.normalize('NFC')).length ?? 0;
  const revoke = `registry-secure token revoke --user ${user}`;
  return count === 0
    ? []
    : [`tokens of this user, which count again if there is one by that name: ${count}; ${revoke}`];
}

/** Undefined where there is no data yet. */
async function beside<T>(command: Command, task: (driver: StorageDriver) => Promise<T>): Promise<T | undefined> {
  const config = volumeConfig(command);
  const folder = dataFolderOf(config.storage);
  if (folder !== undefined && !existsSync(folder)) return undefined;
  return withVolume(config, { readOnly: true }, task);
}
