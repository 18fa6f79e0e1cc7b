import { existsSync } from 'node:fs';
import type { Command } from 'commander';
import { Seals } from '../audit/seals.js';
import { type AuditFinding, type AuditReport, verifyAudit, verifyFile } from '../audit/verify.js';
import { OperatorError, systemCode } from '../errors.js';
import { sealDriver } from '../server/audit.js';
import { roughSize } from '../size.js';
import { placeOf } from '../storage/open.js';
import { Progress } from './progress.js';
import { addVolumeOptions, volumeConfig, withVolume } from './volume.js';

interface Options {
  readonly file?: string;
  readonly json?: true;
}

/** Printed one by one; beyond this they are counted. */
const MOST_FINDINGS = 100;
/** Nothing is said about the log, for it could not be looked at. */
const NOT_CHECKED = 3;

/** `registry-secure audit verify`: whether the audit log is whole, and as it was written. */
export function audit(program: Command): void {
  const parent = program.command('audit').description('check the audit log');
  const command = addVolumeOptions(
    parent
      .command('verify')
      .summary('find what was removed from the audit log, or changed in it')
      .description(
        'Checks every line of the audit log against the one before it, and where each chain ends against its seal, while the registry serves. The exit code is 0 where all is as it was written, 1 where something was removed, changed, added, moved or cut off, and 3 where that cannot be told.',
      ),
  )
    .option('--file <file>', 'one file by itself, of which neither the end nor what stood before it can be known')
    .option('--json', 'print one JSON document')
    .action(async (file: string | undefined) => {
      const { file: alone, json = false } = command.opts<Options>();
      const progress = new Progress('audit verify');
      const findings: AuditFinding[] = [];
      const notes: string[] = [];
      const say = (line: string) => {
        progress.clear();
        if (!json) process.stdout.write(`${line}\n`);
      };
      const options = {
        onFinding: (finding: AuditFinding) => {
          if (findings.push(finding) > MOST_FINDINGS) findings.length = MOST_FINDINGS;
          else say(`${finding.kind}: ${finding.message}`);
        },
        onNote: (note: string) => {
          if (notes.push(note) > MOST_FINDINGS) notes.length = MOST_FINDINGS;
          else say(`note: ${note}`);
        },
        onProgress: (done: number, total: number) => progress.update(done, total),
      };
      const report = await (alone === undefined ? whole(command, file, options) : verifyFile(alone, options)).catch(
        error => {
          // Exit code 1 would say that somebody was at the log.
          if (error instanceof OperatorError)
            throw new OperatorError(error.message, {
              ...(error.fix !== undefined && { fix: error.fix }),
              exitCode: NOT_CHECKED,
              cause: error,
            });
          if (systemCode(error) === undefined) throw error;
          throw new OperatorError(`the audit log cannot be read: ${(error as Error).message}`, {
            fix: 'check the path, and run this as a user who may read it',
            exitCode: NOT_CHECKED,
            cause: error,
          });
        },
      );
      progress.clear();
      if (report.findings > 0) process.exitCode = 1;
      const seconds = Number(progress.seconds.toFixed(3));
      if (json) {
        const document = { intact: report.findings === 0, ...report, seconds, details: findings, notes };
        process.stdout.write(`${JSON.stringify(document, undefined, 2)}\n`);
      } else process.stdout.write(summary(report));
    });
}

async function whole(
  command: Command,
  file: string | undefined,
  options: Parameters<typeof verifyAudit>[2],
): Promise<AuditReport> {
  const config = volumeConfig(command, file);
  const { folder, head } = config.audit;
  return withVolume(config, { readOnly: true }, async driver => {
    const seals = await Seals.open(await sealDriver(config.audit, driver, { readOnly: true }), { make: false });
    const place = head ?? placeOf(config.storage);
    if (!seals)
      throw new OperatorError(`there is no key of an audit log in ${place}`, {
        fix: 'name what serve is given: its configuration, --dir or --root, and audit.head where it is set',
        exitCode: NOT_CHECKED,
      });
    // With a configuration file the log of the same data is in another place than with --dir alone.
    if (!existsSync(folder))
      options.onNote(`there is no folder ${folder}; is this the configuration, or --dir, with which serve is started?`);
    const report = await verifyAudit(folder, seals, options);
    if (report.chains > 0) return report;
    throw new OperatorError(`there is no audit log in ${folder}, and no seal of one in ${place}`, {
      fix: 'look whether audit.folder is right; where a registry has served here, all of it was removed',
      exitCode: NOT_CHECKED,
    });
  });
}

function summary({ chains, files, lines, bytes, findings }: AuditReport): string {
  const size = `${lines} lines in ${files} files of ${chains} chains (${roughSize(bytes)})`;
  if (findings === 0) return `${size}: all as it was written\n`;
  const more = findings > MOST_FINDINGS ? `, of which ${MOST_FINDINGS} are shown` : '';
  return `${size}: NOT as it was written, ${findings} findings${more}\n`;
}
