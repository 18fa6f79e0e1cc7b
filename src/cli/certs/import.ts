import type { Command } from 'commander';
import { importCertificate } from '../../pki/elsewhere.js';
import { addFolderOptions, certsFolder, day, type FolderOptions, print, warn } from './options.js';

interface Options extends FolderOptions {
  readonly key?: string;
  readonly json?: true;
}

export function importCerts(certs: Command): void {
  addFolderOptions(certs.command('import <file...>'))
    .summary('take in a certificate that was signed elsewhere')
    .description(
      'Checks a certificate with its chain, in one file or several and in any order, and puts it into its place, together with the root of a private authority where there is one: clients install that. The key is domain.key, as certs csr made it, or that of --key. What is wrong is refused, and nothing is changed.',
    )
    .option('--key <file>', 'the private key of the certificate, in the clear (default: domain.key in the folder)')
    .option('--json', 'print what was done as JSON')
    .action(async (files: readonly string[], options: Options) => {
      const report = await importCertificate({ dir: certsFolder(options), files, key: options.key });
      warn(report.warnings);
      print(options.json, report, [
        `${report.certificate}  installed, until ${day(report.notAfter)}`,
        `  names ${report.names.join(', ')}`,
        ...report.chain.slice(1).map(subject => `  signed by ${subject}`),
        ...(report.anchor ? [`${report.anchor.path}  what clients install, SHA-256 ${report.anchor.fingerprint}`] : []),
        ...report.copies.map(copy => `${copy}  a copy of what was there`),
      ]);
    });
}
