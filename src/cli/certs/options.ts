import { join, resolve } from 'node:path';
import type { Command } from 'commander';
import type { NameConstraints } from '../../pki/x509.js';
import { quoted } from '../../trust/shell.js';
import { dirOption } from '../options.js';

export interface FolderOptions {
  readonly dir: string;
  readonly certs?: string;
}

/** The folder that a command works on, the same for all of them. */
export function addFolderOptions(command: Command): Command {
  return command
    .addOption(dirOption())
    .option('--certs <folder>', 'the folder of the certificates itself (default: DIR/certs)');
}

export function certsFolder({ dir, certs }: FolderOptions): string {
  return resolve(certs ?? join(dir, 'certs'));
}

/** The folder as the next command wants to hear it, for lines that are to be pasted; nothing where it is the usual one. */
export function folderArguments({ dir, certs }: FolderOptions): string {
  if (certs !== undefined) return `--certs ${quoted(certs)} `;
  return resolve(dir) === process.cwd() ? '' : `--dir ${quoted(dir)} `;
}

export function warn(warnings: readonly string[]): void {
  for (const warning of warnings) process.stderr.write(`registry-secure: warning: ${warning}\n`);
}

/** Prints what was done, as JSON or as lines of text. */
export function print(json: true | undefined, report: object, lines: readonly string[]): void {
  process.stdout.write(json ? `${JSON.stringify(report, null, 2)}\n` : `${lines.join('\n')}\n`);
}

export const day = (date: Date): string => date.toISOString().slice(0, 10);

/** What an authority may sign for, for people. */
export function constraintsText(constraints: NameConstraints | undefined): string {
  if (!constraints) return 'any name: keep its key well';
  const { permitted, excluded } = constraints;
  return `${permitted.join(', ') || 'any name'}${excluded.length > 0 ? `; not for ${excluded.join(', ')}` : ''}`;
}
