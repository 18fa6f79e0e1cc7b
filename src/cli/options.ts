import { resolve } from 'node:path';
import { InvalidArgumentError, Option } from 'commander';
import { OperatorError } from '../errors.js';
import { parseDns, parseIp, unique } from '../pki/names.js';

/** `--dir`, the same for every command: the folder that holds `certs/`, `auth/` and `data/`. */
export function dirOption(): Option {
  return new Option('--dir <folder>', 'the folder that holds certs/, auth/ and data/')
    .default(process.cwd(), 'the working directory')
    .argParser(folder => resolve(folder));
}

/** What is wrong with a command line that parses. */
export function usage(what: string, fix?: string): OperatorError {
  return new OperatorError(what, { exitCode: 2, ...(fix === undefined ? {} : { fix }) });
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

/** `--ip` and `--dns`, the same for every command that issues certificates: canonical names, repeated or by commas. */
export function nameOptions(): Option[] {
  const parser = (parse: (text: string) => string) => (value: string, before?: readonly string[]) => {
    try {
      return unique([...(before ?? []), ...collect(value).map(parse)]);
    } catch (error) {
      if (!(error instanceof OperatorError)) throw error;
      throw new InvalidArgumentError(`${error.message}; ${error.fix}`);
    }
  };
  return [
    new Option('--ip <address>', 'an address that clients use; repeat it for more').argParser(parser(parseIp)),
    new Option('--dns <name>', 'a DNS name that clients use; repeat it for more').argParser(parser(parseDns)),
  ];
}
