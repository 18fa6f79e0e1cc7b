import { type Command, Option } from 'commander';
import { DEFAULT_DAYS } from '../../pki/authority.js';
import { KEY_KINDS, type KeyKind } from '../../pki/keys.js';
import { renewNow } from '../../pki/renewal.js';
import { nameOptions, wholeNumber } from '../options.js';
import { openingPassphrase, type PassphraseOptions, passphraseOption } from '../passphrase.js';
import { addFolderOptions, certsFolder, day, type FolderOptions, print } from './options.js';

interface Options extends FolderOptions, PassphraseOptions {
  readonly ip?: readonly string[];
  readonly dns?: readonly string[];
  readonly days?: number;
  readonly key?: KeyKind;
  readonly dryRun?: true;
  readonly json?: true;
}

export function renew(certs: Command): void {
  const command = addFolderOptions(certs.command('renew'))
    .summary('renew the server certificate now')
    .description(
      'Issues the server certificate anew, with the names that it has and those given here. Clients notice nothing, and a registry that serves takes it over within a second. It does this by itself at two thirds of the life.',
    );
  for (const option of nameOptions()) command.addOption(option);
  command
    .option('--days <n>', `its life (default: ${DEFAULT_DAYS})`, wholeNumber(1, 36_500))
    .addOption(new Option('--key <kind>', 'kind of its new key (default: as it was)').choices(KEY_KINDS))
    .addOption(passphraseOption())
    .option('-d, --dry-run', 'issue it, and write nothing')
    .option('--json', 'print what was done as JSON')
    .action(async (options: Options) => {
      const dir = certsFolder(options);
      const { dryRun = false } = options;
      const done = await renewNow({
        dir,
        names: [...(options.ip ?? []), ...(options.dns ?? [])],
        days: options.days,
        keyKind: options.key,
        passphrase: openingPassphrase(options),
        dryRun,
      });
      print(options.json, { dir, dryRun, ...done }, [
        ...(done.finished ? ['the rotation is over: the older authority has left ca.crt'] : []),
        `${dryRun ? 'would be issued' : 'issued'}: ${done.keyKind}, until ${day(done.notAfter)}`,
        `  names ${done.names.join(', ')}`,
        ...(dryRun ? ['nothing was written'] : [`  SHA-256 ${done.fingerprint}`]),
      ]);
    });
}
