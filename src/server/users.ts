import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { addUser, randomPassword } from '../auth/htpasswd-edit.js';
import { replaceFile } from '../auth/replace-file.js';
import { makeFolder } from '../folder.js';

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
 * a log is no place for it, so without a terminal it is left in a file beside the password file, mode 0600.
 * @throws OperatorError when it cannot be written
 */
export async function ensureUsers(options: {
  file: string;
  name?: string | undefined;
  password?: string | undefined;
  terminal: boolean;
}): Promise<Users> {
  const { file, name = 'admin', password, terminal } = options;
  if (existsSync(file)) return { action: 'reused', file };
  await makeFolder(dirname(file));
  const made = password ?? randomPassword();
  const passwordFile = password === undefined && !terminal ? join(dirname(file), 'initial-password') : undefined;
  // First the password and then the user: a crash in between leaves a password of nobody, not a user without one.
  if (passwordFile) await replaceFile(passwordFile, `${made}\n`, undefined, async () => true);
  await addUser(file, name, made);
  if (passwordFile) return { action: 'created', file, name, passwordFile };
  return { action: 'created', file, name, ...(password === undefined && { password: made }) };
}
