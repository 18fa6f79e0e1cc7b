import { type Command, Option, type OptionValues } from 'commander';
import { FLAGS, type FlagValue } from '../config/flags.js';
import { nodeAt } from '../config/tree.js';

const OPTIONS = FLAGS.map(({ flag, value, key }) => ({
  option: new Option(value ? `${flag} ${value}` : flag, describe(key)),
  flag,
  key,
}));

/** Adds the options that set a configuration key, described as the reference describes them. */
export function addConfigFlags(command: Command): Command {
  for (const { option } of OPTIONS) command.addOption(option);
  return command;
}

/** Those of them that were given, for `loadConfig`. */
export function flagsFrom(options: OptionValues): FlagValue[] {
  return OPTIONS.flatMap(({ option, flag, key }) => {
    const value: unknown = options[option.attributeName()];
    return value === undefined ? [] : [{ flag, key, value: String(value) }];
  });
}

/** The first sentence of the reference, as commander's own descriptions are written. */
function describe(key: string): string {
  const { about, fallback } = nodeAt(key)!;
  const [sentence] = about.split(/\.(?: |$)/);
  const text = sentence!.replace(/^[A-Z](?=[a-z ])/, letter => letter.toLowerCase());
  const shown = fallback === undefined || fallback === false ? '' : ` (default: ${fallback})`;
  return `${text}${shown}`.replaceAll('`', '');
}
