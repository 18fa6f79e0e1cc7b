import { once } from 'node:events';
import { createWriteStream, rmSync } from 'node:fs';
import { mkdir, open, realpath, rename } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import type { Writable } from 'node:stream';
import type { Command } from 'commander';
import { OperatorError } from '../errors.js';
import { syncFolder } from '../folder.js';
import { validationOf } from '../server/validation.js';
import { roughSize } from '../size.js';
import type { StorageDriver } from '../storage/driver.js';
import { FilesystemDriver } from '../storage/filesystem.js';
import { dataFolderOf } from '../storage/open.js';
import { archiveTo, type BackupOptions, backupTo } from '../store/backup.js';
import { Progress } from './progress.js';
import { beforeSignal } from './signals.js';
import { addVolumeOptions, volumeConfig, withVolume } from './volume.js';

interface Options {
  readonly copy?: true;
  readonly json?: true;
}

/** `registry-secure backup`: copies all that tags lead to, while the registry serves. */
export function backup(program: Command): void {
  const command = addVolumeOptions(
    program
      .command('backup')
      .summary('copy all images to a folder or a tar archive')
      .description(
        'Copies all that tags and indexes lead to, with their signatures and the like, while the registry serves. The copy is a volume that can be served. A folder is brought up to date when it is given again, and afterwards has what the registry has, and nothing else.',
      )
      .argument('<to>', 'a folder, a file that ends in .tar, or - for an archive on standard output'),
  )
    .option('--copy', 'copy bytes also where the folder is on the same file system; else they are shared (hard links)')
    .option('--json', 'print one JSON document')
    .action(async (to: string, file: string | undefined) => {
      const { copy = false, json = false } = command.opts<Options>();
      if (/\.(?:tar\.\w+|tgz|tzst|txz)$/.test(to))
        throw new OperatorError(`archives are not compressed here: ${to}`, {
          fix: 'name a file that ends in .tar, or pipe: registry-secure backup - | zstd > FILE.tar.zst',
        });
      const config = volumeConfig(command, file);
      const progress = new Progress('backup');
      const problems: string[] = [];
      const options: BackupOptions = {
        validation: validationOf(config),
        onProgress: (done, total) => progress.update(done, total),
        onProblem: problem => {
          problems.push(problem);
          progress.clear();
          if (!json) process.stderr.write(`registry-secure: left out: ${problem}\n`);
        },
      };
      const { report, text } = await withVolume(config, { readOnly: true }, source =>
        to === '-' || to.endsWith('.tar')
          ? toArchive(source, to, options)
          : toFolder(source, resolve(to), { ...options, share: !copy }, dataFolderOf(config.storage)),
      );
      progress.clear();
      if (problems.length > 0) process.exitCode = 1;
      // Standard output is the archive's own.
      const output = to === '-' ? process.stderr : process.stdout;
      const seconds = Number(progress.seconds.toFixed(3));
      if (json) output.write(`${JSON.stringify({ to, ...report, seconds, problems }, undefined, 2)}\n`);
      else output.write(`${to}: ${text} in ${seconds.toFixed(1)} s\n`);
      if (!json && problems.length > 0)
        process.stderr.write(
          `registry-secure: ${problems.length} images were left out; see what is lost by: registry-secure verify\n`,
        );
    });
}

async function toFolder(
  source: StorageDriver,
  folder: string,
  options: BackupOptions & { share: boolean },
  data: string | undefined,
): Promise<{ report: object; text: string }> {
  // Images may be private: nobody else is to look into a new folder.
  await mkdir(folder, { recursive: true, mode: 0o700 });
  if (data !== undefined && (await realpath(folder)) === (await realpath(data)))
    throw new OperatorError(`${folder} is the data folder itself`, { fix: 'name another folder' });
  const target = new FilesystemDriver({ root: folder });
  await target.open();
  try {
    const { keptTags: _, ...report } = await backupTo(source, target, options);
    const { blobs, bytes, tags } = report;
    const how = blobs.shared > 0 ? ', shared with the data folder' : '';
    return {
      report,
      text: `${tags.written + tags.same} tags (${tags.written} new, ${tags.removed} removed), ${blobs.copied + blobs.shared} blobs added (${roughSize(bytes)}${how}), ${blobs.kept} kept, ${blobs.removed} removed`,
    };
  } finally {
    await target.close();
  }
}

async function toArchive(
  source: StorageDriver,
  to: string,
  options: BackupOptions,
): Promise<{ report: object; text: string }> {
  const write = (stream: Writable) =>
    archiveTo(
      source,
      chunk =>
        new Promise((done, fail) => {
          stream.write(chunk, error => (error ? fail(error) : done()));
        }),
      options,
    );
  const report = await (to === '-' ? write(process.stdout) : intoFile(resolve(to), write));
  return { report, text: `${report.tags} tags, ${report.blobs} blobs (${roughSize(report.bytes)})` };
}

/** The file appears when it is whole and on the disk. A signal leaves nothing of it. */
async function intoFile<T>(path: string, write: (stream: Writable) => Promise<T>): Promise<T> {
  const part = `${path}.part`;
  const stream = createWriteStream(part, { mode: 0o600, highWaterMark: 1024 * 1024 });
  const removePart = () => rmSync(part, { force: true });
  const unhook = beforeSignal(removePart);
  try {
    await once(stream, 'open');
    const result = await write(stream);
    await new Promise<void>((done, fail) => stream.once('error', fail).end(done));
    const handle = await open(part);
    await handle.sync().finally(() => handle.close());
    await rename(part, path);
    await syncFolder(dirname(path));
    return result;
  } catch (error) {
    stream.destroy();
    removePart();
    const { code, syscall } = error as NodeJS.ErrnoException;
    if (syscall === undefined) throw error;
    throw new OperatorError(`${path} cannot be written (${code})`, {
      fix: `check the folder and the space there: df -h ${dirname(path)}`,
      cause: error,
    });
  } finally {
    unhook();
  }
}
