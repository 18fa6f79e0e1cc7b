import { mkdir } from 'node:fs/promises';
import type { Command } from 'commander';
import { loadConfig } from '../config/load.js';
import type { Config } from '../config/schema.js';
import { OperatorError } from '../errors.js';
import { becomeVolumeOwner, wantsVolumeOwner } from '../server/privileges.js';
import { StorageError } from '../storage/driver.js';
import { FilesystemDriver } from '../storage/filesystem.js';
import { dirOption } from './options.js';

/** The arguments of every command that works on the data that `serve` serves. */
export function addVolumeOptions(command: Command): Command {
  return addFolders(command.argument('[config]', 'the configuration file that serve is given'));
}

/** The same for a command whose arguments are others: its file is an option. */
export function addVolumeOptionsBeside(command: Command): Command {
  return addFolders(command).option('--config <file>', 'the configuration file that serve is given');
}

function addFolders(command: Command): Command {
  return command.addOption(dirOption()).option('--root <folder>', 'the data folder itself');
}

/** The configuration for such a command. */
export function volumeConfig(
  command: Command,
  file: string | undefined = command.opts<{ config?: string }>().config,
): Config {
  const { dir, root } = command.opts<{ dir: string; root?: string }>();
  const dirGiven = command.getOptionValueSource('dir') === 'cli';
  const flags = root === undefined ? [] : [{ flag: '--root', key: 'storage.filesystem.rootdirectory', value: root }];
  return loadConfig({ dir, dirGiven, file, env: process.env, flags }).config;
}

/** Opens the data, hands it to the task, and closes it. @throws OperatorError where there is none, unless told to make it */
export async function withVolume<T>(
  config: Config,
  options: { readOnly: boolean; make?: boolean },
  task: (driver: FilesystemDriver) => Promise<T>,
): Promise<T> {
  const root = config.storage.filesystem.rootdirectory;
  // What is not there must not be made, as a rule: it would be the wrong place.
  if (options.make) await mkdir(root, { recursive: true });
  else await new FilesystemDriver({ root, readOnly: true }).open();
  if (!options.readOnly) await becomeVolumeOwner(root, { fresh: wantsVolumeOwner(process.env.REGISTRY_SECURE_USER) });
  const driver = new FilesystemDriver({ root, readOnly: options.readOnly });
  await driver.open();
  try {
    return await task(driver);
  } catch (error) {
    if (!(error instanceof StorageError)) throw error;
    const fix = error.kind === 'full' ? `free some space: df -h ${root}` : 'check the disk and the permissions';
    throw new OperatorError(error.message, { fix, cause: error });
  } finally {
    await driver.close();
  }
}
