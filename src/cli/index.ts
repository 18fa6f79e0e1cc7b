import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { OperatorError, systemCode } from '../errors.js';
import { access } from './access.js';
import { backup } from './backup.js';
import { certs } from './certs/index.js';
import { config } from './config.js';
import { doctor } from './doctor.js';
import { garbageCollect } from './garbage-collect.js';
import { gc } from './gc.js';
import { health } from './health.js';
import { initCerts } from './init-certs.js';
import { maintenance } from './maintenance.js';
import { restore } from './restore.js';
import { serve } from './serve.js';
import { trust } from './trust/index.js';
import { up } from './up.js';
import { user } from './user.js';
import { verify } from './verify.js';

/** The command table: each entry adds one command, and lives in the file of its name. */
const COMMANDS: ReadonlyArray<(program: Command) => void> = [
  up,
  serve,
  initCerts,
  certs,
  user,
  access,
  trust,
  doctor,
  config,
  health,
  maintenance,
  verify,
  backup,
  restore,
  gc,
  garbageCollect,
];

/** Exit codes: 0 done, 1 failed for a reason that one line explains, 2 the command line was wrong. */
export async function main(args: readonly string[]): Promise<void> {
  // Whoever reads the output may have seen enough, as `head` has.
  for (const stream of [process.stdout, process.stderr])
    stream.on('error', error => {
      if (systemCode(error) !== 'EPIPE') throw error;
    });
  try {
    await createProgram().parseAsync(args, { from: 'user' });
  } catch (error) {
    process.exitCode = report(error);
  }
}

/** The whole command line, ready to parse. */
export function createProgram(): Command {
  const { version } = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8')) as {
    version: string;
  };
  const program = new Command('registry-secure')
    .description('A private OCI and Docker registry with its own certificate authority, users and client trust.')
    .version(version)
    .enablePositionalOptions()
    .showHelpAfterError('(add --help for the options)')
    .exitOverride();
  for (const add of COMMANDS) add(program);
  return program;
}

function report(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  if (!(error instanceof OperatorError)) throw error;
  process.stderr.write(`registry-secure: ${error.message}${error.fix ? `; ${error.fix}` : ''}\n`);
  return error.exitCode;
}
