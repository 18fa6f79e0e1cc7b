import { basename } from 'node:path';
import { type Command, Option } from 'commander';
import { makeRequest } from '../../pki/elsewhere.js';
import { KEY_KINDS, type KeyKind } from '../../pki/keys.js';
import { thisMachine } from '../../pki/machine.js';
import { environmentNames } from '../../pki/names.js';
import { nameOptions } from '../options.js';
import { addFolderOptions, certsFolder, type FolderOptions, folderArguments, print } from './options.js';

interface Options extends FolderOptions {
  readonly ip?: readonly string[];
  readonly dns?: readonly string[];
  readonly key?: KeyKind;
  readonly json?: true;
}

export function csr(certs: Command): void {
  const command = addFolderOptions(certs.command('csr'))
    .summary('ask an authority elsewhere for a server certificate')
    .description(
      'Writes domain.csr, a request for the key domain.key, which is made where it is missing and never leaves this machine. An authority signs it (here: certs sign); certs import takes in what comes back. Names: those given and those of the present certificate, else those of this machine.',
    );
  for (const option of nameOptions()) command.addOption(option);
  command
    .addOption(new Option('--key <kind>', 'kind of a key that is made now (default: ec-p256)').choices(KEY_KINDS))
    .option('--json', 'print what was done as JSON')
    .action(async (options: Options) => {
      const report = await makeRequest({
        dir: certsFolder(options),
        names: [...(options.ip ?? []), ...(options.dns ?? []), ...environmentNames()],
        machineNames: thisMachine().names,
        keyKind: options.key,
      });
      print(options.json, report, [
        `${report.key}  ${report.keyAction}: the private key, ${report.keyKind}; it stays here`,
        `${report.request}  the request`,
        `  names ${report.names.join(', ')}`,
        '',
        'next: copy the request to where the authority is, and there:',
        `      registry-secure certs sign ${basename(report.request)}`,
        'then copy what it writes to here, and here:',
        `      registry-secure certs import ${folderArguments(options)}domain.signed.crt`,
      ]);
    });
}
