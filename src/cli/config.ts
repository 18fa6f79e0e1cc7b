import type { Command } from 'commander';
import { shown, toYaml } from '../config/display.js';
import { inspectConfig, type LoadOptions, loadConfig } from '../config/load.js';
import { addConfigFlags, flagsFrom } from './config-flags.js';
import { dirOption } from './options.js';

/** `registry-secure config`: what the configuration is, and whether it is valid. Reads, and changes nothing. */
export function config(program: Command): void {
  const parent = program.command('config').description('check or print the configuration that serve would use');
  for (const [name, description, run] of [
    ['check', 'say what is wrong with the configuration; the exit code is 1 where it is invalid', check],
    ['print', 'print the configuration in force, secrets masked, with the source of each value', print],
  ] as const) {
    const command = parent
      .command(name)
      .description(description)
      .argument('[file]', 'the configuration file; without it as for serve')
      .addOption(dirOption())
      .option('--json', 'print JSON');
    addConfigFlags(command).action((file: string | undefined) => run(loadOptions(command, file), command.opts()));
  }
}

function loadOptions(command: Command, file: string | undefined): LoadOptions {
  const options = command.opts<{ dir: string }>();
  const dirGiven = command.getOptionValueSource('dir') === 'cli';
  return { dir: options.dir, dirGiven, file, env: process.env, flags: flagsFrom(options) };
}

function check(options: LoadOptions, { json }: { json?: true }): void {
  const { file, problems, warnings } = inspectConfig(options);
  const valid = problems.length === 0;
  if (!valid) process.exitCode = 1;
  if (json) {
    process.stdout.write(`${JSON.stringify({ valid, file, problems, warnings }, undefined, 2)}\n`);
    return;
  }
  for (const warning of warnings) process.stdout.write(`warning: ${warning}\n`);
  for (const { what, fix } of problems) process.stdout.write(`error: ${what}${fix ? `; ${fix}` : ''}\n`);
  process.stdout.write(`${file ?? 'without a configuration file'}: ${valid ? 'valid' : 'invalid'}\n`);
}

function print(options: LoadOptions, { json }: { json?: true }): void {
  const loaded = loadConfig(options);
  for (const warning of loaded.warnings) process.stderr.write(`registry-secure: warning: ${warning}\n`);
  const { file } = loaded;
  if (json) {
    const values = Object.fromEntries(shown(loaded));
    process.stdout.write(`${JSON.stringify({ file, values }, undefined, 2)}\n`);
  } else process.stdout.write(`${file ? `# ${file}\n` : ''}${toYaml(loaded)}`);
}
