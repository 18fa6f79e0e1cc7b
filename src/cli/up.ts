import type { Command } from 'commander';
import type { Loaded } from '../config/load.js';
import { FIRST_USER } from '../server/users.js';
import { addConfigFlags } from './config-flags.js';
import { dirOption, nameOptions } from './options.js';
import type { ServingOptions } from './order.js';
import { passphraseOption } from './passphrase.js';
import { readPassword } from './password.js';
import { loadFor, serveUntilStopped } from './serve.js';

interface Options extends ServingOptions {
  readonly user?: string;
  readonly passwordStdin?: boolean;
}

/** `registry-secure up`: from nothing to a registry that clients can trust and log in to. */
export function up(program: Command): void {
  const command = program
    .command('up')
    .summary('make what is missing, serve, and say how clients get in')
    .description(
      'Makes the certificates, the first user and the data folder where they are missing, reuses what is there, serves, and prints how clients trust the registry and log in.',
    );
  upOptions(command).action(async () => {
    const { user, passwordStdin, ...options } = command.opts<Options>();
    const password = passwordStdin ? await readPassword({ passwordStdin }, []) : undefined;
    const { config, warnings } = loadForUp(command);
    await serveUntilStopped({ ...options, config, warnings, up: { user, password } });
  });
}

/** What may follow `up` on the command line. */
export function upOptions(command: Command): Command {
  command
    .addOption(dirOption())
    .option('--user <name>', `the first user (default: ${FIRST_USER})`)
    .option('--password-stdin', "read the first user's password from standard input, instead of making one up");
  for (const option of nameOptions()) command.addOption(option);
  return addConfigFlags(command.addOption(passphraseOption()));
}

/** A file that some package has put into /etc is not what somebody means who asks for a registry here. */
export function loadForUp(command: Command): Loaded {
  return loadFor(command, { standardFiles: false });
}
