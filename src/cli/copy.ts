import { setTimeout as pause } from 'node:timers/promises';
import { type Command, Option } from 'commander';
import { type CopiedImage, Copier, type CopyReport, type ImagePair } from '../copy/copy.js';
import type { ImageSource, ImageTarget } from '../copy/place.js';
import type { RegistryLogin } from '../copy/registry-client.js';
import { OperatorError } from '../errors.js';
import { type Glob, parseGlob } from '../glob.js';
import { isDigest } from '../reference.js';
import { roughSize } from '../size.js';
import { type Named, openSource, openTarget, parseNamed } from './copy-place.js';
import { authoritiesOf, keptLogin } from './logins.js';
import { dirOption, usage, wholeNumber } from './options.js';
import { readPassword } from './password.js';
import { Progress } from './progress.js';
import { timeSpan } from './times.js';

interface Options {
  readonly dir: string;
  readonly all?: boolean;
  readonly match?: readonly string[];
  readonly watch?: number | true;
  readonly jobs: number;
  readonly referrers: boolean;
  readonly ca?: string;
  readonly srcAs?: string;
  readonly srcPasswordFile?: string;
  readonly srcPlainHttp?: true;
  readonly dstAs?: string;
  readonly dstPasswordFile?: string;
  readonly dstPlainHttp?: true;
  readonly dryRun?: boolean;
  readonly json?: boolean;
}

/** How often a source is looked at that is watched (ms). */
const WATCH = 30_000;

/** `registry-secure copy`: images from one place to another, and whole registries, kept in step. */
export function copy(program: Command): void {
  const command = program
    .command('copy')
    .summary('copy images, or a whole registry, to another place')
    .description(
      'Copies images with their signatures: only what is missing, several layers at a time, each checked against its digest. A place is a registry, HOST[:PORT]/REPOSITORY:TAG, or where the data of one are, ./FOLDER#REPOSITORY:TAG or s3://BUCKET?region=REGION#REPOSITORY:TAG. Logins are those that docker and podman keep, unless told. Nothing is ever removed at the target.',
    )
    .argument('<from>', 'an image, a repository or a whole place')
    .argument('<to>', 'where to; without a repository the names stay as they are')
    .addOption(dirOption())
    .option('--all', 'all tags of the repository, or of all repositories')
    .option(
      '--match <pattern>',
      'only these of all: REPOSITORY or REPOSITORY:TAG, * for any characters but the slash, ** for any; repeat it for more',
      (value: string, before: string[] = []) => [...before, value],
    )
    .option('--watch [interval]', 'go on looking for what is new, every 30 s unless told, until Ctrl-C', value =>
      timeSpan(value),
    )
    .addOption(
      new Option('--jobs <number>', 'how many images and layers are copied at a time')
        .default(4)
        .argParser(wholeNumber(1, 64)),
    )
    .option('--no-referrers', 'leave behind signatures and whatever else refers to an image')
    .option('--ca <file>', 'authorities of either end, beside those of this machine and of docker')
    .option('--dry-run', 'copy nothing, and say what would be copied')
    .option('--json', 'print one JSON document for each round');
  for (const [end, what] of [
    ['src', 'the source'],
    ['dst', 'the target'],
  ] as const)
    command
      .option(`--${end}-as <user>`, `who to log in as at ${what}`)
      .option(`--${end}-password-file <file>`, `read the password for ${what} from a file`)
      .option(`--${end}-plain-http`, `${what} has no TLS: whoever is in between reads and changes what is copied`);
  command.action(async (from: string, to: string) => run(command.opts<Options>(), from, to));
}

async function run(options: Options, fromText: string, toText: string): Promise<void> {
  const from = parseNamed(fromText);
  const to = parseNamed(toText);
  const wanted = selection(options, from, fromText, to, toText);
  const { dryRun = false, watch } = options;
  const { dir } = options;
  const ca = [
    ...(await authoritiesOf({ dir })),
    ...(options.ca === undefined ? [] : await authoritiesOf({ dir, ca: options.ca })),
  ];
  const opening = (end: 'src' | 'dst') => ({
    ca,
    plain: options[`${end}PlainHttp`] === true,
    loginAt: (host: string) => loginFor(host, end, options),
  });
  for (const [end, { place }] of [
    ['src', from],
    ['dst', to],
  ] as const)
    if (options[`${end}PlainHttp`])
      process.stderr.write(
        `registry-secure: warning: ${place} is reached without TLS: whoever is in between can read and change what is copied, and reads the login\n`,
      );
  const source = await openSource(from, opening('src'));
  const target = await openTarget(to, opening('dst'), { dryRun });
  try {
    if (watch === undefined) {
      const report = await round(source, target, wanted(source), options);
      if (report.images.failed > 0) process.exitCode = 1;
      return;
    }
    for (;;) {
      // A registry that is away now is there again later.
      await round(source, target, wanted(source), options).catch((error: unknown) => {
        if (!(error instanceof OperatorError)) throw error;
        process.stderr.write(`registry-secure: ${error.message}; trying again\n`);
      });
      await pause(watch === true ? WATCH : watch);
    }
  } finally {
    await Promise.all([source.close(), target.close()]);
  }
}

