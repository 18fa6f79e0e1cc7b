import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { report, toleratePipes } from './report.js';
import { Trail } from './trail.js';

type Add = (program: Command) => void;

/**
 * The command table: each entry adds one command, and lives in the file of its name. Only the one that is asked for is
 * loaded: a server's parts would cost a short command most of its time.
 */
const COMMANDS: Readonly<Record<string, () => Promise<Add>>> = {
  up: async () => (await import('./up.js')).up,
  serve: async () => (await import('./serve.js')).serve,
  'init-certs': async () => (await import('./init-certs.js')).initCerts,
  certs: async () => (await import('./certs/index.js')).certs,
  user: async () => (await import('./user.js')).user,
  token: async () => (await import('./token.js')).token,
  access: async () => (await import('./access.js')).access,
  trust: async () => (await import('./trust/index.js')).trust,
  doctor: async () => (await import('./doctor.js')).doctor,
  config: async () => (await import('./config.js')).config,
  health: async () => (await import('./health.js')).health,
  maintenance: async () => (await import('./maintenance.js')).maintenance,
  audit: async () => (await import('./audit.js')).audit,
  copy: async () => (await import('./copy.js')).copy,
  image: async () => (await import('./image.js')).image,
  storage: async () => (await import('./storage.js')).storage,
  verify: async () => (await import('./verify.js')).verify,
  backup: async () => (await import('./backup.js')).backup,
  restore: async () => (await import('./restore.js')).restore,
  gc: async () => (await import('./gc.js')).gc,
  'garbage-collect': async () => (await import('./garbage-collect.js')).garbageCollect,
};

/** Exit codes: 0 done, 1 failed for a reason that one line explains, 2 the command line was wrong. */
export async function main(args: readonly string[]): Promise<void> {
  toleratePipes();
  let trail: Trail | undefined;
  let failure: string | undefined;
  try {
    const [name = ''] = args;
    const program = await createProgram(Object.hasOwn(COMMANDS, name) ? [name] : undefined);
    trail = new Trail(program);
    await program.parseAsync(args, { from: 'user' });
    if (process.exitCode) failure = `exit code ${process.exitCode}`;
  } catch (error) {
    process.exitCode = exitCodeOf(error);
    failure = (error as Error).message;
  }
  await trail?.tell(failure);
}

/** The command line, ready to parse. @param names of its commands; all unless told */
export async function createProgram(names: readonly string[] = Object.keys(COMMANDS)): Promise<Command> {
  const { version } = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8')) as {
    version: string;
  };
  const program = new Command('registry-secure')
    .description('A private OCI and Docker registry with its own certificate authority, users and client trust.')
    .version(version)
    .enablePositionalOptions()
    .showHelpAfterError('(add --help for the options)')
    .exitOverride();
  for (const add of await Promise.all(names.map(name => COMMANDS[name]!()))) add(program);
  return program;
}

function exitCodeOf(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  return report(error);
}
