import { setTimeout as pause } from 'node:timers/promises';
import { type CopiedImage, Copier, type CopyReport, type ImagePair } from '../copy/copy.js';
import type { ImageSource, ImageTarget, OnlyImage } from '../copy/place.js';
import { type RegistryLogin, Unanswered } from '../copy/registry-client.js';
import { OperatorError } from '../errors.js';
import { type Glob, parseGlob } from '../glob.js';
import { isDigest } from '../reference.js';
import { roughSize } from '../size.js';
import { type Named, type Opening, openSource, openTarget } from './copy-place.js';
import { authoritiesOf, keptLogin } from './logins.js';
import { usage } from './options.js';
import { readPassword } from './password.js';
import { Progress } from './progress.js';

/** How registries are reached at either end. */
interface LoginOptions {
  readonly dir: string;
  readonly ca?: string;
  readonly srcAs?: string;
  readonly srcPasswordFile?: string;
  readonly srcPlainHttp?: true;
  readonly dstAs?: string;
  readonly dstPasswordFile?: string;
  readonly dstPlainHttp?: true;
}

export interface CopyRunOptions extends LoginOptions {
  readonly all?: boolean;
  readonly match?: readonly string[];
  readonly watch?: number | true;
  readonly jobs: number;
  readonly referrers?: boolean;
  readonly dryRun?: boolean;
  readonly json?: boolean;
}

/** One end as it was written, and what that means. */
export interface End {
  readonly text: string;
  readonly named: Named;
}

/** A repository whose tags the place does not list. */
export interface Unlisted {
  readonly repository: string;
  readonly problem: string;
}

/** Images by repository and tag; what keeps one of many repositories from being listed is told. */
type Selection = (source: ImageSource, onUnlisted: (unlisted: Unlisted) => void) => AsyncIterable<ImagePair>;

/** How often a source is looked at that is watched (ms). */
const WATCH = 30_000;

/** Copies what is wanted, and says what it does. Sets the exit code where an image was not copied. @throws OperatorError */
export async function runCopy(options: CopyRunOptions, from: End, to: End): Promise<void> {
  const wanted = selection(options, from, to);
  const source = await openSource(from.named, await openingOf(options, 'src', from));
  try {
    const opening = await openingOf(options, 'dst', to);
    const target = await openTarget(to.named, opening, { dryRun: options.dryRun === true });
    try {
      await rounds(source, target, wanted, options);
    } finally {
      await target.close();
    }
  } finally {
    await source.close();
  }
}

/** How one end is reached, if it is a registry. */
export async function openingOf(options: LoginOptions, end: 'src' | 'dst', { named }: End): Promise<Opening> {
  const { dir, ca } = options;
  const plain = options[`${end}PlainHttp`] === true;
  if (plain)
    process.stderr.write(
      `registry-secure: warning: ${named.place} is reached without TLS: whoever is in between can read and change what is copied, and reads the login\n`,
    );
  return {
    ca: [...(await authoritiesOf({ dir })), ...(ca === undefined ? [] : await authoritiesOf({ dir, ca }))],
    plain,
    loginAt: (host: string) => loginFor(host, end, options),
  };
}

async function rounds(
  source: ImageSource,
  target: ImageTarget,
  wanted: Selection,
  options: CopyRunOptions,
): Promise<void> {
  const { watch } = options;
  if (watch === undefined) {
    if (!(await round(source, target, wanted, options))) process.exitCode = 1;
    return;
  }
  const told = new Map<string, string>();
  for (;;) {
    // A registry that is away now is there again later.
    await round(source, target, wanted, options, told).catch((error: unknown) => {
      if (!(error instanceof OperatorError)) throw error;
      process.stderr.write(`registry-secure: ${error.message}; trying again\n`);
    });
    await pause(watch === true ? WATCH : watch);
  }
}

/**
 * One look at all that is wanted. In a watch only what has happened is told.
 * @param told why a repository was not listed, as it was told before
 * @returns whether all of it is there now
 */
