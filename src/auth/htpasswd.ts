import { OperatorError } from '../errors.js';
import { type LegacyHash, legacyKind } from './legacy-hash.js';

/**
 * The htpasswd format: one `user:hash` a line, `#` begins a comment (Apache's htpasswd(1)). Pure functions. Only bcrypt
 * counts, and old formats that are asked for by name; any other hash shuts out its own user and nobody else, as in the
 * `registry:2` image.
 */

/** A check at cost 14 already takes more than a second of one core: above it, each login would be an attack. */
const HIGHEST_COST = 14;
/** What no Authorization header of ours can carry, or stands where bytes were not UTF-8. */
export const UNUSABLE_NAME = /^$|[\x00-\x1f\x7f-\x9f\ufffd]/;

/** One user of the file, in its order. */
interface HtpasswdEntry {
  /** In Unicode NFC. */
  readonly name: string;
  /** Counted from 1. */
  readonly line: number;
  readonly hash: string;
  /** The bcrypt cost; undefined for any other hash. */
  readonly cost: number | undefined;
  /** Why this line lets nobody in; undefined when it does. */
  readonly problem: string | undefined;
}

export interface Htpasswd {
  readonly entries: readonly HtpasswdEntry[];
  /** Who can log in: name in NFC → hash. */
  readonly users: ReadonlyMap<string, string>;
  /** The highest cost among `users`; undefined when there are none. */
  readonly cost: number | undefined;
  /** One readable line each, with file, line number and fix. */
  readonly warnings: readonly string[];
}

/** What one line says, whatever its hash is worth. `bare`: no colon, so no user; its first of two words, if it has two. */
export type HtpasswdLine =
  | { readonly kind: 'nothing' }
  | { readonly kind: 'user'; readonly name: string; readonly hash: string }
  | { readonly kind: 'bare'; readonly name: string | undefined };

export function readLine(line: string): HtpasswdLine {
  const text = line.trim();
  if (text === '' || text.startsWith('#')) return { kind: 'nothing' };
  const colon = text.indexOf(':');
  if (colon >= 0) {
    // Apache allows further fields behind a second colon.
    const hash = text.slice(colon + 1).split(':', 1)[0]!;
    return { kind: 'user', name: text.slice(0, colon).normalize('NFC'), hash: hash.trim() };
  }
  const words = text.split(/\s+/);
  const name = words.length === 2 && !UNUSABLE_NAME.test(words[0]!) ? words[0]!.normalize('NFC') : undefined;
  return { kind: 'bare', name };
}

/** Lines with their ends, so that joining them gives the same text. */
export function splitLines(text: string): string[] {
  return text.match(/[^\n]*\n|[^\n]+$/g) ?? [];
}

/**
 * @param file names the file in messages and in the commands that mend it.
 * @param legacy formats that count beside bcrypt
 * @throws OperatorError for a line without a colon, or text that is no text: then nothing of the file counts.
 */
export function parseHtpasswd(text: string, file: string, legacy: readonly LegacyHash[] = []): Htpasswd {
  if (text.includes('\0'))
    throw new OperatorError(`${file} is not plain text`, { fix: 'save it as UTF-8 without a byte order mark' });
  const lines: Array<{ name: string; line: number; hash: string }> = [];
  for (const [index, raw] of splitLines(text).entries()) {
    const line = index + 1;
    const read = readLine(raw);
    if (read.kind === 'bare') throw bareLine(file, line, read.name);
    if (read.kind === 'user') lines.push({ name: read.name, line, hash: read.hash });
  }
  // Of several lines for one user the last counts, as in registry:2: people append a new password to the file.
  const last = new Map(lines.map(({ name, line }) => [name, line]));
  const warnings: string[] = [];
  const entries = lines.map(({ name, line, hash }): HtpasswdEntry => {
    const again = last.get(name) === line ? undefined : last.get(name);
    const cost = bcryptCost(hash);
    const problem =
      again === undefined
        ? problemOf(name, hash, cost, legacy)
        : `line ${again} has this user again, and the last one counts`;
    if (problem !== undefined)
      warnings.push(`${file}, line ${line}: ${JSON.stringify(name)}: ${problem}; ${fixOf(file, name, again)}`);
    return { name, line, hash, cost, problem };
  });
  const usable = entries.filter(entry => entry.problem === undefined);
  const weak = usable.filter(entry => entry.cost === undefined);
  if (legacy.length > 0)
    warnings.push(
      `${file}: hashes of ${legacy.join(', ')} are accepted (legacyhashes): whoever reads the file guesses these passwords ` +
        `a million times as fast as with bcrypt; ${weakAdvice(weak, file)}`,
    );
  const costs = [...new Set(usable.flatMap(entry => entry.cost ?? []))].sort((a, b) => a - b);
  if (costs.length > 1)
    warnings.push(
      `${file}: bcrypt costs from ${costs[0]} to ${costs.at(-1)} are mixed, and every wrong login takes as long as the ` +
        `highest; set the passwords of the others again: ${userCommand('passwd', 'NAME', file)}`,
    );
  if (usable.length === 0)
    warnings.push(`${file} has no user who can log in; add one: ${userCommand('add', 'NAME', file)}`);
  return {
    entries,
    users: new Map(usable.map(entry => [entry.name, entry.hash])),
    cost: costs.at(-1),
    warnings,
  };
}

