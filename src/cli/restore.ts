import { access, constants, type FileHandle, open, realpath, stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { OperatorError, systemCode } from '../errors.js';
import { validationOf } from '../server/validation.js';
import { roughSize } from '../size.js';
import { FilesystemDriver } from '../storage/filesystem.js';
import { dataFolderOf } from '../storage/open.js';
import { checkSource, type RestoreOptions, restoreFrom } from '../store/backup.js';
import type { FolderReport } from '../store/copy-folder.js';
import { Progress } from './progress.js';
import { addVolumeOptions, volumeConfig, withVolume } from './volume.js';

interface Options {
  readonly force?: true;
  readonly copy?: true;
  readonly dryRun?: true;
  readonly json?: true;
}

/** `registry-secure restore`: puts the images of a backup, or of any volume, into the data folder. */
export function restore(program: Command): void {
  const command = addVolumeOptions(
    program
      .command('restore')
      .summary('put the images of a backup into the data folder')
      .description(
        'Adds the images of a backup, or of any volume of registry:2, to the data folder, also while the registry serves. Nothing is removed, and a tag that points at another image stays as it is, unless --force says otherwise.',
      )
      .argument('<from>', 'a folder, a file that ends in .tar, or - for an archive on standard input'),
  )
    .option('--force', 'let tags point at what they point at in the backup')
    .option('--copy', 'copy bytes also where the folder is on the same file system; else they are shared (hard links)')
    .option('--dry-run', 'change nothing, and say what would be done')
    .option('--json', 'print one JSON document')
    .action(async (from: string, file: string | undefined) => {
      const { force = false, copy = false, dryRun = false, json = false } = command.opts<Options>();
      const config = volumeConfig(command, file);
      const data = dataFolderOf(config.storage);
      const progress = new Progress('restore');
      const problems: string[] = [];
      const options: RestoreOptions = {
        validation: validationOf(config),
        force,
        share: !copy,
        dryRun,
        onProgress: (done, total) => progress.update(done, total),
        onProblem: problem => {
          problems.push(problem);
          progress.clear();
          if (!json) process.stderr.write(`registry-secure: left out: ${problem}\n`);
        },
      };
      // Before this process becomes another user, who may not be allowed to open it.
      const source = from === '-' ? undefined : await openSource(from, data);
      const report = await withVolume(config, { readOnly: dryRun, make: !dryRun }, async target => {
        if (source instanceof FilesystemDriver) {
          await checkReadable(from);
          return restoreFrom(source, target, options);
        }
        if (!source) return restoreFrom({ archive: process.stdin }, target, options);
        const { size } = await source.stat();
        return restoreFrom({ archive: source.createReadStream({ autoClose: false }), size }, target, options);
      }).finally(() => source?.close());
      progress.clear();
      if (problems.length > 0) process.exitCode = 1;
      if (json) process.stdout.write(`${JSON.stringify({ from, dryRun, ...report, problems }, undefined, 2)}\n`);
      else process.stdout.write(`${summary(report, dryRun)}\n`);
    });
}

/** A folder, or an archive. @throws OperatorError where there is none, or it cannot be opened */
async function openSource(from: string, data: string | undefined): Promise<FilesystemDriver | FileHandle> {
  const info = await stat(from).catch(cause => {
    throw new OperatorError(`there is no backup ${from}`, { fix: 'name a folder or a .tar file', cause });
  });
  if (!info.isDirectory())
    return open(from).catch(cause => {
      throw new OperatorError(`${from} cannot be read (${systemCode(cause)})`, { fix: 'check its permissions', cause });
    });
  const realOf = (path: string) => realpath(path).catch(() => resolve(path));
  if (data !== undefined && (await realOf(from)) === (await realOf(data)))
    throw new OperatorError(`${from} is the data folder itself`, { fix: 'name the folder of a backup' });
  const source = new FilesystemDriver({ root: resolve(from), readOnly: true });
  await source.open();
  await checkSource(source, from);
  return source;
}

/** A folder is read by its paths: so whom root has become to write the volume must be allowed to look into it. */
async function checkReadable(folder: string): Promise<void> {
  await access(folder, constants.R_OK | constants.X_OK).catch(cause => {
    throw new OperatorError(`${folder} may not be read by the owner of the data folder, user ${process.getuid?.()}`, {
      fix: `pass it on: registry-secure backup - --root ${folder} | registry-secure restore -`,
      cause,
    });
  });
}

function summary({ blobs, bytes, tags, keptTags }: FolderReport, dryRun: boolean): string {
  const would = dryRun ? 'would be ' : '';
  const hint = keptTags.length > 0 ? ' (--force moves them)' : '';
  return [
    ...keptTags.map(
      ({ repository, tag, here, there }) => `kept ${repository}:${tag} on ${here}; in the backup it is on ${there}`,
    ),
    `${tags.written} tags ${would}restored, ${tags.same} are the same, ${keptTags.length} kept${hint}; ${blobs.copied + blobs.shared} blobs ${would}added (${roughSize(bytes)}), ${blobs.kept} were there`,
  ].join('\n');
}
