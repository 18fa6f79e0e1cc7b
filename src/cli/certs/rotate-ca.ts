import { type Command, InvalidArgumentError, Option } from 'commander';
import { DEFAULT_CA_DAYS } from '../../pki/authority.js';
import { KEY_KINDS, type KeyKind } from '../../pki/keys.js';
import { finishRotation, type RotationReport, rotateAuthority } from '../../pki/rotation.js';
import { nameOptions, wholeNumber } from '../options.js';
import { openingPassphrase, type PassphraseOptions, passphraseOption } from '../passphrase.js';
import { addFolderOptions, certsFolder, day, type FolderOptions, print, warn } from './options.js';

const DAY = 86_400_000;

interface Options extends FolderOptions, PassphraseOptions {
  readonly overlap: number;
  readonly ip?: readonly string[];
  readonly dns?: readonly string[];
  readonly namesNow?: true;
  readonly caDays?: number;
  readonly key?: KeyKind;
  readonly finish?: true;
  readonly dryRun?: true;
  readonly json?: true;
}

export function rotateCa(certs: Command): void {
  const command = addFolderOptions(certs.command('rotate-ca'))
    .summary('change to a new authority, with a time in which clients may have either')
    .description(
      'Makes a new authority that the present one vouches for. Until the overlap ends, clients that have the present one, the new one or both all go on; in that time give them the new ca.crt, which holds both. New names of --ip and --dns, for which the present authority may not sign, come into the certificate when it ends.',
    )
    .addOption(
      new Option('--overlap <time>', 'how long clients may still have only the present authority, as 30d or 12h')
        .default(30 * DAY, '30d')
        .argParser(parseOverlap),
    );
  for (const option of nameOptions()) command.addOption(option);
  command
    .option('--names-now', 'put such names in at once; clients that have only the present authority then refuse it')
    .option('--ca-days <n>', `life of the new authority (default: ${DEFAULT_CA_DAYS})`, wholeNumber(1, 36_500))
    .addOption(new Option('--key <kind>', 'kind of the new keys (default: as they were)').choices(KEY_KINDS))
    .addOption(new Option('--finish', 'end the overlap now').conflicts(['overlap', 'ip', 'dns', 'namesNow', 'caDays']))
    .addOption(passphraseOption())
    .option('-d, --dry-run', 'say what would be done, and write nothing')
    .option('--json', 'print what was done as JSON')
    .action((options: Options) => (options.finish ? finish(options) : begin(options)));
}

function parseOverlap(text: string): number {
  const [, number, unit] = /^(\d{1,5})(d|h|m|s)$/.exec(text) ?? [];
  const milliseconds = Number(number) * { d: DAY, h: 3_600_000, m: 60_000, s: 1000 }[unit ?? 's']!;
  if (milliseconds > 0 && milliseconds <= 3650 * DAY) return milliseconds;
  throw new InvalidArgumentError('expected a time of at most ten years, such as 30d or 12h');
}

async function begin(options: Options): Promise<void> {
  const report = await rotateAuthority({
    dir: certsFolder(options),
    names: [...(options.ip ?? []), ...(options.dns ?? [])],
    overlap: options.overlap,
    namesNow: options.namesNow,
    caDays: options.caDays,
    keyKind: options.key,
    passphrase: openingPassphrase(options),
    dryRun: options.dryRun,
  });
  warn([
    ...report.warnings,
    ...(report.breaking.length > 0
      ? [
          `the certificate has ${report.breaking.join(', ')}: clients that have only the old authority refuse all of it from now on`,
        ]
      : []),
  ]);
  print(options.json, report, describe(report));
}

function describe({ dir, dryRun, authority, retiring, until, names, waiting, copies }: RotationReport): string[] {
  const oldKey = copies.find(copy => copy.includes('ca.key'));
  return [
    dryRun ? 'nothing was written; this would be done:' : 'the rotation has begun',
    '',
    `${dir}/ca.crt  both authorities, the new one first: install it on every client before ${until.toISOString()}`,
    ...(dryRun ? [] : [`  new  SHA-256 ${authority.fingerprint}, until ${day(authority.notAfter)}`]),
    `  old  SHA-256 ${retiring.fingerprint}, until ${day(retiring.notAfter)}`,
    `  one file for each, as system stores want them: registry-secure certs export`,
    `${dir}/domain.crt  of the new authority, which the old one vouches for until then`,
    `  names ${names.join(', ')}`,
    ...(waiting.length > 0
      ? [`  when the overlap ends also ${waiting.join(', ')}, which the old authority does not permit`]
      : []),
    ...copies.map(copy => `${copy}  a copy of what was there`),
    ...(oldKey
      ? [
          `  ${oldKey} is not needed any more. Whoever has it can still sign for clients that trust the old authority: destroy it when no client does (shred -u).`,
        ]
      : []),
    '',
    'A registry that serves takes this over within a second, and ends the overlap by itself when its time comes.',
    'To end it before: registry-secure certs rotate-ca --finish',
  ];
}

async function finish(options: Options): Promise<void> {
  const dir = certsFolder(options);
  const { dryRun = false } = options;
  const done = await finishRotation({ dir, keyKind: options.key, passphrase: openingPassphrase(options), dryRun });
  print(options.json, { dir, dryRun, ...done }, [
    dryRun ? 'nothing was written; this would be done:' : 'the rotation is over',
    `${dir}/ca.crt  the new authority alone: clients that have only the older one are refused`,
    `${dir}/domain.crt  names ${done.names.join(', ')}`,
    ...(done.added.length > 0 ? [`  new ${done.added.join(', ')}`] : []),
  ]);
}
