import type { Command } from 'commander';
import { formatDuration } from '../config/values.js';
import { collectOptionsOf } from '../server/housekeeping.js';
import type { CollectOptions } from '../store/collector.js';
import { collectAlone } from './collecting.js';
import { addVolumeOptions, volumeConfig, withVolume } from './volume.js';

interface Options {
  readonly dryRun?: true;
  readonly deleteUntagged?: true;
  readonly quiet?: true;
}

/** `registry-secure garbage-collect [config.yml]`: the command of `registry:2`, with its options and its output. */
export function garbageCollect(program: Command): void {
  const command = addVolumeOptions(program.command('garbage-collect'))
    .summary('the same as the original has it: gc by its old name')
    .description(
      'Removes layers that no manifest names and the bytes that nothing needs, as the command of registry:2. The registry may serve meanwhile. Retention policies and abandoned uploads are the business of gc.',
    )
    .option('-d, --dry-run', 'remove nothing, and say what would go')
    .option('-m, --delete-untagged', 'remove manifests that no tag leads to, not even by an index or a subject')
    .option('-q, --quiet', 'print nothing but warnings')
    .action(async (file: string | undefined) => {
      const { dryRun = false, deleteUntagged = false, quiet = false } = command.opts<Options>();
      const config = volumeConfig(command, file);
      const { grace } = collectOptionsOf(config);
      const say = (line: string) => quiet || process.stdout.write(`${line}\n`);
      const onEvent: CollectOptions['onEvent'] = event => {
        if (event.event === 'repository') say(event.repository);
        if (event.event === 'marked') say(`${event.repository}: marking ${event.kind} ${event.name}`);
        if (event.event !== 'removed') return;
        if (event.kind === 'layer') say(`${event.repository}: layer link eligible for deletion: ${event.name}`);
        else say(`${event.kind} eligible for deletion: ${event.name}`);
      };
      const report = await withVolume(config, { readOnly: dryRun }, driver =>
        collectAlone(driver, { grace, dryRun, untagged: deleteUntagged, onEvent }),
      );
      for (const problem of report.problems) process.stderr.write(`registry-secure: warning: ${problem}\n`);
      const { blobs, manifests } = report;
      say('');
      say(
        `${blobs.kept} blobs marked, ${blobs.removed} blobs and ${manifests.removed} manifests eligible for deletion`,
      );
      if (blobs.young > 0)
        say(`${blobs.young} of the marked blobs stay only for the grace of ${formatDuration(grace)}`);
    });
}
