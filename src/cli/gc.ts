import { type Command, InvalidArgumentError } from 'commander';
import { isBareDuration, parseDuration } from '../config/values.js';
import { OperatorError } from '../errors.js';
import { abandonedOf, collectOptionsOf } from '../server/housekeeping.js';
import { roughSize } from '../size.js';
import type { CollectorReport } from '../store/collector.js';
import { collectAlone } from './collecting.js';
import { addVolumeOptions, volumeConfig, withVolume } from './volume.js';

interface GcOptions {
  readonly dryRun?: true;
  readonly grace?: number;
  readonly untagged?: true;
  readonly json?: true;
}

/** `registry-secure gc [config.yml]`: what `serve` does on its schedule, at once, beside it or without it. */
export function gc(program: Command): void {
  const command = addVolumeOptions(program.command('gc'))
    .summary('free what nothing refers to any more, while the registry serves')
    .description(
      'Removes tags that a retention policy lets go, untagged manifests where they may go, layers that no manifest names, abandoned uploads, and then the bytes that nothing needs. Other processes may push and pull meanwhile.',
    )
    .option('-d, --dry-run', 'remove nothing, and say what would go')
    .option(
      '--grace <duration>',
      'leave alone what is younger (default: storage.maintenance.gc.grace, 24h)',
      parseGrace,
    )
    .option('-m, --untagged', 'remove manifests that no tag leads to, whatever the configuration says')
    .option('--json', 'print the report as JSON')
    .action(async (file: string | undefined) => {
      const options = command.opts<GcOptions>();
      const config = volumeConfig(command, file);
      const configured = collectOptionsOf(config);
      const uploads = abandonedOf(config);
      const started = performance.now();
      const report = await withVolume(config, { readOnly: options.dryRun ?? false }, driver =>
        collectAlone(driver, {
          ...configured,
          servedGrace: configured.grace,
          grace: options.grace ?? configured.grace,
          untagged: options.untagged ?? configured.untagged ?? false,
          dryRun: options.dryRun ?? false,
          ...(uploads && { uploads }),
        }),
      );
      const seconds = Math.round(performance.now() - started) / 1000;
      for (const problem of report.problems) process.stderr.write(`registry-secure: warning: ${problem}\n`);
      process.stdout.write(options.json ? `${JSON.stringify({ ...report, seconds }, undefined, 2)}\n` : text(report));
    });
}

function text(report: CollectorReport): string {
  const { tags, manifests, layers, blobs, uploads, dryRun } = report;
  const line = (name: string, { kept, removed }: { kept: number; removed: number }, more = '') =>
    `${name.padEnd(12)} ${`${removed}`.padStart(8)} removed ${`${kept}`.padStart(8)} kept${more}\n`;
  return [
    line('tags', tags),
    line('manifests', manifests),
    line('layers', layers),
    line('uploads', uploads),
    line('blobs', blobs, blobs.young > 0 ? `, ${blobs.young} of them for the grace only` : ''),
    `${roughSize(report.freedBytes)} ${dryRun ? 'would be freed; nothing was removed' : 'freed'}\n`,
  ].join('');
}

function parseGrace(value: string): number {
  if (isBareDuration(value))
    throw new InvalidArgumentError(`${value} has no unit; write such as ${value}h or ${value}s`);
  try {
    return parseDuration(value);
  } catch (error) {
    if (!(error instanceof OperatorError)) throw error;
    throw new InvalidArgumentError(`${error.message}; ${error.fix}`);
  }
}
