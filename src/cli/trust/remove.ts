import { resolve } from 'node:path';
import type { Command } from 'commander';
import { parseFingerprint } from '../../trust/fetch.js';
import { clientsToLeave, remove } from '../../trust/install.js';
import { registryHost } from '../../trust/instructions.js';
import { THIS_MACHINE } from '../../trust/places.js';
import { collect } from '../options.js';
import { showReports } from './report.js';

interface Options {
  readonly fingerprint?: readonly string[];
  readonly client?: readonly string[];
  readonly all?: true;
  readonly pair?: true;
  readonly root: string;
  readonly dryRun?: true;
  readonly json?: true;
}

export function trustRemove(program: Command): void {
  program
    .command('remove')
    .summary('on a client: take back what trust install has done')
    .description(
      "On a client: removes the registry's authority from the folders that have the registry's name, and from the stores of the machine. What others have put there stays. Run it again at any time.",
    )
    .argument('<host>', 'HOST[:PORT] as image references name the registry')
    .option('--fingerprint <sha256>', 'only this certificate, and in stores this one too; repeat it for more', collect)
    .option('--client <kind>', 'only for this kind of client; repeat it for more', collect)
    .option('--all', 'also from the stores of browsers and languages')
    .option('--pair', 'remove the client certificate and its key as well')
    .option('--root <folder>', 'in the root of another system, such as an image', folder => resolve(folder), '/')
    .option('--dry-run', 'say what would be done')
    .option('--json', 'print what was done as JSON')
    .action((host: string, options: Options) => run(host, options));
}

async function run(given: string, options: Options): Promise<void> {
  const host = registryHost(given);
  const machine = { ...THIS_MACHINE, root: options.root };
  const clients = clientsToLeave({ clients: options.client, all: options.all, machine });
  const dryRun = options.dryRun === true;
  const reports = await remove(clients, {
    host,
    fingerprints: (options.fingerprint ?? []).map(parseFingerprint),
    withPair: options.pair === true,
    machine,
    dryRun,
  });
  const head = reports.length === 0 ? [`Nothing of ${host} is installed here.`] : [];
  showReports(reports, { host, dryRun, json: options.json === true, head, more: {} });
}
