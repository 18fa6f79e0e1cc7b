import { existsSync } from 'node:fs';
import { realpath } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';
import { type Command, Option } from 'commander';
import { OperatorError } from '../errors.js';
import { roughSize } from '../size.js';
import { type StorageDriver, StorageError } from '../storage/driver.js';
import { checkSource } from '../store/backup.js';
import { readMaintenance } from '../store/maintenance.js';
import { type MigrateReport, migrate } from '../store/migrate.js';
import { makeVolume, type Named, openDriver, parseNamed, settingOf } from './copy-place.js';
import { usage, wholeNumber } from './options.js';
import { Progress } from './progress.js';

interface Options {
  readonly copy?: true;
  readonly jobs: number;
  readonly dryRun?: true;
  readonly json?: true;
}

/** How long after maintenance has begun every process obeys, with some to spare (ms). */
const OBEYED_AFTER = 3_000;
/** How often what has changed meanwhile is looked for. */
const PASSES = 3;

/** `registry-secure storage`: about where the data of a registry are. */
export function storage(program: Command): void {
  const group = program.command('storage').description('move the data of a registry to another place');
  const command = group
    .command('migrate')
    .summary('copy all data of a registry to another folder or bucket, while it serves')
    .description(
      'Makes a folder or bucket the same as another one, while that is served: all repositories, and the tokens, accounts and keys that are kept there. It copies what is missing, checks every blob against its digest, and looks again for what has changed meanwhile. Given again it goes on. Where the registry is in maintenance, what it has copied is all there is, and it says so.',
    )
    .argument('<from>', 'a folder, or a bucket, s3://BUCKET/ROOT?region=REGION (also azure://, gs:// and swift://)')
    .argument('<to>', 'the same; empty, or what this command has made before')
    .addOption(
      new Option('--jobs <number>', 'how many blobs are copied at a time').default(4).argParser(wholeNumber(1, 64)),
    )
    .option('--copy', 'copy bytes also where both are on the same file system; else they are shared (hard links)')
    .option('--dry-run', 'copy nothing, and say what would be copied')
    .option('--json', 'print one JSON document')
    .action(async (from: string, to: string) => run(command.opts<Options>(), from, to));
}

async function run(options: Options, fromText: string, toText: string): Promise<void> {
  const { dryRun = false, json = false } = options;
  const [from, to] = [fromText, toText].map(storeNamed) as [Named, Named];
  if (from.kind === to.kind && from.place === to.place) throw usage('both are the same place');
  const source = await openDriver(from, { readOnly: true });
  try {
    await checkSource(source, fromText);
    if (await areOne(from, to)) throw usage('both are the same place');
    const isNew = to.kind === 'folder' && !existsSync(to.place);
    if (to.kind === 'folder' && !dryRun) await makeVolume(to.place);
    const target = dryRun && isNew ? undefined : await openDriver(to, { readOnly: dryRun });
    const problems: string[] = [];
    const progress = new Progress('migrate');
    const told = {
      jobs: options.jobs,
      dryRun,
      share: !options.copy,
      onProgress: (done: number, total: number) => progress.update(done, total),
      onProblem: (problem: string) => void problems.push(problem),
    };
    try {
      const { report, isAll, passes } = await passesOf(source, target, told, problems);
      progress.clear();
      if (problems.length > 0) process.exitCode = 1;
      const seconds = Number(progress.seconds.toFixed(3));
      if (json)
        process.stdout.write(
          `${JSON.stringify({ from: from.place, to: to.place, dryRun, complete: isAll && problems.length === 0, passes, ...report, seconds, problems }, undefined, 2)}\n`,
        );
      else {
        for (const problem of problems) process.stderr.write(`registry-secure: left out: ${problem}\n`);
        process.stdout.write(`${summary(report, dryRun, seconds)}\n`);
        if (!dryRun) process.stdout.write(problems.length > 0 ? mend(fromText) : next(isAll, to));
      }
    } finally {
      await target?.close();
    }
  } catch (error) {
    if (!(error instanceof StorageError)) throw error;
    throw new OperatorError(error.message, {
      fix: error.kind === 'full' ? 'free some space, and run this again' : 'check both places, and run this again',
      cause: error,
    });
  } finally {
    await source.close();
  }
}

