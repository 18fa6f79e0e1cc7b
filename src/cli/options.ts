import { resolve } from 'node:path';
import { InvalidArgumentError, Option } from 'commander';

/** `--dir`, the same for every command: the folder that holds `certs/`, `auth/` and `data/`. */
export function dirOption(): Option {
  return new Option('--dir <folder>', 'the folder that holds certs/, auth/ and data/')
    .default(process.cwd(), 'the working directory')
    .argParser(folder => resolve(folder));
}

/** A parser for commander: a whole number from `least` to `most`. */
export function wholeNumber(least: number, most: number): (text: string) => number {
  return text => {
    const value = Number(text);
    if (/^\d+$/.test(text) && value >= least && value <= most) return value;
    throw new InvalidArgumentError(`expected a whole number from ${least} to ${most}`);
  };
}

/** A parser for commander that collects a repeated option, and takes several values separated by commas in one. */
export function collect(value: string, before: readonly string[] = []): string[] {
  return [...before, ...value.split(',').map(part => part.trim())];
}
