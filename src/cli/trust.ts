import { join } from 'node:path';
import type { Command } from 'commander';
import { loadConfig } from '../config/load.js';
import { parseAddress } from '../config/values.js';
import { readTrustAnchor } from '../pki/certificates.js';
import { readPem } from '../pki/inspect.js';
import { advertisedHost, thisMachine } from '../pki/machine.js';
import { covers, imageHost, parseImageHost } from '../pki/names.js';
import { renderTrust, trustInstructions } from '../trust/instructions.js';
import { USUAL_CLIENTS } from '../trust/table.js';
import { collect, dirOption } from './options.js';

interface Options {
  readonly dir: string;
  readonly host?: string;
  readonly client?: readonly string[];
  readonly json?: true;
}

export function trust(program: Command): void {
  program
    .command('trust')
    .summary('print how clients come to trust the registry')
    .description(
      `Prints the commands by which each kind of client trusts the registry. Kinds: ${USUAL_CLIENTS.map(({ name }) => name).join(', ')}.`,
    )
    .addOption(dirOption())
    .option('--host <host[:port]>', 'the registry as image references name it (default: from its certificate)')
    .option('--client <kind>', 'only this kind of client; repeat it for more', collect)
    .option('--json', 'print the instructions as JSON')
    .action((options: Options) => run(options));
}

async function run(options: Options): Promise<void> {
  const { config } = loadConfig({ dir: options.dir, standardFiles: false, env: process.env });
  const anchor = await readTrustAnchor(config.http.tls.certificate ?? join(options.dir, 'certs', 'domain.crt'));
  const host = options.host ?? usualHost(config.http, anchor.names);
  const instructions = trustInstructions({
    host,
    caFile: anchor.path,
    pem: (await readPem(anchor.path)).toString('latin1'),
    clients: options.client,
  });
  const { fingerprint } = anchor;
  if (!covers(anchor.names, parseImageHost(host).host))
    process.stderr.write(
      `registry-secure: warning: the certificate is not good for ${host}, only for ${anchor.names.join(', ')}\n`,
    );
  if (options.json) {
    process.stdout.write(`${JSON.stringify({ ...instructions, fingerprint }, null, 2)}\n`);
    return;
  }
  process.stdout.write(
    [
      `# The registry is ${instructions.host}. Clients trust it by ${anchor.path}`,
      `# SHA-256 ${fingerprint}`,
      '# On another machine: copy that file there first, and give the path that it has there.',
      '',
      renderTrust(instructions),
    ].join('\n'),
  );
}

/** The URL that the operator configured for clients; without one, the best name of the certificate and our own port. */
function usualHost(http: { readonly host: string; readonly addr: string }, names: readonly string[]): string {
  if (http.host !== '') return new URL(http.host).host;
  return imageHost(advertisedHost(names, thisMachine()), parseAddress(http.addr).port);
}
