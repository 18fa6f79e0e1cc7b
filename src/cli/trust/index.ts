import { join } from 'node:path';
import type { Command } from 'commander';
import { loadConfig } from '../../config/load.js';
import { OperatorError } from '../../errors.js';
import { readTrustAnchor } from '../../pki/certificates.js';
import { readPem } from '../../pki/inspect.js';
import { covers, parseImageHost } from '../../pki/names.js';
import { DEFAULT_IMAGE, renderTrust, type TrustInstructions, trustInstructions } from '../../trust/instructions.js';
import { USUAL_CLIENTS } from '../../trust/table.js';
import { collect, dirOption } from '../options.js';
import { usualHost } from '../usual-host.js';
import { trustInstall } from './install.js';
import { trustRemove } from './remove.js';

interface Options {
  readonly dir: string;
  readonly client?: readonly string[];
  readonly clientCert?: string;
  readonly clientKey?: string;
  readonly image: string;
  readonly json?: true;
}

export function trust(program: Command): void {
  const command = program
    .command('trust')
    .summary('say how clients come to trust the registry, ready to be pasted')
    .description(
      `Prints the commands by which each kind of client trusts the registry, beginning with a line that fetches its authority and checks it. Kinds: ${USUAL_CLIENTS.map(({ name }) => name).join(', ')}.`,
    )
    .argument('[host]', 'HOST[:PORT] as image references name the registry (default: from its certificate)')
    .addOption(dirOption())
    .option('--client <kind>', 'only this kind of client; repeat it for more', collect)
    .option('--client-cert <file>', 'where the client has its own certificate, if the registry asks for one')
    .option('--client-key <file>', 'where it has the key of that')
    .option('--image <reference>', 'for the nodes of Kubernetes: an image that has a shell', DEFAULT_IMAGE)
    .option('--json', 'print the instructions as JSON')
    .action((host: string | undefined, options: Options) => run(host, options));
  trustInstall(command);
  trustRemove(command);
}

async function run(given: string | undefined, options: Options): Promise<void> {
  const { config } = loadConfig({ dir: options.dir, standardFiles: false, env: process.env });
  const anchor = await readTrustAnchor(config.http.tls.certificate ?? join(options.dir, 'certs', 'domain.crt'));
  const host = given ?? usualHost(config.http, anchor.names);
  const instructions = trustInstructions({
    host,
    caFile: anchor.path,
    pem: (await readPem(anchor.path)).toString('latin1'),
    clients: options.client,
    pair: pairOf(options),
    prefix: config.http.prefix.replace(/\/$/, ''),
    image: options.image,
  });
  if (!covers(anchor.names, parseImageHost(host).host))
    process.stderr.write(
      `registry-secure: warning: the certificate is not good for ${host}, only for ${anchor.names.join(', ')}\n`,
    );
  process.stdout.write(options.json ? `${JSON.stringify(instructions, null, 2)}\n` : text(instructions));
}

/** The two options that stand for one thing. @throws OperatorError for one without the other. */
export function pairOf({ clientCert, clientKey }: Pick<Options, 'clientCert' | 'clientKey'>) {
  if (clientCert === undefined && clientKey === undefined) return undefined;
  if (clientCert !== undefined && clientKey !== undefined) return { certificate: clientCert, key: clientKey };
  throw new OperatorError('a client certificate needs its key, and a key its certificate', {
    fix: 'give both --client-cert and --client-key',
  });
}

function text(instructions: TrustInstructions): string {
  const { host, caFile, url, sha256, fingerprints, clients } = instructions;
  const [first] = clients;
  return [
    `# The registry is ${host}. Clients trust it by ${caFile}, which it hands out at ${url}.`,
    `# SHA-256 of the file: ${sha256}`,
    ...fingerprints.map(one => `# SHA-256 of the certificate in it: ${one}`),
    '#',
    `# On another machine that has nothing of it yet, one line (${first!.title}; --client KIND for another):`,
    first!.line,
    '#',
    '# The same where this program is there too, for all clients of that machine:',
    `# registry-secure trust install ${host} --fingerprint ${sha256}`,
    '#',
    '# By hand, with the file at this place; on another machine at the place that it has there:',
    '',
    renderTrust(instructions),
  ].join('\n');
}