/** One look at all that is wanted. In a watch only what has happened is told. */
async function round(
  source: ImageSource,
  target: ImageTarget,
  pairs: AsyncIterable<ImagePair>,
  { dryRun = false, json = false, watch, jobs, referrers }: Options,
): Promise<CopyReport> {
  const progress = new Progress('copy');
  const images: CopiedImage[] = [];
  const copier = new Copier(source, target, {
    jobs,
    dryRun,
    withoutReferrers: !referrers,
    onProgress: (done, total) => progress.update(done, total),
    onImage: done => {
      if (json) images.push(done);
      else if (done.outcome !== 'same') {
        progress.clear();
        (done.outcome === 'failed' ? process.stderr : process.stdout).write(`${line(done, dryRun)}\n`);
      }
    },
  });
  const report = await copier.run(pairs);
  progress.clear();
  const { seconds } = progress;
  const quiet = watch !== undefined && report.images.new + report.images.moved + report.images.failed === 0;
  if (json && !quiet)
    process.stdout.write(
      `${JSON.stringify({ from: source.name, to: target.name, dryRun, ...report, seconds: Number(seconds.toFixed(3)), list: images.map(described) }, undefined, 2)}\n`,
    );
  else if (!quiet) process.stdout.write(`${summary(report, seconds, dryRun)}\n`);
  return report;
}

function line({ pair, outcome, bytes, problem }: CopiedImage, dryRun: boolean): string {
  const { from, to } = pair;
  const name = nameOf(from.repository, from.reference);
  if (outcome === 'failed') return `registry-secure: ${name} was not copied: ${problem}`;
  const there = nameOf(to.repository, to.tag ?? from.reference);
  const what = `${name}${there === name ? '' : ` -> ${there}`}`;
  return `${what}: ${dryRun ? 'would be ' : ''}${outcome === 'new' ? 'copied' : 'moved'} (${roughSize(bytes)})`;
}

function described({ pair: { from, to }, outcome, digest, bytes, problem }: CopiedImage): object {
  return {
    from: nameOf(from.repository, from.reference),
    to: nameOf(to.repository, to.tag ?? from.reference),
    outcome,
    digest,
    bytes,
    problem,
  };
}

function nameOf(repository: string, reference: string): string {
  return `${repository}${isDigest(reference) ? '@' : ':'}${reference}`;
}

function summary({ images, blobs, bytes }: CopyReport, seconds: number, dryRun: boolean): string {
  const { new: fresh, moved, same, failed } = images;
  const how = dryRun
    ? 'nothing was copied'
    : `${blobs.copied} layers copied (${roughSize(bytes)}), ${blobs.mounted} mounted, ${blobs.present} there already, in ${seconds.toFixed(1)} s`;
  return `${fresh} new, ${moved} moved, ${same} the same, ${failed} failed: ${how}`;
}

/** What is to be copied, as the command line has it. @throws OperatorError where it does not say so */
function selection(
  { all = false, match = [] }: Options,
  from: Named,
  fromText: string,
  to: Named,
  toText: string,
): (source: ImageSource) => AsyncIterable<ImagePair> {
  const many = all || match.length > 0;
  const { repository, reference } = from;
  if (many && reference !== undefined)
    throw usage(`${JSON.stringify(fromText)} names one image, and --all and --match name more`);
  if (!many && (repository === undefined || reference === undefined))
    throw usage(
      `${JSON.stringify(fromText)} names ${repository === undefined ? 'no image' : 'no tag'}`,
      'add REPOSITORY:TAG, or copy all of it with --all',
    );
  if (many && to.reference !== undefined)
    throw usage(`${JSON.stringify(toText)} names one image, and many are to be copied`, 'leave out its tag');
  if (to.reference !== undefined && isDigest(to.reference))
    throw usage(`${JSON.stringify(toText)} names a digest`, 'a target has a tag, or nothing');
  if (
    from.kind === to.kind &&
    from.place === to.place &&
    (to.repository === undefined || to.repository === repository) &&
    (many || to.reference === undefined || to.reference === reference)
  )
    throw usage('both ends are the same');
  if (!many) {
    const tag = to.reference ?? (isDigest(reference!) ? undefined : reference);
    const pair = {
      from: { repository: repository!, reference: reference! },
      to: { repository: to.repository ?? repository!, tag },
    };
    return async function* () {
      yield pair;
    };
  }
  const patterns = match.map(parsePattern);
  // A repository goes to the one that is named; many of them go below it.
  const renamed = (name: string) =>
    to.repository === undefined ? name : repository === undefined ? `${to.repository}/${name}` : to.repository;
  return async function* (source) {
    const repositories = repository === undefined ? source.repositories() : [repository];
    for await (const name of repositories) {
      const mine = patterns.filter(pattern => pattern.repository(name));
      if (patterns.length > 0 && mine.length === 0) continue;
      for await (const tag of source.tags(name))
        if (patterns.length === 0 || mine.some(pattern => pattern.tag(tag)))
          yield { from: { repository: name, reference: tag }, to: { repository: renamed(name), tag } };
    }
  };
}

function parsePattern(text: string): { repository: Glob; tag: Glob } {
  const colon = text.indexOf(':');
  if (colon < 0) return { repository: parseGlob(text), tag: () => true };
  return { repository: parseGlob(text.slice(0, colon)), tag: parseGlob(text.slice(colon + 1)) };
}

/** Whom to log in as; undefined for nobody. */
async function loginFor(host: string, end: 'src' | 'dst', options: Options): Promise<RegistryLogin | undefined> {
  const { [`${end}As` as const]: user, [`${end}PasswordFile` as const]: passwordFile } = options;
  // Not everything takes a login, and what does will say so.
  if (user === undefined && passwordFile === undefined) return keptLogin(host);
  if (user === undefined) throw usage('a password is for a user', `name the user too: --${end}-as NAME`);
  if (passwordFile === undefined && !process.stdin.isTTY)
    throw new OperatorError(`there is no terminal to ask for the password of ${JSON.stringify(user)} on`, {
      fix: `name a file with --${end}-password-file`,
    });
  const asked = passwordFile === undefined ? {} : { passwordFile };
  return { user, password: await readPassword(asked, [`Password of ${JSON.stringify(user)} at ${host}: `]) };
}
