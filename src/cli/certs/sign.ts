import { open } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { Command } from 'commander';
import { OperatorError, systemCode } from '../../errors.js';
import { checkDays, DEFAULT_DAYS } from '../../pki/authority.js';
import { signRequestFile } from '../../pki/elsewhere.js';
import { wholeNumber } from '../options.js';
import { openingPassphrase, type PassphraseOptions, passphraseOption } from '../passphrase.js';
import { addFolderOptions, certsFolder, day, type FolderOptions, print } from './options.js';

interface Options extends FolderOptions, PassphraseOptions {
  readonly days?: number;
  readonly out?: string;
  readonly json?: true;
}

export function sign(certs: Command): void {
  addFolderOptions(certs.command('sign <csr>'))
    .summary('sign a request of a server elsewhere')
    .description(
      'Signs a certificate request with the authority in the folder, for the names in its subject alternative name: look at them before you hand the certificate out. Nothing else that the request asks for is taken over. What is written also holds the authority, so that the server can take it in with certs import.',
    )
    .option('--days <n>', `life of the certificate (default: ${DEFAULT_DAYS})`, wholeNumber(1, 36_500))
    .option('--out <file>', 'where it goes; - is standard output (default: beside the request, as NAME.signed.crt)')
    .addOption(passphraseOption())
    .option('--json', 'print what was done as JSON')
    .action(async (request: string, options: Options) => {
      const out =
        options.out ?? join(dirname(request), `${basename(request).replace(/\.(csr|pem|req)$/, '')}.signed.crt`);
      if (options.days !== undefined) checkDays(options.days);
      const { pem, names, notAfter } = await signRequestFile({
        dir: certsFolder(options),
        request,
        days: options.days,
        passphrase: openingPassphrase(options),
      });
      if (out === '-') {
        process.stdout.write(pem);
        return;
      }
      await create(out, pem);
      print(options.json, { certificate: out, names, notAfter }, [
        `${out}  signed, until ${day(notAfter)}; with the authority`,
        `  names ${names.join(', ')}`,
        `next, copied to the server: registry-secure certs import ${basename(out)}`,
      ]);
    });
}

async function create(path: string, content: string): Promise<void> {
  const file = await open(path, 'wx', 0o644).catch(cause => {
    const there = systemCode(cause) === 'EEXIST';
    throw new OperatorError(`${path} ${there ? 'is there already' : `cannot be made (${systemCode(cause)})`}`, {
      fix: there ? 'remove it, or give another path with --out' : 'give another path with --out',
      cause,
    });
  });
  await file.writeFile(content).finally(() => file.close());
}
