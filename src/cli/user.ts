import { type Command, Option } from 'commander';
import { OperatorError } from '../errors.js';
import type { AccountState } from '../store/accounts.js';
import { addAccountCommands } from './accounts.js';
import { dirOption } from './options.js';
import { type PasswordOptions, readPassword } from './password.js';
import { withServer } from './remote.js';
import { type FileOptions, userBookOf } from './user-book.js';

/** `user add|passwd|remove|list|verify`: the users of an htpasswd file, or of a running registry; `disable|enable|expire`: their accounts. */
export function user(program: Command): void {
  const users = program.command('user').description('add, change, remove, disable, list and check users');

  withPassword(withFile(users.command('add <name>')))
    .description('add a user; the first one makes the file')
    .action(async (name: string, options: PasswordOptions, command: Command) => {
      const users = await userBookOf(command);
      const password = await readPassword(options, [`Password for ${shown(name)}: `, 'The same again: ']);
      warn(await users.add(name, password));
      say(`user ${shown(name)} added to ${users.place}`);
    });

  withPassword(withFile(users.command('passwd <name>')))
    .description('give a user another password')
    .action(async (name: string, options: PasswordOptions, command: Command) => {
      const users = await userBookOf(command);
      const password = await readPassword(options, [`New password for ${shown(name)}: `, 'The same again: ']);
      warn(await users.changePassword(name, password));
      say(`password of ${shown(name)} changed in ${users.place}`);
    });

  withFile(users.command('remove <name>'))
    .description('remove a user')
    .action(async (name: string, _options: FileOptions, command: Command) => {
      const users = await userBookOf(command);
      warn(await users.remove(name));
      say(`user ${shown(name)} removed from ${users.place}`);
    });

  addAccountCommands(users);

  withFile(users.command('list'))
    .description(
      'list the users who can log in, and who is disabled or has an end; on standard error what is odd in the file',
    )
    .option('--root <folder>', 'the data folder, where it is kept who is disabled')
    .option('--json', 'every user, as JSON')
    .action(async ({ json }: { json?: boolean }, command: Command) => {
      const { entries, accounts, warnings } = await (await userBookOf(command)).list();
      if (json) {
        const list = entries.map(({ name, line, cost, problem, elsewhere }) => {
          const { disabled, expires } = accounts.get(name) ?? {};
          return { name, line, cost, usable: elsewhere ? undefined : !problem, problem, disabled, expires };
        });
        say(JSON.stringify(list, null, 2));
        return;
      }
      for (const { name, problem } of entries) if (!problem) say(name + remark(accounts.get(name)));
      warn(warnings);
    });

  withPassword(withFile(users.command('verify <name>')))
    .description('check a password as the registry does: exit code 0 if the user can log in with it, 1 if not')
    .action(async (name: string, options: PasswordOptions, command: Command) => {
      const users = await userBookOf(command);
      const password = await readPassword(options, [`Password of ${shown(name)}: `]);
      if (!(await users.verify(name, password)))
        throw new OperatorError(`${shown(name)} cannot log in with this password`);
      say(`${shown(name)} can log in with this password`);
    });
}

function withFile(command: Command): Command {
  return withServer(command)
    .addOption(dirOption())
    .addOption(
      new Option(
        '--file <htpasswd>',
        'the htpasswd file (default: that of --config, or auth/htpasswd in --dir; without --dir, REGISTRY_AUTH_HTPASSWD_PATH where it is set)',
      ).conflicts('server'),
    )
    .option('--config <file>', 'the configuration file that serve is given');
}

function withPassword(command: Command): Command {
  return command
    .addOption(new Option('--password-stdin', 'read the password from standard input').conflicts('passwordFile'))
    .option('--password-file <file>', 'read the password from a file');
}

function remark({ disabled, expires }: AccountState = {}): string {
  if (disabled !== undefined) return `  disabled since ${disabled}`;
  if (expires === undefined) return '';
  return `  ${Date.parse(expires) > Date.now() ? 'until' : 'expired'} ${expires}`;
}

/** A name from the command line, safe to show on a terminal. */
function shown(name: string): string {
  return JSON.stringify(name);
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

function warn(warnings: readonly string[]): void {
  for (const warning of warnings) process.stderr.write(`registry-secure: warning: ${warning}\n`);
}
