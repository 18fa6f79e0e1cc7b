import type { Command } from 'commander';
import { OperatorError } from '../../errors.js';
import {
  type CertificateSummary,
  type FolderOverview,
  inspectFile,
  inspectFolder,
  type Problem,
} from '../../pki/overview.js';
import { addFolderOptions, certsFolder, constraintsText, day, type FolderOptions, print } from './options.js';

interface Options extends FolderOptions {
  readonly json?: true;
}

export function inspect(certs: Command): void {
  addFolderOptions(certs.command('inspect [file...]'))
    .summary('show certificates, when they are renewed, and what is wrong with them')
    .description(
      'Shows the authority, what it may sign for, the server certificate, a rotation that runs, when serve renews, and what is wrong; of a PEM file its certificates. Exit code 1 when a client would refuse it.',
    )
    .option('--json', 'print it as JSON')
    .action((files: readonly string[], options: Options) => run(files, options));
}

async function run(files: readonly string[], options: Options): Promise<void> {
  const problems: Problem[] = [];
  if (files.length === 0) {
    const overview = await inspectFolder(certsFolder(options));
    problems.push(...overview.problems);
    print(options.json, overview, [...folderText(overview), ...problemText(overview.problems)]);
  } else {
    const found = await Promise.all(files.map(file => inspectFile(file)));
    problems.push(...found.flatMap(one => one.problems));
    const text = found.map(({ file, chain, problems }) =>
      [file, ...chain.flatMap(one => certificateText(one)), ...problemText(problems)].join('\n'),
    );
    print(options.json, found, [text.join('\n\n')]);
  }
  const wrong = problems.filter(({ severity }) => severity === 'error').length;
  if (wrong > 0)
    throw new OperatorError(`${wrong === 1 ? 'one thing is' : `${wrong} things are`} wrong`, {
      fix: 'see above',
    });
}

function folderText(overview: FolderOverview): string[] {
  const { dir, authority, authorityKey, rotation, server, chain, renewal } = overview;
  const lines: string[] = [];
  if (authority) {
    const keys = {
      clear: `${dir}/ca.key, in the clear`,
      encrypted: `${dir}/ca.key, encrypted by a passphrase`,
      missing: 'not here: server certificates come by certs csr, certs sign and certs import',
    };
    lines.push(
      `Authority     ${dir}/ca.crt`,
      ...certificateText(authority),
      `  signs for   ${constraintsText(authority.nameConstraints)}`,
      `  its key     ${keys[authorityKey]}`,
    );
  }
  if (rotation) {
    lines.push(`Rotation      until ${rotation.until.toISOString()}; then the older authority is no longer good`);
    if (rotation.retiring)
      lines.push(
        ...certificateText(rotation.retiring),
        `  signs for   ${constraintsText(rotation.retiring.nameConstraints)}`,
      );
    if (rotation.waiting.length > 0) lines.push(`  then also   ${rotation.waiting.join(', ')}`);
  }
  if (server) {
    lines.push(`Server        ${dir}/domain.crt`, ...certificateText(server));
    for (const one of chain.slice(1)) lines.push(`  signed by   ${one.subject}, which ${one.issuer} vouches for`);
    lines.push(
      renewal
        ? authorityKey === 'missing'
          ? `Renewal       by hand, from ${day(renewal)} on: certs csr here, certs sign where ca.key is, certs import here`
          : `Renewal       by serve, on ${day(renewal)}`
        : 'Renewal       where it came from: it is not of the authority here',
    );
  }
  return lines;
}

function certificateText(one: CertificateSummary): string[] {
  return [
    `  subject     ${one.subject}`,
    ...(one.subject === one.issuer ? [] : [`  issuer      ${one.issuer}`]),
    `  key         ${one.keyKind}`,
    `  valid       ${day(one.notBefore)} to ${day(one.notAfter)}`,
    ...(one.names.length > 0 ? [`  names       ${one.names.join(', ')}`] : []),
    ...(one.authority && one.pathLength !== undefined ? [`  path length ${one.pathLength}`] : []),
    `  SHA-256     ${one.fingerprint}`,
  ];
}

function problemText(problems: readonly Problem[]): string[] {
  return problems.map(({ severity, message, fix }) => `${severity}: ${message}${fix ? `; ${fix}` : ''}`);
}
