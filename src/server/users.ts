import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { addUser, randomPassword } from '../auth/htpasswd-edit.js';
import { replaceFile } from '../auth/replace-file.js';
import { OperatorError } from '../errors.js';
import { makeFolder } from '../folder.js';
import { withLock } from '../lock.js';

/** How the first user is called unless the operator says otherwise. */
export const FIRST_USER = 'admin';

/** What became of the password file at a start. */
export type Users =
  | { readonly action: 'reused'; readonly file: string }
  | {
      readonly action: 'created';
      readonly file: string;
      readonly name: string;
      /** The password that was made up; none where the operator gave it. */
      readonly password?: string;
      /** Where it was left, for a start that has no terminal to show it on. */
      readonly passwordFile?: string;
    };

/**
 * Makes the password file with a first user where there is none. A password that is made up is shown once on a terminal;
 * a log is no place for it, so without a terminal it is left in a file beside the password file, mode 0600. Of several
 * processes that start at once, one makes the user.
 * @throws OperatorError when it cannot be written
 */
export async function ensureUsers(options: {
  file: string;
  name?: string | undefined;
  password?: string | undefined;
  terminal: boolean;
}): Promise<Users> {
  const { file } = options;
  if (existsSync(file)) return { action: 'reused', file };
  await makeFolder(dirname(file));
  const lock = join(dirname(file), '.first-user.lock');
  return withLock(
    lock,
    async (): Promise<Users> => (existsSync(file) ? { action: 'reused', file } : makeUser(options)),
  ).catch(error => {
    if (error instanceof OperatorError) throw error;
    throw new OperatorError(`the first user cannot be made in ${dirname(file)}: ${(error as Error).message}`, {
      fix: `give a folder that this user may write to, or make ${file} with registry-secure user add`,
      cause: error,
    });
  });
}

async function makeUser({
  file,
  name = FIRST_USER,
  password,
  terminal,
}: Parameters<typeof ensureUsers>[0]): Promise<Users> {
  const made = password ?? randomPassword();
  const passwordFile = password === undefined && !terminal ? join(dirname(file), 'initial-password') : undefined;
  // First the password and then the user: a crash in between leaves a password of nobody, not a user without one.
  if (passwordFile) await replaceFile(passwordFile, `${made}\n`, undefined, async () => true);
  await addUser(file, name, made);
  if (passwordFile) return { action: 'created', file, name, passwordFile };
  return { action: 'created', file, name, ...(password === undefined && { password: made }) };
}