async function round(
  source: ImageSource,
  target: ImageTarget,
  wanted: Selection,
  { dryRun = false, json = false, watch, jobs, referrers = true }: CopyRunOptions,
  told: Map<string, string> = new Map(),
): Promise<boolean> {
  const start = performance.now();
  // From the first byte on: what was prepared before says nothing of how fast they come.
  let progress: Progress | undefined;
  const images: CopiedImage[] = [];
  const unlisted: Unlisted[] = [];
  let news = 0;
  const copier = new Copier(source, target, {
    jobs,
    dryRun,
    withoutReferrers: !referrers,
    onProgress: (done, total) => {
      progress ??= new Progress('copy');
      progress.update(done, total);
    },
    onImage: done => {
      if (json) images.push(done);
      else if (done.outcome !== 'same') {
        progress?.clear();
        (done.outcome === 'failed' ? process.stderr : process.stdout).write(`${line(done, dryRun)}\n`);
      }
    },
  });
  const pairs = wanted(source, found => {
    unlisted.push(found);
    if (told.get(found.repository) === found.problem) return;
    told.set(found.repository, found.problem);
    news++;
    if (json) return;
    progress?.clear();
    process.stderr.write(`registry-secure: ${found.repository} was not copied: ${found.problem}\n`);
  });
  const report = await copier.run(pairs);
  progress?.clear();
  const seconds = (performance.now() - start) / 1000;
  const { new: fresh, moved, failed } = report.images;
  const quiet = watch !== undefined && fresh + moved + failed + news === 0;
  if (json && !quiet)
    process.stdout.write(
      `${JSON.stringify({ from: source.name, to: target.name, dryRun, ...report, seconds: Number(seconds.toFixed(3)), list: images.map(described), unlisted }, undefined, 2)}\n`,
    );
  else if (!quiet) process.stdout.write(`${summary(report, unlisted.length, seconds, dryRun)}\n`);
  return failed + unlisted.length === 0;
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

function summary({ images, blobs, bytes }: CopyReport, unlisted: number, seconds: number, dryRun: boolean): string {
  const { new: fresh, moved, same, failed } = images;
  const how = dryRun
    ? 'nothing was copied'
    : `${blobs.copied} layers copied (${roughSize(bytes)}), ${blobs.mounted} mounted, ${blobs.present} there already, in ${seconds.toFixed(1)} s`;
  const left = unlisted === 0 ? '' : `, ${unlisted} ${unlisted === 1 ? 'repository' : 'repositories'} not listed`;
  return `${fresh} new, ${moved} moved, ${same} the same, ${failed} failed${left}: ${how}`;
}

/** What is to be copied, as the command line has it. @throws OperatorError where it does not say so */
function selection(
  { all = false, match = [] }: CopyRunOptions,
  { named: from, text: fromText }: End,
  { named: to, text: toText }: End,
): Selection {
  const many = all || match.length > 0;
  const { repository, reference } = from;
  const mayHaveOne = from.kind === 'archive' || from.kind === 'layout' || from.kind === 'folder';
  if (many && reference !== undefined)
    throw usage(`${JSON.stringify(fromText)} names one image, and --all and --match name more`);
  if (!many && reference === undefined && !(repository === undefined && mayHaveOne))
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
  if (!many)
    return async function* (source) {
      // In an archive there usually is no other.
      const only = repository === undefined ? await onlyIn(source, fromText) : undefined;
      const found = only?.reference ?? reference!;
      const target = to.repository ?? repository ?? only?.repository;
      if (target === undefined)
        throw usage(
          `the image in ${JSON.stringify(fromText)} has no name there`,
          `name one at the target, as in ${toText}${to.kind === 'registry' ? '/' : '#'}team/app:v1`,
        );
      yield {
        from: { repository: repository ?? only?.repository ?? '', reference: found },
        to: { repository: target, tag: to.reference ?? (isDigest(found) ? undefined : found) },
      };
    };
  const patterns = match.map(parsePattern);
  // A repository goes to the one that is named; many of them go below it.
  const renamed = (name: string) =>
    to.repository === undefined ? name : repository === undefined ? `${to.repository}/${name}` : to.repository;
  return async function* (source, onUnlisted) {
    const repositories = repository === undefined ? source.repositories() : [repository];
    for await (const name of repositories) {
      const mine = patterns.filter(pattern => pattern.repository(name));
      if (patterns.length > 0 && mine.length === 0) continue;
      const tags = repository === undefined ? tagsOfOne(source, name, onUnlisted) : source.tags(name);
      for await (const tag of tags)
        if (patterns.length === 0 || mine.some(pattern => pattern.tag(tag)))
          yield { from: { repository: name, reference: tag }, to: { repository: renamed(name), tag } };
    }
  };
}

/** The tags of one of many repositories. That a registry does not list them is no reason to leave out the others. */
export async function* tagsOfOne(
  source: ImageSource,
  repository: string,
  onUnlisted: (unlisted: Unlisted) => void,
): AsyncGenerator<string> {
  try {
    yield* source.tags(repository);
  } catch (error) {
    // One that does not answer at all would not answer for the others either.
    if (!(error instanceof Unanswered) || error.status === undefined || error.isPassing) throw error;
    onUnlisted({ repository, problem: error.fix === undefined ? error.message : `${error.message}; ${error.fix}` });
  }
}

async function onlyIn(source: ImageSource, text: string): Promise<OnlyImage> {
  if (source.only) return source.only();
  throw usage(`${JSON.stringify(text)} names no image`, 'add REPOSITORY:TAG, or copy all of it with --all');
}

function parsePattern(text: string): { repository: Glob; tag: Glob } {
  const colon = text.indexOf(':');
  if (colon < 0) return { repository: parseGlob(text), tag: () => true };
  return { repository: parseGlob(text.slice(0, colon)), tag: parseGlob(text.slice(colon + 1)) };
}

/** Whom to log in as; undefined for nobody. */
async function loginFor(host: string, end: 'src' | 'dst', options: LoginOptions): Promise<RegistryLogin | undefined> {
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
