import { type Command, Option } from 'commander';
import { changePassphrase } from '../../pki/passphrase.js';
import { newPassphrase, openingPassphrase, type PassphraseOptions, passphraseOption } from '../passphrase.js';
import { addFolderOptions, certsFolder, type FolderOptions, print } from './options.js';

interface Options extends FolderOptions, PassphraseOptions {
  readonly newPassphraseFile?: string;
  readonly remove?: true;
  readonly json?: true;
}

export function passphrase(certs: Command): void {
  addFolderOptions(certs.command('passphrase'))
    .summary("encrypt the authority's key by a passphrase, change it, or remove it")
    .description(
      'Encrypts ca.key, encrypts it by another passphrase, or with --remove leaves it in the clear. A registry that is to renew its certificate by itself has to be given the passphrase.',
    )
    .addOption(passphraseOption())
    .option('--new-passphrase-file <file>', 'the new passphrase (default: asked for on the terminal)')
    .addOption(new Option('--remove', 'decrypt the key').conflicts('newPassphraseFile'))
    .option('--json', 'print what was done as JSON')
    .action(async (options: Options) => {
      const next = options.remove ? undefined : await newPassphrase(options.newPassphraseFile);
      const report = await changePassphrase(certsFolder(options), openingPassphrase(options), next);
      print(options.json, { ...report, encrypted: !options.remove }, [
        `${report.key}  ${options.remove ? 'in the clear' : 'encrypted by the new passphrase'}`,
        ...report.copies.map(copy => `${copy}  stays as it is`),
        ...(options.remove
          ? []
          : [
              'for serve and up: --passphrase-file FILE, or REGISTRY_SECURE_CA_PASSPHRASE_FILE=FILE; a backup may still hold the key as it was',
            ]),
      ]);
    });
}
