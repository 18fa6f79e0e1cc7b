import type { Command } from 'commander';
import { userCommand } from '../auth/htpasswd.js';
import type { Loaded } from '../config/load.js';
import { readPem } from '../pki/inspect.js';
import { advertisedHost, thisMachine } from '../pki/machine.js';
import { environmentNames, imageHost } from '../pki/names.js';
import type { RunningServer } from '../server/serve.js';
import { FIRST_USER } from '../server/users.js';
import { type Charge, isFirstToServe, isWorker } from '../server/worker.js';
import { renderTrust, trustInstructions } from '../trust/instructions.js';
import { quoted } from '../trust/shell.js';
import { addConfigFlags } from './config-flags.js';
import { dirOption, nameOptions } from './options.js';
import { passphraseOption } from './passphrase.js';
import { readPassword } from './password.js';
import { loadFor, serveUntilStopped, start } from './serve.js';

interface Options {
  readonly dir: string;
  readonly ip?: readonly string[];
  readonly dns?: readonly string[];
  readonly user?: string;
  readonly passwordStdin?: boolean;
  readonly passphraseFile?: string;
}

/** `registry-secure up`: from nothing to a registry that clients can trust and log in to. */
export function up(program: Command): void {
  const command = program
    .command('up')
    .summary('make what is missing, serve, and say how clients get in')
    .description(
      'Makes the certificates, the first user and the data folder where they are missing, reuses what is there, serves, and prints how clients trust the registry and log in.',
    );
  upOptions(command).action(async () => {
    const options = command.opts<Options>();
    // A worker is told it: the input is over by then.
    const password = options.passwordStdin && !isWorker ? await readPassword(options, []) : undefined;
    const loaded = loadForUp(command);
    const starting = async (charge: Charge | undefined) => {
      const firstUser = { name: options.user, password: charge ? charge.password : password };
      const server = await start(loaded, { ...options, firstUser }, charge);
      if (isFirstToServe(charge)) process.stdout.write(await story(server, options, loaded.config.http.prefix));
      return server;
    };
    await serveUntilStopped(loaded, starting, password);
  });
}

/** What may follow `up` on the command line. */
export function upOptions(command: Command): Command {
  command
    .addOption(dirOption())
    .option('--user <name>', `the first user (default: ${FIRST_USER})`)
    .option('--password-stdin', "read the first user's password from standard input, instead of making one up");
  for (const option of nameOptions()) command.addOption(option);
  return addConfigFlags(command.addOption(passphraseOption()));
}

/** A file that some package has put into /etc is not what somebody means who asks for a registry here. */
export function loadForUp(command: Command): Loaded {
  return loadFor(command, { standardFiles: false });
}

/** What the operator needs to know now, in the order in which it is needed. */
async function story(server: RunningServer, options: Options, prefix: string): Promise<string> {
  const { pair, certificates, users, open, data } = server;
  // What the operator names is how clients reach it, whatever this machine's interfaces say.
  const [named] = [...(options.ip ?? []), ...(options.dns ?? []), ...environmentNames()];
  // Who listens on one address alone is reached by no other.
  const isEverywhere = /^[0.:]*$/.test(server.host);
  const reached = isEverywhere ? advertisedHost(pair?.names ?? [], thisMachine()) : server.host;
  const host = imageHost(named ?? reached, server.port);
  const lines = [`Registry      ${pair ? 'https' : 'http'}://${host}/`];
  if (pair) {
    const how = certificates?.server.action ?? 'yours';
    lines.push(
      `Certificate   ${pair.path} (${how}), until ${pair.notAfter.toISOString().slice(0, 10)}`,
      `  good for    ${pair.names.join(', ')}`,
    );
  }
  if (certificates?.authority)
    lines.push(
      `Authority     ${certificates.authority.certificate} (${certificates.authority.action}), until ${certificates.authority.notAfter.toISOString().slice(0, 10)}`,
    );
  if (certificates?.anchor) lines.push(`  SHA-256     ${certificates.anchor.fingerprint}`);
  lines.push(`Data          ${data}`);
  if (users) lines.push(`Users         ${users.file} (${users.action})`);
  if (users?.action === 'created') {
    if (users.password !== undefined)
      lines.push(`  user        ${users.name}`, `  password    ${users.password}   (shown only now)`);
    else if (users.passwordFile)
      lines.push(`  password    of ${users.name}: in ${users.passwordFile}; remove the file after use`);
    else lines.push(`  user        ${users.name}`);
  } else if (users && (options.user !== undefined || options.passwordStdin)) {
    const name = options.user ?? FIRST_USER;
    lines.push(
      `  user        ${name} was not added, since there are users: ${userCommand('add', name, users.file)}`,
      `              or, for another password: ${userCommand('passwd', name, users.file)}`,
    );
  }
  if (certificates?.anchor) {
    const clients = ['docker', 'docker-desktop-macos'];
    const instructions = trustInstructions({
      host,
      caFile: certificates.anchor.path,
      pem: (await readPem(certificates.anchor.path)).toString('latin1'),
      clients,
      prefix: prefix.replace(/\/$/, ''),
    });
    lines.push(
      '',
      `Once on each client (all kinds: https://${host}${prefix.replace(/\/$/, '')}/trust in a browser, or registry-secure trust${options.dir === process.cwd() ? '' : ` --dir ${quoted(options.dir)}`}):`,
      '',
      `# ${instructions.clients[0]!.title}, from any machine, in one line that checks what it fetches:`,
      instructions.clients[0]!.line,
      '',
      '# Or with the file at hand.',
      renderTrust(instructions).trimEnd(),
    );
  }
  const user = users?.action === 'created' ? users.name : (options.user ?? 'NAME');
  lines.push('', 'Then:', '', open ? `docker push ${host}/NAME:TAG` : `docker login -u ${quoted(user)} ${host}`, '');
  return `${lines.join('\n')}\n`;
}