/** The command that does `verb` to a user of the file, as a shell takes it. */
export function userCommand(verb: 'add' | 'passwd' | 'remove', name: string, file: string): string {
  return `registry-secure user ${verb} ${shellWord(name)} --file ${shellWord(file)}`;
}

/** The cost of a bcrypt hash in one of its three current spellings; undefined for anything else. */
export function bcryptCost(hash: string): number | undefined {
  const match = /^\$2[aby]\$([0-3][0-9])\$[./A-Za-z0-9]{53}$/.exec(hash);
  const cost = Number(match?.[1]);
  return cost >= 4 && cost <= 31 ? cost : undefined;
}

/** The line may hold a password in plain text: nothing of it is shown but what must be the user's name. */
function bareLine(file: string, line: number, name: string | undefined): OperatorError {
  const what = `${file}, line ${line}: no colon, so this is no user:hash`;
  if (name === undefined) return new OperatorError(what, { fix: 'remove the line, or begin it with # as a comment' });
  return new OperatorError(`${what} (a password in plain text, as in an old recipe?)`, {
    fix: `replace the line by a hashed password: ${userCommand('add', name, file)}`,
  });
}

function weakAdvice(weak: readonly HtpasswdEntry[], file: string): string {
  if (weak.length === 0) return 'no user here has one, so take it out of the configuration';
  const names = weak.slice(0, 10).map(({ name }) => JSON.stringify(name));
  const whose = `${names.join(', ')}${weak.length > names.length ? ` and ${weak.length - names.length} more` : ''}`;
  return `set the passwords of ${whose} again: ${userCommand('passwd', 'NAME', file)}`;
}

function problemOf(
  name: string,
  hash: string,
  cost: number | undefined,
  legacy: readonly LegacyHash[],
): string | undefined {
  if (name === '') return 'a user without a name cannot log in';
  if (UNUSABLE_NAME.test(name)) return 'a name with control characters, or not in UTF-8, cannot log in';
  if (legacy.some(kind => kind === legacyKind(hash))) return undefined;
  if (cost === undefined) return `${hashKind(hash)} is not bcrypt, so this user cannot log in`;
  if (cost > HIGHEST_COST) return `bcrypt cost ${cost} is over ${HIGHEST_COST}, so this user cannot log in`;
  return undefined;
}

function fixOf(file: string, name: string, duplicateOf: number | undefined): string {
  if (duplicateOf !== undefined) return 'remove this line';
  return UNUSABLE_NAME.test(name) ? 'remove the line' : `set a new password: ${userCommand('passwd', name, file)}`;
}

function hashKind(hash: string): string {
  if (/^\$2[abxy]?\$/.test(hash)) return 'a damaged or unknown bcrypt variant';
  if (hash.startsWith('$apr1$')) return 'the MD5 hash of Apache ($apr1$)';
  if (hash.startsWith('{SHA}')) return 'a SHA-1 hash ({SHA})';
  if (hash.startsWith('$5$') || hash.startsWith('$6$')) return 'a SHA-2 crypt hash ($5$, $6$)';
  return 'what stands in place of a hash';
}

function shellWord(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
