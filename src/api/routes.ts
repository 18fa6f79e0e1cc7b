import { z } from 'zod';
import { RegistryError } from '../errors.js';
import { isRepositoryName } from '../reference.js';
import { ACCOUNTS } from './accounts.js';
import { POLICY } from './policy.js';
import { REPOSITORIES } from './repositories.js';
import { RIGHTS_ROUTES } from './rights.js';
import { ROOT } from './root.js';
import { type Route, route } from './route.js';
import { SESSION } from './session.js';
import { TOKENS } from './tokens.js';

const DOCUMENT = route({
  method: 'GET',
  path: '/openapi.json',
  id: 'getDocument',
  about: 'This document.',
  access: 'anybody',
  status: 200,
  answer: z.record(z.string(), z.unknown()),
  handler: async ({ document }) => ({ value: document }),
});

/** Every endpoint. */
export const ROUTES: readonly Route[] = [
  DOCUMENT,
  ...SESSION,
  ...RIGHTS_ROUTES,
  ...ACCOUNTS,
  ...TOKENS,
  ...POLICY,
  ...REPOSITORIES,
];

const compiled = ROUTES.map(route => ({
  route,
  pattern: new RegExp(
    `^${route.path
      .replaceAll('.', '\\.')
      .replace('{repository}', '(.*)')
      .replace(/\{\w+\}/, '([^/]+)')}$`,
    's',
  ),
}));

/** Whether a path is for everybody, so that nobody is asked who they are. */
export function isForAnybody(path: string): boolean {
  const below = path.slice(ROOT.length);
  return compiled.some(({ route, pattern }) => route.access === 'anybody' && pattern.test(below));
}

/** The repositories that a request is about, whatever else is wrong with it. */
export function repositoriesIn(path: string): string[] {
  const below = path.slice(ROOT.length);
  const found = compiled.find(({ route, pattern }) => route.path.includes('{repository}') && pattern.test(below));
  return found ? [found.pattern.exec(below)![1]!] : [];
}

interface ApiMatch {
  readonly route: Route;
  /** What stands for the name in the path, decoded. */
  readonly name: string;
}

/**
 * Finds the route of a raw path. The name of a repository is taken as it stands, for nothing in it needs an escape; any
 * other name is one part, and decoded once.
 * @param path without its query
 * @param options.deletes whether images can be deleted
 * @param options.readOnly why nothing in the storage can be changed; undefined where it can
 * @throws RegistryError NAME_INVALID, INVALID; UNSUPPORTED (405, with Allow); undefined where nothing has such a path
 */
export function matchApi(
  method: string,
  path: string,
  options: { deletes: boolean; readOnly: string | undefined },
): ApiMatch | undefined {
  const below = path.slice(ROOT.length);
  const rows = compiled.flatMap(({ route, pattern }) => {
    const found = pattern.exec(below);
    return found ? [{ route, raw: found[1] ?? '' }] : [];
  });
  if (rows.length === 0) return undefined;
  const { deletes, readOnly } = options;
  const served = rows.filter(
    ({ route }) => (deletes || route.access !== 'delete') && (readOnly === undefined || !route.stores),
  );
  const wanted = ({ route }: (typeof rows)[number]) => route.method === (method === 'HEAD' ? 'GET' : method);
  const row = served.find(wanted);
  if (!row) {
    const allowed = served.flatMap(({ route }) => (route.method === 'GET' ? ['GET', 'HEAD'] : [route.method]));
    throw new RegistryError('UNSUPPORTED', {
      headers: { Allow: allowed.join(', ') },
      ...(rows.some(wanted) && { message: readOnly ?? 'deletes are switched off (storage.delete.enabled)' }),
    });
  }
  const { route, raw } = row;
  if (!route.path.includes('{repository}')) return { route, name: decode(raw) };
  if (!isRepositoryName(raw)) throw new RegistryError('NAME_INVALID');
  return { route, name: raw };
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part).normalize('NFC');
  } catch {
    throw new RegistryError('INVALID', { message: 'the path has an escape that is no UTF-8' });
  }
}
