import { join, resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { OperatorError } from '../errors.js';
import { DEFAULT_CA_DAYS, DEFAULT_DAYS } from '../pki/authority.js';
import { type Certificates, ensureCertificates } from '../pki/certificates.js';
import { isKeyEncrypted } from '../pki/folder.js';
import { KEY_KINDS, type KeyKind } from '../pki/keys.js';
import { namesHint, thisMachine } from '../pki/machine.js';
import { environmentNames, LOOPBACK_NAMES, unique } from '../pki/names.js';
import { quoted } from '../trust/shell.js';
import { dirOption, nameOptions, wholeNumber } from './options.js';
import {
  newPassphrase,
  openingPassphrase,
  type PassphraseOptions,
  passphraseFromFile,
  passphraseOption,
} from './passphrase.js';

interface Options extends PassphraseOptions {
  readonly dir: string;
  readonly out?: string;
  readonly ip?: readonly string[];
  readonly dns?: readonly string[];
  readonly days?: number;
  readonly caDays?: number;
  readonly key?: KeyKind;
  readonly nameConstraints: boolean;
  readonly encryptKey?: true;
  readonly force?: true;
  readonly json?: true;
}

export function initCerts(program: Command): void {
  const command = program
    .command('init-certs')
    .summary('make a certificate authority and a server certificate')
    .description(
      'Makes a certificate authority and a server certificate of it, or reuses what is there. Without names: this host and the addresses that others could use.',
    );
  for (const option of nameOptions()) command.addOption(option);
  command
    .addOption(dirOption())
    .option('--out <folder>', 'where the files go (default: DIR/certs)')
    .option('--days <n>', `life of the server certificate (default: ${DEFAULT_DAYS})`, wholeNumber(1, 36_500))
    .option('--ca-days <n>', `life of the authority (default: ${DEFAULT_CA_DAYS})`, wholeNumber(1, 36_500))
    .addOption(new Option('--key <kind>', 'kind of new keys (default: ec-p256)').choices(KEY_KINDS))
    .option('--no-name-constraints', 'let a new authority sign for any name, not just for yours and private ones')
    .option('--encrypt-key', 'encrypt the key of a new authority by a passphrase; without a file it is asked for')
    .addOption(passphraseOption())
    .option('--force', 'issue the server certificate anew for just these names; keeps copies, never touches ca.key')
    .option('--json', 'print what was made as JSON')
    .action((options: Options) => run(options));
}

async function run(options: Options): Promise<void> {
  const dir = resolve(options.out ?? join(options.dir, 'certs'));
  const machine = thisMachine();
  const names = unique([...(options.ip ?? []), ...(options.dns ?? []), ...environmentNames()]);
  const certificates = await ensureCertificates({
    dir,
    names,
    machineNames: names.length > 0 ? LOOPBACK_NAMES : machine.names,
    keyKind: options.key,
    days: options.days,
    caDays: options.caDays,
    nameConstraints: options.nameConstraints,
    force: options.force === true,
    passphrase: openingPassphrase(options),
    encryptWith: async () =>
      (await passphraseFromFile(options)) ?? (options.encryptKey ? newPassphrase(undefined) : undefined),
  });
  const hint = namesHint(certificates.server.names, machine);
  const clear = (options.encryptKey || options.passphraseFile) && (await isKeyEncrypted(dir)) === false;
  for (const warning of [
    ...certificates.warnings,
    ...(clear ? [`${join(dir, 'ca.key')} stays in the clear; to encrypt it: registry-secure certs passphrase`] : []),
    ...(hint ? [hint] : []),
  ])
    process.stderr.write(`registry-secure: warning: ${warning}\n`);
  process.stdout.write(
    options.json ? `${JSON.stringify(certificates, null, 2)}\n` : describe(certificates, nextCommand(options, dir)),
  );
  if (certificates.missing.length > 0)
    throw new OperatorError(`${certificates.server.certificate} does not cover ${certificates.missing.join(', ')}`, {
      fix: 'add --force to replace it; a copy is kept',
    });
}

function describe({ authority, server, anchor, rotation }: Certificates, next: string): string {
  const day = (date: Date) => date.toISOString().slice(0, 10);
  const lines: string[] = [];
  if (authority)
    lines.push(
      `${authority.certificate}  ${authority.action}: the certificate authority, ${authority.keyKind}, until ${day(authority.notAfter)}`,
      `  SHA-256 ${authority.fingerprint}`,
      `  signs for ${authority.nameConstraints?.permitted.join(', ') ?? 'any name: keep its key well'}`,
      `${authority.key}  ${authority.action}: its private key; whoever has it can sign for your registry`,
    );
  lines.push(
    `${server.certificate}  ${server.action}: the server certificate, ${server.keyKind}, until ${day(server.notAfter)}`,
    `  names ${server.names.join(', ') || '(none)'}`,
    ...(anchor?.path === server.certificate
      ? [`  SHA-256 ${anchor.fingerprint} (self-signed: clients install it as ca.crt)`]
      : []),
    `${server.key}  ${server.action}: its private key`,
    ...server.copies.map(copy => `${copy}  a copy of what was there`),
    ...(rotation
      ? [
          `a rotation runs until ${rotation.until.toISOString()}: ca.crt holds the new and the older authority; give it to every client`,
        ]
      : []),
    '',
    `next: ${next}`,
  );
  return `${lines.join('\n')}\n`;
}

function nextCommand({ dir, out }: Options, folder: string): string {
  if (out === undefined || folder === join(dir, 'certs'))
    return `registry-secure up${dir === process.cwd() ? '' : ` --dir ${quoted(dir)}`}`;
  return `registry-secure serve --certificate ${quoted(join(folder, 'domain.crt'))} --key ${quoted(join(folder, 'domain.key'))}`;
}
