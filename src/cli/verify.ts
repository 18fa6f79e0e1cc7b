import { constants, setPriority } from 'node:os';
import type { Command } from 'commander';
import { validationOf } from '../server/validation.js';
import { roughSize } from '../size.js';
import { type Finding, isLoss, isOpen, type ScrubReport, scrub } from '../store/scrub.js';
import { Store } from '../store/store.js';
import { Progress } from './progress.js';
import { addVolumeOptions, volumeConfig, withVolume } from './volume.js';

interface Options {
  readonly repair?: true;
  readonly json?: true;
}

/** `registry-secure verify`: reads all that is stored, and says whether anything is lost. */
export function verify(program: Command): void {
  const command = addVolumeOptions(
    program
      .command('verify')
      .summary('check every stored byte and every link')
      .description(
        'Hashes all that is stored and checks every tag, link and reference, while the registry serves. The exit code is 0 where nothing is lost, and 1 where something is.',
      ),
  )
    .option(
      '--repair',
      'move corrupt bytes away, so that a push of the same image restores them, and mend torn links and notes',
    )
    .option('--json', 'print one JSON document')
    .action(async (file: string | undefined) => {
      const { repair = false, json = false } = command.opts<Options>();
      const config = volumeConfig(command, file);
      // Who pulls and pushes meanwhile comes first.
      setPriority(constants.priority.PRIORITY_BELOW_NORMAL);
      const progress = new Progress('verify');
      const findings: Finding[] = [];
      const tell = (finding: Finding) => {
        if (json) findings.push(finding);
        else {
          progress.clear();
          process.stdout.write(line(finding));
        }
        if (finding.kind === 'broken-image' && isOpen(finding)) broken.add(nameOf(finding));
      };
      const broken = new Set<string>();
      const { report, quotas } = await withVolume(config, { readOnly: !repair }, async driver => {
        const validation = validationOf(config);
        const { quotas } = config.limits;
        const store = new Store(driver, { largestManifest: config.limits.manifestsize, validation, quotas });
        const report = await scrub(driver, store, {
          repair,
          validation,
          onFinding: tell,
          onProgress: ({ bytes, totalBytes }) => progress.update(bytes, totalBytes),
        });
        return { report, quotas: await store.quotas.usage() };
      });
      progress.clear();
      if (!report.clean) process.exitCode = 1;
      const { seconds } = progress;
      if (json)
        process.stdout.write(
          `${JSON.stringify({ ...report, seconds: Number(seconds.toFixed(3)), quotas, findings }, undefined, 2)}\n`,
        );
      else {
        for (const { prefix, limit, used } of quotas)
          process.stdout.write(`quota ${prefix}: ${roughSize(used)} of ${roughSize(limit)}\n`);
        process.stdout.write(summary(report, seconds, [...broken], repair));
      }
    });
}

function line(finding: Finding): string {
  const { kind, message, tags = [], key, repaired } = finding;
  const needed = kind === 'broken-image' && tags.length > 0 ? `; it is needed by ${tags.slice(0, 10).join(', ')}` : '';
  const place = kind === 'broken-image' || key === undefined ? '' : ` (${key})`;
  return `${isLoss(finding) ? kind : `note: ${kind}`}: ${message}${needed}${place}${repaired ? `: ${repaired}` : ''}\n`;
}

/** What to push again: by a tag where there is one. */
function nameOf({ repository, tags, digest }: Finding): string {
  const [tag] = tags ?? [];
  return tag === undefined ? `${repository}@${digest}` : `${repository}:${tag}`;
}

function summary(report: ScrubReport, seconds: number, broken: readonly string[], repair: boolean): string {
  const { blobs, bytes, repositories, manifests, tags, losses, notes, repaired, clean } = report;
  const rate = `${roughSize(bytes / Math.max(seconds, 0.001))}/s`;
  const lines = [
    `${blobs} blobs (${roughSize(bytes)}), ${repositories} repositories, ${manifests} manifests and ${tags} tags in ${seconds.toFixed(1)} s (${rate})`,
    clean
      ? `clean${losses > 0 ? `: all of ${losses} faults mended` : ''}`
      : `not clean: ${losses} faults${repair ? `, ${repaired} findings mended` : '; run registry-secure verify --repair'}`,
  ];
  if (notes > 0 && !repair) lines.push(`${notes} notes do no harm; --repair tidies them up`);
  if (broken.length > 0)
    lines.push(
      `to be pushed again: ${broken.slice(0, 20).join(' ')}${broken.length > 20 ? ` and ${broken.length - 20} more` : ''}`,
    );
  return `${lines.join('\n')}\n`;
}
