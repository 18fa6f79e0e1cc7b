import { join } from 'node:path';
import { type Command, Option } from 'commander';
import { newName } from '../../auth/htpasswd-edit.js';
import { loadConfig } from '../../config/load.js';
import { OperatorError } from '../../errors.js';
import { DEFAULT_DAYS } from '../../pki/authority.js';
import { readTrustAnchor } from '../../pki/certificates.js';
import {
  type AddedClient,
  addClient,
  type ClientStatus,
  DEFAULT_LIST_DAYS,
  listClients,
  reissueList,
  revokeClient,
} from '../../pki/clients.js';
import { REVOCATION_REASONS, type RevocationReason } from '../../pki/crl.js';
import { readPem } from '../../pki/inspect.js';
import { KEY_KINDS, type KeyKind } from '../../pki/keys.js';
import { checkPkcs12Password, PKCS12_KINDS, type Pkcs12Kind } from '../../pki/pkcs12.js';
import { renderTrust, trustInstructions } from '../../trust/instructions.js';
import { quoted } from '../../trust/shell.js';
import { wholeNumber } from '../options.js';
import { openingPassphrase, type PassphraseOptions, passphraseFromFile, passphraseOption } from '../passphrase.js';
import { type PasswordOptions, readPassword } from '../password.js';
import { usualHost } from '../usual-host.js';
import { addFolderOptions, certsFolder, day, type FolderOptions, print, warn } from './options.js';

interface Options extends FolderOptions, PassphraseOptions {
  readonly json?: true;
}

/** `certs client add|list|revoke|crl`: certificates by which clients show who they are. */
export function client(certs: Command): void {
  const group = certs.command('client').description('make, list and revoke client certificates');

  onFolder(group.command('add <name>'))
    .summary('make a certificate for a client')
    .description(
      'Makes a key and a certificate for a client, and at its first use the authority that signs them. A registry asks for them when http.tls.clientauth says so.',
    )
    .option('--days <n>', `life of the certificate (default: ${DEFAULT_DAYS})`, wholeNumber(1, 36_500))
    .addOption(new Option('--key <kind>', 'kind of the key').choices(KEY_KINDS).default('ec-p256'))
    .option('--out <folder>', 'where the files go (default: the folder clients in that of the certificates)')
    .option('--host <host[:port]>', 'the registry as image references name it (default: from its certificate)')
    .option('--renew', 'another one beside a certificate that is still valid')
    .addOption(
      new Option('--password-stdin', 'read the password of the PKCS#12 file from standard input').conflicts(
        'passwordFile',
      ),
    )
    .option('--password-file <file>', 'read it from a file (default: asked for on the terminal)')
    .addOption(
      new Option('--p12 <kind>', 'of the PKCS#12 file: compatible for older keychains, none to leave it out')
        .choices([...PKCS12_KINDS, 'none'])
        .default('modern'),
    )
    .action((name: string, options: AddOptions) => add(name, options));

  addFolderOptions(group.command('list'))
    .summary('list the client certificates')
    .option('--json', 'print them as JSON')
    .action(async (options: Options) => {
      const found = await listClients({ dir: clientFolder(options) });
      print(options.json, found, found.map(describe));
    });

  onFolder(group.command('revoke <name-or-serial>'))
    .summary('revoke the certificates of a client, for good')
    .description(
      'Revokes all certificates of a name, or the one with a serial number. A registry that serves closes their connections within a second, and accepts none any more.',
    )
    .addOption(new Option('--reason <reason>', 'as it stands in the list').choices(Object.keys(REVOCATION_REASONS)))
    .action(async (which: string, options: Options & { reason?: RevocationReason }) => {
      const revoked = await revokeClient({ ...signing(options), which, reason: options.reason });
      const lines = revoked.map(({ name, serial }) => `${JSON.stringify(name)} revoked, serial ${serial}`);
      print(options.json, revoked, lines);
    });

  onFolder(group.command('crl'))
    .summary('issue the list of revoked certificates anew')
    .description(
      'Signs the list anew. A registry that has the key does so by itself; where the key is kept elsewhere, do it there from time to time and bring it crl.pem.',
    )
    .option('--days <n>', `how long it is good (default: ${DEFAULT_LIST_DAYS})`, wholeNumber(1, 3650))
    .action(async (options: Options & { days?: number }) => {
      const { number, nextUpdate, revoked } = await reissueList({ ...signing(options), days: options.days });
      const report = {
        list: join(clientFolder(options), 'crl.pem'),
        number: `${number}`,
        nextUpdate,
        revoked: revoked.size,
      };
      print(options.json, report, [`${report.list}  until ${nextUpdate!.toISOString()}, ${revoked.size} revoked`]);
    });
}

