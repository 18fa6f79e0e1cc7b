import { resolve } from 'node:path';
import type { Command } from 'commander';
import { OperatorError } from '../../errors.js';
import { readPem } from '../../pki/inspect.js';
import { certificatePem } from '../../pki/issue.js';
import {
  fetchAuthorities,
  ignoredProxy,
  type Pair,
  parseFingerprint,
  pinned,
  proveHandshake,
} from '../../trust/fetch.js';
import { chosenClients, install } from '../../trust/install.js';
import { registryHost } from '../../trust/instructions.js';
import { THIS_MACHINE } from '../../trust/places.js';
import { collect } from '../options.js';
import { pairOf } from './index.js';
import { showReports } from './report.js';

interface Options {
  readonly fingerprint: readonly string[];
  readonly client?: readonly string[];
  readonly all?: true;
  readonly ca?: string;
  readonly offline?: true;
  readonly clientCert?: string;
  readonly clientKey?: string;
  readonly root: string;
  readonly dryRun?: true;
  readonly json?: true;
}

export function trustInstall(program: Command): void {
  program
    .command('install')
    .summary('on a client: fetch, check and install the authority for what is there')
    .description(
      'On a client: fetches https://HOST/ca.crt without trusting it, goes on only if every certificate in it has the fingerprint, proves by a handshake that it is the right one, and installs it for the clients that are there. Run it again at any time.',
    )
    .argument('<host>', 'HOST[:PORT] as image references name the registry')
    .requiredOption(
      '--fingerprint <sha256>',
      'of the whole file, or of a certificate in it; repeat it for more',
      collect,
    )
    .option('--client <kind>', 'for this kind of client, present or not; repeat it for more', collect)
    .option('--all', 'also for the stores of the whole machine, of browsers and of languages')
    .option('--ca <file>', 'take the authority from a file instead of fetching it')
    .option('--offline', 'with --ca: do without the handshake, where the registry cannot be reached')
    .option('--client-cert <file>', 'install this client certificate too')
    .option('--client-key <file>', 'and its key')
    .option(
      '--root <folder>',
      'install into the root of another system, such as an image',
      folder => resolve(folder),
      '/',
    )
    .option('--dry-run', 'check everything, and say what would be done')
    .option('--json', 'print what was done as JSON')
    .action((host: string, options: Options) => run(host, options));
}

async function run(given: string, options: Options): Promise<void> {
  const host = registryHost(given);
  const pins = options.fingerprint.map(parseFingerprint);
  if (options.offline && options.ca === undefined)
    throw new OperatorError('--offline needs the authority in a file', { fix: 'give it with --ca FILE' });
  const machine = { ...THIS_MACHINE, root: options.root };
  const clients = chosenClients({ clients: options.client, all: options.all, machine });
  if (clients.length === 0)
    throw new OperatorError('no client was found that could be made to trust the registry', {
      fix: 'name one with --client KIND; registry-secure trust --help lists them',
    });
  const proxy = options.offline ? undefined : ignoredProxy(process.env);
  if (proxy) process.stderr.write(`registry-secure: note: ${proxy} is not used here, ${host} is asked directly\n`);

  const pair = await readPair(options);
  const source = options.ca ?? `https://${host}/ca.crt`;
  const file =
    options.ca === undefined ? await fetchAuthorities(host, pair) : (await readPem(options.ca)).toString('latin1');
  const certificates = pinned(file, pins, source);
  // Only what was compared goes on: OpenSSL also reads blocks of a PEM file that are no certificate to us.
  const pem = certificates.map(certificatePem).join('');
  // Before anything is written: an authority that does not help is not left behind.
  const proven = options.offline ? undefined : await proveHandshake(host, pem, pair);
  const dryRun = options.dryRun === true;
  const reports = await install(clients, { host, pem, pair, machine, dryRun });
  showReports(reports, {
    host,
    dryRun,
    json: options.json === true,
    head: [
      ...certificates.map(({ fingerprint256 }) => `SHA-256 ${fingerprint256}: as expected`),
      proven
        ? `Handshake with just this: works, the server's certificate is good until ${proven.toISOString().slice(0, 10)}`
        : 'Handshake: left out (--offline)',
    ],
    more: { fingerprints: certificates.map(({ fingerprint256 }) => fingerprint256), verified: proven !== undefined },
  });
}

async function readPair(options: Options): Promise<Pair | undefined> {
  const files = pairOf(options);
  return files && { certificate: await readPem(files.certificate), key: await readPem(files.key) };
}
