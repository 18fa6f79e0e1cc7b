import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { OperatorError } from '../../errors.js';
import { certificatePem } from '../../pki/issue.js';
import { readAuthorities } from '../../pki/overview.js';
import { addFolderOptions, certsFolder, day, type FolderOptions, print } from './options.js';

interface Options extends FolderOptions {
  readonly out: string;
  readonly format: 'pem' | 'der' | 'bundle';
  readonly json?: true;
}

export function exportCerts(certs: Command): void {
  addFolderOptions(certs.command('export'))
    .summary('write what clients install, one file for each authority')
    .description(
      'Writes the certificates of ca.crt for clients, never a key. pem and der: one file for each authority, named by its SHA-256, as the stores of systems want them. bundle: all in one file, as docker, containerd and podman take it.',
    )
    .option('--out <folder>', 'where the files go; - is standard output', '.')
    .addOption(new Option('--format <format>', 'of the files').choices(['pem', 'der', 'bundle']).default('pem'))
    .option('--json', 'print what was written as JSON')
    .action((options: Options) => run(options));
}

async function run(options: Options): Promise<void> {
  const authorities = await readAuthorities(certsFolder(options));
  const contents =
    options.format === 'bundle'
      ? [Buffer.from(authorities.map(certificatePem).join(''))]
      : authorities.map(one => (options.format === 'der' ? one.raw : Buffer.from(certificatePem(one))));
  if (options.out === '-') {
    if (options.format === 'der' && contents.length > 1)
      throw new OperatorError('there are two authorities during a rotation, and a DER file holds one', {
        fix: 'give a folder with --out, or use --format bundle',
      });
    process.stdout.write(Buffer.concat(contents));
    return;
  }
  const folder = resolve(options.out);
  const files = contents.map((content, at) => {
    const { fingerprint256, validTo } = authorities[at]!;
    const name = `registry-secure-ca-${fingerprint256.replaceAll(':', '').slice(0, 8).toLowerCase()}`;
    const file = options.format === 'bundle' ? 'ca-bundle.crt' : `${name}.${options.format === 'der' ? 'cer' : 'crt'}`;
    return { path: join(folder, file), content, fingerprint: fingerprint256, notAfter: new Date(validTo) };
  });
  await mkdir(folder, { recursive: true });
  for (const { path, content } of files) await write(path, content, options.format === 'bundle');
  print(
    options.json,
    files.map(({ content, ...file }) => file),
    files.map(({ path, fingerprint, notAfter }) => `${path}  until ${day(notAfter)}, SHA-256 ${fingerprint}`),
  );
}

/** What another program keeps under such a name is not ours to replace; a bundle is written anew in each rotation. */
async function write(path: string, content: Buffer, replace: boolean): Promise<void> {
  const before = await readFile(path).catch(() => undefined);
  if (before?.equals(content)) return;
  if (before && !(replace && before.includes('-----BEGIN CERTIFICATE-----')))
    throw new OperatorError(`${path} is there, and it is something else`, { fix: 'give another folder with --out' });
  await writeFile(path, content, { mode: 0o644 }).catch(cause => {
    throw new OperatorError(`${path} cannot be written (${cause.code})`, {
      fix: 'give another folder with --out',
      cause,
    });
  });
}
