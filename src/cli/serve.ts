import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import { type Loaded, loadConfig } from '../config/load.js';
import { createLogger } from '../server/log.js';
import { becomeVolumeOwner, setRootAside, wantsVolumeOwner } from '../server/privileges.js';
import { supervise } from '../server/workers.js';
import { dataFolderOf } from '../storage/open.js';
import { addConfigFlags, flagsFrom } from './config-flags.js';
import { dirOption, nameOptions } from './options.js';
import { carryOut, type Order, type ServingOptions } from './order.js';
import { passphraseOption } from './passphrase.js';
import { untilSignal } from './signals.js';

/** `registry-secure serve [config.yml]`: serves what a file, the REGISTRY_* variables and flags say. */
export function serve(program: Command): void {
  const command = program
    .command('serve')
    .summary('serve the registry as configured')
    .description(
      'Serves the registry. The configuration is a file in the format of registry:2, its REGISTRY_* variables, and these flags; without any of them it makes its own certificates and first user, as up does.',
    );
  serveOptions(command).action(async (file: string | undefined) => {
    const { config, warnings } = loadFor(command, { file });
    await serveUntilStopped({ ...command.opts<ServingOptions>(), config, warnings });
  });
}

/** What may follow `serve` on the command line. */
export function serveOptions(command: Command): Command {
  command.argument('[config]', 'the configuration file').addOption(dirOption());
  for (const option of nameOptions()) command.addOption(option);
  return addConfigFlags(command.addOption(passphraseOption()));
}

/** The configuration of a command that has the configuration's flags. */
export function loadFor(command: Command, more: { file?: string | undefined; standardFiles?: false }): Loaded {
  const options = command.opts<ServingOptions>();
  return loadConfig({
    dir: options.dir,
    dirGiven: command.getOptionValueSource('dir') === 'cli',
    ...more,
    env: process.env,
    flags: flagsFrom(options),
  });
}

/** Where a process begins that serves together with others. */
const WORKER = fileURLToPath(new URL('./worker.js', import.meta.url));

/** Serves until SIGTERM or Ctrl-C, then drains: in this process, or in as many as the configuration says. */
export async function serveUntilStopped(order: Order): Promise<void> {
  const stop = untilSignal();
  const { config, up } = order;
  if (config.workers === 1) return carryOut(order, undefined, stop);
  const log = createLogger({ level: config.log.level, formatter: config.log.formatter, fields: config.log.fields });
  const asVolumeOwner = wantsVolumeOwner(process.env.REGISTRY_SECURE_USER);
  process.exitCode = await supervise({
    program: WORKER,
    // For who lists the processes.
    args: process.argv.slice(2),
    count: config.workers,
    order,
    orderOfOthers: { ...order, ...(up && { up: { user: up.user } }) } satisfies Order,
    log,
    release: async readAsRoot => {
      const folder = dataFolderOf(config.storage);
      if (asVolumeOwner && readAsRoot) return setRootAside(folder);
      if (asVolumeOwner) await becomeVolumeOwner(folder, { fresh: false });
      return task => task();
    },
    stop,
  });
  await log.close();
}
