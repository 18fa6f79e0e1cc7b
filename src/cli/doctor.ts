import { type Command, Option } from 'commander';
import { inspectConfig } from '../config/load.js';
import { type Diagnosis, examine } from '../doctor/check.js';
import { CLIENT_ERRORS } from '../doctor/client-errors.js';
import { clientChecks, ownAuthorities } from '../doctor/clients.js';
import { credentialChecks } from '../doctor/credentials.js';
import { INSTALLATION_CHECKS, Installation } from '../doctor/installation.js';
import { REGISTRY_CHECKS, Registry } from '../doctor/registry.js';
import { OperatorError } from '../errors.js';
import { parseImageHost } from '../pki/names.js';
import { THIS_MACHINE } from '../trust/places.js';
import { clientsNamed } from '../trust/table.js';
import { addConfigFlags, flagsFrom } from './config-flags.js';
import { collect, dirOption, usage } from './options.js';
import { readPassword } from './password.js';

interface Options {
  readonly dir: string;
  readonly config?: string;
  readonly client?: readonly string[];
  readonly user?: string;
  readonly passwordStdin?: boolean;
  readonly passwordFile?: string;
  readonly verbose?: true;
  readonly json?: true;
}

/** `registry-secure doctor [H]`: what is wrong, from where it runs, and what mends it. Changes nothing. */
export function doctor(program: Command): void {
  const command = program
    .command('doctor')
    .summary('find what is wrong, here or between here and a registry')
    .description(
      'Without a host: looks at the installation on this machine, as serve would find it. With HOST[:PORT], just as in image references: looks at all that is between this machine and that registry, its certificate, and what the clients here trust. Exit code 0: all is well; 1: something is not; 2: the command line was wrong.',
    )
    .argument('[host]', 'HOST[:PORT] of a registry, as it stands in image references')
    .addOption(dirOption())
    .option('--config <file>', 'the configuration file that serve is given')
    .addOption(
      new Option('--client <kind>', 'a kind of client to look at, present or not; repeat it for more').argParser(
        collect,
      ),
    )
    .option('--user <name>', 'try to log in as this user')
    .addOption(new Option('--password-stdin', 'read the password from standard input').conflicts('passwordFile'))
    .option('--password-file <file>', 'read the password from a file')
    .option('--verbose', 'say also what is well')
    .option('--json', 'print JSON');
  addConfigFlags(command).action(async (host: string | undefined) => {
    const options = command.opts<Options>();
    const found = host === undefined ? await examineHere(command, options) : await examineRegistry(host, options);
    process.stdout.write(
      options.json ? `${JSON.stringify(report(host, found), undefined, 2)}\n` : render(found, options.verbose),
    );
    if (found.some(({ severity }) => severity !== 'ok')) process.exitCode = 1;
  });
}

function examineHere(command: Command, options: Options): Promise<Diagnosis[]> {
  for (const name of ['client', 'user'] as const)
    if (options[name] !== undefined) throw usage(`--${name} is for another machine's registry`, 'give its HOST[:PORT]');
  const dirGiven = command.getOptionValueSource('dir') === 'cli';
  const inspected = inspectConfig({
    dir: options.dir,
    dirGiven,
    file: options.config,
    env: process.env,
    flags: flagsFrom(command.opts()),
  });
  return examine(INSTALLATION_CHECKS, new Installation(options.dir, inspected), progress);
}

async function examineRegistry(host: string, { client, user, ...options }: Options): Promise<Diagnosis[]> {
  const { name, reference, port } = target(host, client);
  if ((options.passwordStdin || options.passwordFile) && user === undefined)
    throw usage('a password without a user', 'add --user NAME');
  const login =
    user === undefined
      ? undefined
      : { user, password: await readPassword(options, [`Password of ${JSON.stringify(user)}: `]) };
  const registry = new Registry(reference, name, port, THIS_MACHINE);
  const checks = [...REGISTRY_CHECKS, clientChecks(client), credentialChecks(login, ownAuthorities)];
  return examine(checks, registry, progress);
}

/** What is meant. @throws OperatorError with the exit code of a wrong command line */
function target(
  text: string,
  clients: readonly string[] | undefined,
): { name: string; reference: string; port: number } {
  try {
    if (clients) clientsNamed(clients);
    const { host, imageHost } = parseImageHost(text);
    return {
      name: host,
      reference: imageHost,
      port: Number(/:(\d+)$/.exec(imageHost.replace(/^\[.*\]/, ''))?.[1] ?? 443),
    };
  } catch (error) {
    if (error instanceof OperatorError) throw usage(error.message, error.fix);
    throw error;
  }
}

/** Some steps wait for a network that does not answer. */
function progress({ title }: { title: string }): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${title} …`);
}

function report(host: string | undefined, found: readonly Diagnosis[]) {
  const count = (severity: Diagnosis['severity']) => found.filter(one => one.severity === severity).length;
  return {
    host,
    errors: count('error'),
    warnings: count('warning'),
    findings: found.map(({ error, ...one }) => ({ ...one, shows: error && CLIENT_ERRORS[error].shows })),
  };
}

const LABELS = { ok: 'ok     ', warning: 'warning', error: 'ERROR  ' } as const;

function render(found: readonly Diagnosis[], verbose = false): string {
  if (process.stderr.isTTY) process.stderr.write('\r\x1b[K');
  const shown = found.filter(({ severity }) => verbose || severity !== 'ok');
  const lines = shown.flatMap(({ severity, message, error, fix, commands }) => [
    `${LABELS[severity]}  ${message}`,
    ...(error ? [`           clients show: ${CLIENT_ERRORS[error].shows}`] : []),
    ...(fix ? [`           mend it: ${fix.replaceAll('`', '')}`] : []),
    ...(commands ?? []).map(command => `           $ ${command}`),
  ]);
  const { errors, warnings } = report(undefined, found);
  const plural = (count: number, what: string) => `${count} ${what}${count === 1 ? '' : 's'}`;
  const well = found.length - errors - warnings;
  const summary =
    errors + warnings === 0
      ? `All is well (${well} looked at).`
      : `${plural(errors, 'error')}, ${plural(warnings, 'warning')}; ${well} well.`;
  return `${[...lines, ...(lines.length > 0 ? [''] : []), summary].join('\n')}\n`;
}
