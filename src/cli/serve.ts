import type { Command } from 'commander';
import { type Loaded, loadConfig } from '../config/load.js';
import { thisMachine } from '../pki/machine.js';
import { environmentNames, unique } from '../pki/names.js';
import { createLogger } from '../server/log.js';
import { becomeVolumeOwner, wantsVolumeOwner } from '../server/privileges.js';
import { type RunningServer, serve as startServer } from '../server/serve.js';
import { type Charge, chargeOfWorker, leave, sayReady } from '../server/worker.js';
import { supervise } from '../server/workers.js';
import { addConfigFlags, flagsFrom } from './config-flags.js';
import { dirOption, nameOptions } from './options.js';
import { passphraseOption, servingPassphrase } from './passphrase.js';

interface Options {
  readonly dir: string;
  readonly ip?: readonly string[];
  readonly dns?: readonly string[];
  readonly passphraseFile?: string;
}

/** `registry-secure serve [config.yml]`: serves what a file, the REGISTRY_* variables and flags say. */
export function serve(program: Command): void {
  const command = program
    .command('serve')
    .summary('serve the registry as configured')
    .description(
      'Serves the registry. The configuration is a file in the format of registry:2, its REGISTRY_* variables, and these flags; without any of them it makes its own certificates and first user, as up does.',
    );
  serveOptions(command).action(async (file: string | undefined) => {
    const options = command.opts<Options>();
    const loaded = loadFor(command, { file });
    await serveUntilStopped(loaded, charge => start(loaded, options, charge));
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
  const options = command.opts<Options>();
  return loadConfig({
    dir: options.dir,
    dirGiven: command.getOptionValueSource('dir') === 'cli',
    ...more,
    env: process.env,
    flags: flagsFrom(options),
  });
}

export async function start(
  { config, warnings }: Loaded,
  options: Options & { firstUser?: { name?: string | undefined; password?: string | undefined } },
  worker: Charge | undefined,
): Promise<RunningServer> {
  return startServer({
    dir: options.dir,
    config,
    warnings,
    names: unique([...(options.ip ?? []), ...(options.dns ?? []), ...environmentNames()]),
    machine: thisMachine(),
    passphrase: await servingPassphrase(options),
    terminal: process.stdout.isTTY,
    asVolumeOwner: wantsVolumeOwner(process.env.REGISTRY_SECURE_USER),
    ...(options.firstUser && { firstUser: options.firstUser }),
    worker,
  });
}

/** Started by npm, a process hears each Ctrl-C twice within this time (ms): from the terminal, and from npm. */
const ECHO = 1_000;

/**
 * Serves until SIGTERM or Ctrl-C, then drains: in this process, or in as many as the configuration says.
 * @param starting what a process does that serves; with its charge, where it is one of several
 * @param password of the first user, for the worker that makes that user
 */
export async function serveUntilStopped(
  { config }: Loaded,
  starting: (charge: Charge | undefined) => Promise<RunningServer>,
  password?: string,
): Promise<void> {
  // Listened for from the first moment: who sees the port open may already want it closed.
  const stop = untilSignal();
  const charge = await chargeOfWorker();
  if (charge || config.workers === 1) {
    try {
      const server = await starting(charge);
      sayReady();
      await stop;
      await server.stop();
    } finally {
      leave();
    }
    return;
  }
  const log = createLogger({ level: config.log.level, formatter: config.log.formatter, fields: config.log.fields });
  const asVolumeOwner = wantsVolumeOwner(process.env.REGISTRY_SECURE_USER);
  process.exitCode = await supervise({
    count: config.workers,
    args: process.argv.slice(2),
    password,
    log,
    release: async () => {
      if (asVolumeOwner) await becomeVolumeOwner(config.storage.filesystem.rootdirectory, { fresh: false });
    },
    stop,
  });
  await log.close();
}

/** A second signal, unless it is the echo of the first, ends the process at once. */
function untilSignal(): Promise<void> {
  return new Promise<void>(resolve => {
    let first: number | undefined;
    const heard = () => {
      first ??= performance.now();
      if (performance.now() - first > ECHO) process.exit(1);
      resolve();
    };
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, heard);
  });
}
