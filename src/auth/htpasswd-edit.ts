import { randomInt } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { OperatorError } from '../errors.js';
import { makeFolder } from '../folder.js';
import { withLock } from '../lock.js';
import { LONGEST_PASSWORD } from './credentials.js';
import { parseHtpasswd, readLine, splitLines, UNUSABLE_NAME, userCommand } from './htpasswd.js';
import { readHtpasswdFile } from './htpasswd-file.js';
import { replaceFile, targetOf } from './replace-file.js';

/**
 * Changes to an htpasswd file. Each replaces the whole file atomically, under a lock, and is on the disk when it
 * resolves: to what the operator should know about the file as it is now, one readable line each. Other lines and
 * comments stay, and so do owner and mode of a file that was there; a new one has mode 0600. A file that the server would
 * refuse is never written: the error names the line that is in the way.
 */

const COST = 10;
/** In bytes of UTF-8, as Apache's htpasswd has it. */
const LONGEST_NAME = 255;

/** Makes the bcrypt hash of a password. A server has a thread of its own for it. */
type Hasher = (password: string, cost: number) => Promise<string>;

/** In this thread. Loaded here, so that a server keeps it in the memory of its other thread only. */
const hash: Hasher = async (password, cost) => (await import('bcryptjs')).hash(password, cost);

/** Who is to be added is there already, or who is to be changed is not. */
export class UserError extends OperatorError {
  constructor(
    readonly is: 'there' | 'absent',
    what: string,
    fix: string,
  ) {
    super(what, { fix });
  }
}

/** @throws UserError for a user who is there already; OperatorError for a name or password that is not allowed, a file that is no htpasswd file. */
export async function addUser(
  file: string,
  name: string,
  password: string,
  hasher: Hasher = hash,
): Promise<readonly string[]> {
  const user = newName(name);
  const hashed = await hashOf(newPassword(password), hasher);
  await makeFolder(dirname(file));
  return edit(file, '', text => {
    if (hasUser(text, user))
      throw new UserError(
        'there',
        `${file} has the user ${JSON.stringify(user)} already`,
        `to change the password: ${userCommand('passwd', user, file)}`,
      );
    return withUser(text, user, hashed);
  });
}

/** @throws OperatorError as `addUser`; UserError for a user who is not there. */
export async function changePassword(
  file: string,
  name: string,
  password: string,
  hasher: Hasher = hash,
): Promise<readonly string[]> {
  const user = name.normalize('NFC');
  const hashed = await hashOf(newPassword(password), hasher);
  return edit(file, undefined, text => {
    mustHaveUser(text, user, file);
    return withUser(text, user, hashed);
  });
}

/** Takes out every line of the user. @throws UserError for a user who is not there. */
export async function removeUser(file: string, name: string): Promise<readonly string[]> {
  const user = name.normalize('NFC');
  return edit(file, undefined, text => {
    mustHaveUser(text, user, file);
    return splitLines(text)
      .filter(line => !isLineOf(line, user))
      .join('');
  });
}

/** About 99 random bits in four groups of five, without the characters that are taken for one another. */
export function randomPassword(): string {
  const alphabet = 'abcdefghijkmnpqrstuvwxyz23456789';
  const groups = Array.from({ length: 4 }, () =>
    Array.from({ length: 5 }, () => alphabet[randomInt(alphabet.length)]).join(''),
  );
  return groups.join('-');
}

async function hashOf(password: string, hasher: Hasher): Promise<string> {
  // The same algorithm in Apache's spelling.
  return (await hasher(password, COST)).replace(/^\$2b\$/, '$2y$');
}

/**
 * A new user's name as it is kept.
 * @param whose for errors
 * @throws OperatorError for one that is not allowed.
 */
export function newName(name: string, whose = 'a user'): string {
  const user = name.normalize('NFC');
  const rules: ReadonlyArray<readonly [boolean, string]> = [
    [user === '', 'is empty'],
    [UNUSABLE_NAME.test(user), 'holds control characters or is not UTF-8'],
    [user.includes(':'), 'holds a colon, which ends the name in the file and in the login'],
    [user.startsWith('#'), 'begins with #, which begins a comment in the file'],
    [user.trim() !== user, 'begins or ends with a space'],
    [Buffer.byteLength(user) > LONGEST_NAME, `is longer than ${LONGEST_NAME} bytes`],
  ];
  const broken = rules.find(([applies]) => applies);
  if (broken) throw new OperatorError(`the name of ${whose} ${broken[1]}`, { fix: 'choose another name' });
  return user;
}

/** A new password as it is hashed. @throws OperatorError for one that is not allowed. */
export function newPassword(password: string): string {
  const text = password.normalize('NFC');
  const bytes = Buffer.byteLength(text);
  if (bytes === 0) throw new OperatorError('the password is empty', { fix: 'choose one of 1 to 72 bytes' });
  if (bytes > LONGEST_PASSWORD)
    throw new OperatorError(`the password has ${bytes} bytes, and bcrypt looks at the first ${LONGEST_PASSWORD} only`, {
      fix: `choose one of at most ${LONGEST_PASSWORD} bytes in UTF-8`,
    });
  if (/[\x00-\x1f\x7f-\x9f\ufffd]/.test(text))
    throw new OperatorError('the password holds control characters (a line end, a tab) or is not UTF-8', {
      fix: 'choose one of printable characters on one line',
    });
  return text;
}

function isLineOf(line: string, user: string): boolean {
  const read = readLine(line);
  return read.kind !== 'nothing' && read.name === user;
}

/** A line `user password` without a colon makes no user: `user add` replaces it. */
function hasUser(text: string, user: string): boolean {
  return splitLines(text).some(line => readLine(line).kind === 'user' && isLineOf(line, user));
}

function mustHaveUser(text: string, user: string, file: string): void {
  if (splitLines(text).some(line => isLineOf(line, user))) return;
  throw new UserError('absent', `${file} has no user ${JSON.stringify(user)}`, userCommand('add', user, file));
}

/** In place of the user's first line, or at the end; further lines of the user go. */
function withUser(text: string, user: string, hashed: string): string {
  const lines = splitLines(text);
  const end = /\r\n$/.test(lines[0] ?? '') ? '\r\n' : '\n';
  const line = `${user}:${hashed}${end}`;
  const at = lines.findIndex(before => isLineOf(before, user));
  if (at < 0) return (text === '' || text.endsWith('\n') ? text : text + end) + line;
  return lines.flatMap((before, index) => (index === at ? [line] : isLineOf(before, user) ? [] : [before])).join('');
}

/** @param absent what the text is where there is no file; undefined where that is an error. */
async function edit(
  file: string,
  absent: string | undefined,
  change: (text: string) => string,
): Promise<readonly string[]> {
  const target = await targetOf(file);
  return withLock(`${target}.lock`, async held => {
    const before = await stat(target).catch(() => undefined);
    const text = before === undefined && absent !== undefined ? absent : await readHtpasswdFile(target);
    const next = change(text);
    const { warnings } = parseHtpasswd(next, file);
    const note = await replaceFile(target, next, before, held);
    return note === undefined ? warnings : [note, ...warnings];
  }).catch(error => {
    if (error instanceof OperatorError) throw error;
    throw new OperatorError(`${file} cannot be written: ${(error as Error).message}`, { cause: error });
  });
}