function storeNamed(text: string): Named {
  const named = parseNamed(text);
  if (named.kind !== 'folder' && named.kind !== 'bucket')
    throw usage(
      `${JSON.stringify(text)} is not where the data of a registry are`,
      'name a folder, ./FOLDER, or a bucket',
    );
  if (named.repository !== undefined)
    throw usage(`${JSON.stringify(text)} names an image, and all is moved`, 'for single images there is copy');
  return named;
}

/** By whatever links they were named. */
async function areOne(...ends: readonly Named[]): Promise<boolean> {
  if (ends.some(({ kind, place }) => kind !== 'folder' || !existsSync(place))) return false;
  const [one, other] = await Promise.all(ends.map(({ place }) => realpath(place)));
  return one === other;
}

/** Until little changes any more, or once where nothing can. */
async function passesOf(
  source: StorageDriver,
  target: StorageDriver | undefined,
  options: Parameters<typeof migrate>[2],
  problems: string[],
): Promise<{ report: MigrateReport; isAll: boolean; passes: number }> {
  let total: MigrateReport | undefined;
  for (let passes = 1; ; passes++) {
    const before = await readMaintenance(source);
    const age = before ? Date.now() - Date.parse(before.since) : 0;
    // Who serves it may not have heard of it yet.
    if (before && age >= 0 && age < OBEYED_AFTER) await pause(OBEYED_AFTER - age);
    problems.length = 0;
    const report = await migrate(source, target, options);
    total = total ? added(total, report) : report;
    const isAll = before !== undefined && (await readMaintenance(source))?.since === before.since;
    const { blobs, tags } = report;
    const changes = blobs.copied + blobs.shared + blobs.removed + tags.written + tags.removed;
    if (isAll || options.dryRun || changes === 0 || passes === PASSES) return { report: total, isAll, passes };
  }
}

/** What several passes have done; what the last one has found. */
function added(before: MigrateReport, last: MigrateReport): MigrateReport {
  const { blobs, tags, state } = last;
  return {
    bytes: before.bytes + last.bytes,
    blobs: {
      ...blobs,
      copied: before.blobs.copied + blobs.copied,
      shared: before.blobs.shared + blobs.shared,
      removed: before.blobs.removed + blobs.removed,
    },
    tags: {
      ...tags,
      written: before.tags.written + tags.written,
      removed: before.tags.removed + tags.removed,
    },
    state: {
      ...state,
      written: before.state.written + state.written,
      removed: before.state.removed + state.removed,
    },
  };
}

function summary({ blobs, bytes, tags, state }: MigrateReport, dryRun: boolean, seconds: number): string {
  const would = dryRun ? 'would be ' : '';
  return `${blobs.copied + blobs.shared} blobs ${would}copied (${roughSize(bytes)}${blobs.shared > 0 ? ', shared' : ''}), ${tags.written} tags ${would}written, ${state.written} other objects ${would}written; ${tags.removed} tags, ${blobs.removed} blobs and ${state.removed} other objects ${would}removed; in ${seconds.toFixed(1)} s`;
}

function mend(from: string): string {
  return `What was left out is broken in ${from}: see registry-secure verify, mend or delete it, and run this again.\n`;
}

function next(isAll: boolean, to: Named): string {
  if (!isAll)
    return [
      'What is pushed from now on is not copied. For the last time, which takes as long as what has changed:',
      '  1. registry-secure maintenance on, with the options that serve is given: pulls go on, pushes are refused',
      '  2. this command again',
      'Where nothing serves the data, nothing is missing, and you can switch over now.',
      '',
    ].join('\n');
  return [
    'All of it is there. To switch over:',
    '  1. stop the registry; if it was running until now, this command once more: a token revoked meanwhile would come back',
    `  2. set ${settingOf(to)}; certificates, users and the rest of the configuration stay as they are`,
    '  3. start the registry: it takes pushes again, and this command does not touch the place any more',
    '  4. registry-secure verify, to have every byte read there before the old data are removed',
    '',
  ].join('\n');
}
