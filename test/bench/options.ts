import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { delimiter, join } from 'node:path';
import { SEARCH_PATH } from '../support/process.js';
import { type Kind, peer } from './servers.js';

/** The command line is wrong, or this machine lacks something: said without a stack. */
export class UsageError extends Error {}

/** Runs the command, and says a mistake of its user as such. */
export async function main(command: () => Promise<void>): Promise<void> {
  try {
    await command();
  } catch (error) {
    const isOption = (error as NodeJS.ErrnoException).code?.startsWith('ERR_PARSE_ARGS') ?? false;
    const wrong = isOption || error instanceof UsageError;
    const hint = isOption ? '; docs/performance.md shows those that there are' : '';
    process.stderr.write(`bench: ${wrong ? (error as Error).message + hint : (error as Error).stack}\n`);
    process.exitCode = wrong ? 2 : 1;
  }
}

export function wholeNumber(name: string, value: string): number {
  if (/^[1-9]\d{0,9}$/.test(value)) return Number(value);
  throw new UsageError(`--${name} ${value}: a whole number from 1 is wanted`);
}

/** Those whose names begin with one of the prefixes; all of them without any. */
export function selected<T extends { readonly name: string }>(
  all: readonly T[],
  option: string,
  prefixes: readonly string[],
): T[] {
  for (const prefix of prefixes)
    if (!all.some(({ name }) => name.startsWith(prefix)))
      throw new UsageError(
        `--${option} ${prefix}: nothing of that name; there are: ${all.map(({ name }) => name).join('; ')}`,
      );
  return all.filter(({ name }) => prefixes.length === 0 || prefixes.some(prefix => name.startsWith(prefix)));
}

/** The servers to compare. @param peers each `NAME=COMMAND` */
export function kinds(all: readonly Kind[], without: readonly string[], peers: readonly string[]): Kind[] {
  const more = peers.map(text => {
    const [, name, command] = /^([^=]+)=(.+)$/s.exec(text) ?? [];
    if (!name || !command) throw new UsageError(`--peer ${text}: NAME=COMMAND is wanted`);
    return peer(name, command);
  });
  const out = without.length === 0 ? [] : selected(all, 'without', without);
  return [...all.filter(kind => !out.includes(kind)), ...more];
}

/** @throws UsageError where this machine lacks one of the commands */
export function requireCommands(needs: ReadonlyArray<Readonly<Record<string, string>>>): void {
  const missing = Object.entries(Object.assign({}, ...needs) as Record<string, string>).filter(
    ([command]) => !SEARCH_PATH.split(delimiter).some(folder => existsSync(join(folder, command))),
  );
  if (missing.length === 0) return;
  const list = missing
    .map(([command, name]) => `${command} (${name.endsWith('.sh') ? name : `apt-get install ${name}`})`)
    .join(', ');
  throw new UsageError(`not installed: ${list}; a server can be left out with --without NAME, a workload with --only`);
}

/** What the figures were measured on; a blob that is pulled first costs a SHA-256 more than one that is only sent. */
export function machine(): string {
  const [cpu] = cpus();
  const memory = (totalmem() / 2 ** 30).toFixed(0);
  const hash = `SHA-256 ${hashing().toFixed(2)} CPU s/GiB`;
  return `${cpus().length} x ${cpu?.model.trim()}, ${memory} GiB, ${process.platform}, Node ${process.versions.node}, ${hash}`;
}

function hashing(): number {
  const piece = Buffer.alloc(1 << 20, 'x');
  const before = process.cpuUsage();
  const hash = createHash('sha256');
  for (let done = 0; done < 256; done++) hash.update(piece);
  hash.digest();
  const { user, system } = process.cpuUsage(before);
  return ((user + system) / 1e6) * 4;
}
