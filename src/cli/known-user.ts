import { loadHtpasswd } from '../auth/htpasswd-file.js';
import type { Config } from '../config/schema.js';
import { OperatorError } from '../errors.js';

interface UnknownUser {
  /** For people: where the user was looked for. */
  readonly places: string;
  /** Whether users are also known from where this command cannot look. */
  readonly elsewhere: boolean;
}

/** Undefined for a user whom some password file of the configuration lets in. A file that cannot be read has none. */
export async function unknownUser(user: string, { auth }: Config): Promise<UnknownUser | undefined> {
  const sources = auth.realms.flatMap(({ sources }) => sources);
  const files = [auth.htpasswd, ...sources.map(({ htpasswd }) => htpasswd)].filter(file => file !== undefined);
  for (const { path, legacyhashes } of files) if (await has(path, legacyhashes, user)) return undefined;
  const elsewhere = auth.token !== undefined || sources.some(({ htpasswd }) => htpasswd === undefined);
  return { places: files.map(({ path }) => path).join(', '), elsewhere };
}

async function has(path: string, legacy: Parameters<typeof loadHtpasswd>[1], user: string): Promise<boolean> {
  try {
    return (await loadHtpasswd(path, legacy)).users.has(user);
  } catch (error) {
    if (error instanceof OperatorError) return false;
    throw error;
  }
}
