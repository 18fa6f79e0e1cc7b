import type { Command } from 'commander';
import { type Loaded, loadConfig } from '../config/load.js';
import { thisMachine } from '../pki/machine.js';
import { environmentNames, unique } from '../pki/names.js';
import { wantsVolumeOwner } from '../server/privileges.js';
import { type RunningServer, serve as startServer } from '../server/serve.js';
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
    await untilStopped(() => start(loadFor(command, { file }), options));
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
  });
}

/** Started by npm, a process hears each Ctrl-C twice within this time (ms): from the terminal, and from npm. */
const ECHO = 1_000;

/** Serves until SIGTERM or Ctrl-C, then drains. A second signal, unless it is the echo of the first, ends it at once. */
export async function untilStopped(starting: () => Promise<RunningServer>): Promise<void> {
  // Listened for from the first moment: who sees the port open may already want it closed.
  const stop = new Promise<void>(resolve => {
    let first: number | undefined;
    const heard = () => {
      first ??= performance.now();
      if (performance.now() - first > ECHO) process.exit(1);
      resolve();
    };
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, heard);
  });
  const server = await starting();
  await stop;
  await server.stop();
}
