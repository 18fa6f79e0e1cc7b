import { mkdir } from 'node:fs/promises';
import type { Command } from 'commander';
import { loadConfig } from '../config/load.js';
import type { Config } from '../config/schema.js';
import { OperatorError } from '../errors.js';
import { becomeVolumeOwner, wantsVolumeOwner } from '../server/privileges.js';
import { type StorageDriver, StorageError } from '../storage/driver.js';
import { dataFolderOf, storageOf } from '../storage/open.js';
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
  task: (driver: StorageDriver) => Promise<T>,
): Promise<T> {
  const { storage } = config;
  const folder = dataFolderOf(storage);
  if (folder !== undefined) await enter(folder, options, () => storageOf(storage, { readOnly: true }));
  const onNotice = (message: string) => process.stderr.write(`registry-secure: warning: ${message}\n`);
  const driver = await storageOf(storage, { readOnly: options.readOnly, onNotice });
  await driver.open();
  try {
    return await task(driver);
  } catch (error) {
    if (!(error instanceof StorageError)) throw error;
    throw new OperatorError(error.message, { fix: wayOut(error, folder), cause: error });
  } finally {
    await driver.close();
  }
}

/** Makes the folder where that is asked for, and becomes its owner. */
async function enter(
  folder: string,
  { readOnly, make }: { readOnly: boolean; make?: boolean },
  look: () => Promise<StorageDriver>,
): Promise<void> {
  // What is not there must not be made, as a rule: it would be the wrong place.
  if (make) await mkdir(folder, { recursive: true });
  else await (await look()).open();
  if (!readOnly) await becomeVolumeOwner(folder, { fresh: wantsVolumeOwner(process.env.REGISTRY_SECURE_USER) });
}

function wayOut({ kind }: StorageError, folder: string | undefined): string {
  if (folder === undefined) return kind === 'full' ? 'raise the quota, or free some space' : 'check the object store';
  return kind === 'full' ? `free some space: df -h ${folder}` : 'check the disk and the permissions';
}
