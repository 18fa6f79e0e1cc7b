import { readFileSync } from 'node:fs';
import { request as requestHttp } from 'node:http';
import { request as requestHttps } from 'node:https';
import { basename } from 'node:path';
import { Command } from 'commander';
import type { Loaded } from '../config/load.js';
import { parseAddress } from '../config/values.js';
import { OperatorError, systemCode } from '../errors.js';
import { passingClient } from '../pki/clients.js';
import { type ClientSetup, clientSetupOf } from '../server/clients.js';
import { passphraseFromFile } from './passphrase.js';
import { loadFor, serveOptions } from './serve.js';
import { loadForUp, upOptions } from './up.js';

/** Below the time-out of the image's HEALTHCHECK, so that the reason is told (ms). */
const PATIENCE = 4_000;

/** `registry-secure health`: whether the registry of this machine or container answers and says that it is well. */
export function health(program: Command): void {
  const command = program
    .command('health')
    .summary('ask the registry that runs here whether it is well')
    .description(
      'Asks the registry that runs on this machine for its health; exit code 0 means well. Takes the arguments of serve. In a container none are needed: those of its first process count.',
    );
  serveOptions(command).action(async (file: string | undefined) => {
    const given = file !== undefined || Object.keys(command.opts()).some(name => isGiven(command, name));
    const asked = (given ? undefined : ofFirstProcess()) ?? { ...loadFor(command, { file }), dir: dirOf(command) };
    process.stdout.write(`${await ask(asked)}\n`);
  });
}

/** Whose health is asked for: its configuration, and the folder that holds its `certs/`. */
interface Asked extends Loaded {
  readonly dir: string;
}

function isGiven(command: Command, option: string): boolean {
  return command.getOptionValueSource(option) === 'cli';
}

/** The configuration of a container's first process, where that is ours, also behind an init. */
function ofFirstProcess(): Asked | undefined {
  const words = commandLineOfFirstProcess();
  const at = words.findIndex(word => /^(registry-secure(\.js)?|docker-entrypoint\.sh)$/.test(basename(word))) + 1;
  const [name = '', ...args] = at === 0 ? [] : words.slice(at);
  const parsed = (declare: (command: Command) => Command, rest: readonly string[]) =>
    declare(new Command(name).exitOverride()).parse(rest, { from: 'user' });
  if (name === 'up') {
    const command = parsed(upOptions, args);
    return { ...loadForUp(command), dir: dirOf(command) };
  }
  if (name !== 'serve' && !/\.ya?ml$/.test(name)) return undefined;
  const command = parsed(serveOptions, name === 'serve' ? args : [name, ...args]);
  return { ...loadFor(command, { file: command.args[0] }), dir: dirOf(command) };
}

const dirOf = (command: Command): string => command.opts<{ dir: string }>().dir;

function commandLineOfFirstProcess(): string[] {
  try {
    return readFileSync('/proc/1/cmdline', 'utf8').split('\0').slice(0, -1);
  } catch {
    return [];
  }
}

/** What the registry says of itself. @throws OperatorError when it is not well, or does not answer. */
async function ask({ config, dir }: Asked): Promise<string> {
  const { http } = config;
  const { host, port } = parseAddress(http.addr);
  // Every address is one to listen on, and none to call.
  const local = host === '0.0.0.0' ? '127.0.0.1' : host === '' || host === '::' ? 'localhost' : host;
  const target = { host: local, port, path: '/healthz', agent: false, timeout: PATIENCE } as const;
  const clients = clientSetupOf(config, dir);
  const own = clients && (await passingPair(clients));
  // Not verified: no secret is sent, it is this machine that answers, and certificates seldom name its loopback address.
  const request = http.insecureplainhttp
    ? requestHttp(target)
    : requestHttps({ ...target, ...own, rejectUnauthorized: false });
  const { status, body } = await new Promise<{ status: number; body: string }>((resolve, reject) => {
    request.once('response', response => {
      let body = '';
      response.setEncoding('utf8').on('data', text => (body += text));
      response.once('end', () => resolve({ status: response.statusCode!, body }));
      response.once('error', reject);
    });
    request.once('timeout', () => request.destroy(new Error(`no answer within ${PATIENCE / 1_000} s`)));
    request.once('error', reject);
    request.end();
  }).catch(cause => {
    throw new OperatorError(`${local}:${port} does not answer: ${reason(cause)}`, { cause });
  });
  // It answers, and judges clients: with no certificate to show that is all there is to learn.
  if (status === 403 && clients && !own) return 'alive; it tells its health to clients with a certificate only';
  if (status !== 200) throw new OperatorError(`not well: ${status} ${body}`.trim());
  return body;
}

/** A certificate for this one question, where the own authority is trusted and its key may be read here. */
async function passingPair({ ownFolder }: ClientSetup): Promise<{ cert: string; key: string } | undefined> {
  if (ownFolder === undefined) return undefined;
  const passphrase = () => passphraseFromFile({});
  return passingClient({ dir: ownFolder, name: 'registry-secure health', passphrase }).catch(error => {
    if (error instanceof OperatorError) return undefined;
    throw error;
  });
}

/** Of several addresses that all refuse, Node's error has a code and no message. */
function reason(error: unknown): string {
  return (error as Error).message || (systemCode(error) ?? String(error));
}