function onFolder(command: Command): Command {
  return addFolderOptions(command).addOption(passphraseOption()).option('--json', 'print what was done as JSON');
}

const clientFolder = (options: FolderOptions): string => join(certsFolder(options), 'clients');

function signing(options: Options) {
  return {
    dir: clientFolder(options),
    passphrase: openingPassphrase(options),
    newPassphrase: () => passphraseFromFile(options),
  };
}

interface AddOptions extends Options, PasswordOptions {
  readonly days?: number;
  readonly key: KeyKind;
  readonly out?: string;
  readonly host?: string;
  readonly renew?: true;
  readonly p12: Pkcs12Kind | 'none';
}

async function add(given: string, options: AddOptions): Promise<void> {
  const name = newName(given, 'a client');
  const { p12: kind } = options;
  const password = kind === 'none' ? undefined : await pkcs12Password(name, options);
  if (password !== undefined) checkPkcs12Password(password);
  const added = await addClient({
    ...signing(options),
    name,
    days: options.days,
    keyKind: options.key,
    out: options.out,
    renew: options.renew,
    pkcs12: kind === 'none' || password === undefined ? undefined : { password, kind },
  });
  if (password === undefined && kind !== 'none')
    warn(['no PKCS#12 file was made: there is no password for it (--password-file FILE or --password-stdin)']);
  const { entry, ...files } = added;
  print(options.json, { ...entry, ...files }, [...describeAdded(added), '', ...(await installation(added, options))]);
}

/** Undefined where nobody was told one and nobody can be asked: most clients need no such file. */
async function pkcs12Password(name: string, options: AddOptions): Promise<string | undefined> {
  const given = options.passwordFile !== undefined || options.passwordStdin === true;
  if (!given && !process.stdin.isTTY) return undefined;
  return readPassword(options, [`Password for ${name}.p12: `, 'The same again: ']);
}

function describe({ name, serial, notAfter, state, revoked }: ClientStatus): string {
  const since = revoked ? ` on ${revoked.at.slice(0, 10)} (${revoked.reason})` : '';
  return `${JSON.stringify(name)}  ${state}${since}  until ${notAfter.slice(0, 10)}  serial ${serial}`;
}

function describeAdded({ entry, certificate, key, pkcs12, firstOfFolder }: AddedClient): string[] {
  return [
    ...(firstOfFolder ? ['the client authority was made'] : []),
    `${certificate}  of ${JSON.stringify(entry.name)}, ${entry.keyKind}, until ${day(new Date(entry.notAfter))}`,
    `  serial ${entry.serial}`,
    `${key}  its private key`,
    ...(pkcs12 ? [`${pkcs12}  both and the authority, for browsers and keychains, under the password`] : []),
  ];
}

/** What the client does with it, as a shell takes it: the same commands that `trust` prints, with the pair. */
async function installation({ certificate, key, pkcs12 }: AddedClient, options: AddOptions): Promise<string[]> {
  const found = await instructions({ certificate, key }, options);
  const pair = `--client-cert ${quoted(certificate)} --client-key ${quoted(key)}`;
  return [
    '# On the client, with the files at these places; on another machine at those that they have there:',
    ...(found ? [renderTrust(found)] : []),
    '# curl:',
    `curl --cacert ${found ? quoted(found.caFile) : 'ca.crt'} --cert ${quoted(certificate)} --key ${quoted(key)} https://${found?.host ?? 'HOST'}/v2/`,
    ...(pkcs12 ? [`#   or --cert-type P12 --cert ${quoted(pkcs12)}, which asks for the password`] : []),
    `# ${found ? 'Other' : 'All'} kinds of clients: registry-secure trust ${pair}`,
    '# For the registry, once: REGISTRY_HTTP_TLS_CLIENTAUTH=require-and-verify-client-cert',
  ];
}

/** Undefined where the server's certificate is none of ours, so that nobody here knows what its clients install. */
async function instructions(pair: { certificate: string; key: string }, { host, ...options }: AddOptions) {
  const { config } = loadConfig({ dir: options.dir, standardFiles: false, env: process.env });
  const server = config.http.tls.certificate ?? join(certsFolder(options), 'domain.crt');
  const anchor = await readTrustAnchor(server).catch(error => {
    if (error instanceof OperatorError) return undefined;
    throw error;
  });
  if (!anchor) return undefined;
  return trustInstructions({
    host: host ?? usualHost(config.http, anchor.names),
    caFile: anchor.path,
    pem: (await readPem(anchor.path)).toString('latin1'),
    clients: ['docker', 'podman', 'containerd'],
    pair,
  });
}
