import type { Action } from '../auth/rights.js';
import { RegistryError } from '../errors.js';
import { isRepositoryName } from '../reference.js';
import { deleteBlob, getBlob } from './blobs.js';
import type { Handler } from './exchange.js';
import { deleteManifest, getManifest, putManifest } from './manifests.js';
import { listReferrers } from './referrers.js';
import { listRepositories } from './repositories.js';
import { searchRepositories } from './search.js';
import { listTags } from './tags.js';
import { issueToken } from './token.js';
import { appendUpload, cancelUpload, finishUpload, startUpload, uploadStatus } from './uploads.js';

/** What a path names: all of them lie below /v2/, but for Docker's old `search` and the tokens. */
type Shape =
  | 'base'
  | 'catalog'
  | 'manifest'
  | 'blob'
  | 'uploads'
  | 'upload'
  | 'tags'
  | 'referrers'
  | 'search'
  | 'token';

interface Route {
  readonly method: string;
  readonly shape: Shape;
  /** What the caller must be allowed to do. */
  readonly action: Action;
  readonly handler: Handler;
}

/** Every endpoint: the authorisation of a request is decided by its row, before the handler sees it. */
const ROUTES: readonly Route[] = [
  { method: 'GET', shape: 'base', action: 'login', handler: async exchange => exchange.json(200, {}) },
  { method: 'GET', shape: 'token', action: 'token', handler: issueToken },
  { method: 'GET', shape: 'catalog', action: 'catalog', handler: listRepositories },
  { method: 'GET', shape: 'manifest', action: 'pull', handler: getManifest },
  { method: 'PUT', shape: 'manifest', action: 'push', handler: putManifest },
  { method: 'DELETE', shape: 'manifest', action: 'delete', handler: deleteManifest },
  { method: 'GET', shape: 'blob', action: 'pull', handler: getBlob },
  { method: 'DELETE', shape: 'blob', action: 'delete', handler: deleteBlob },
  { method: 'POST', shape: 'uploads', action: 'push', handler: startUpload },
  { method: 'GET', shape: 'upload', action: 'push', handler: uploadStatus },
  { method: 'PATCH', shape: 'upload', action: 'push', handler: appendUpload },
  { method: 'PUT', shape: 'upload', action: 'push', handler: finishUpload },
  { method: 'DELETE', shape: 'upload', action: 'push', handler: cancelUpload },
  { method: 'GET', shape: 'tags', action: 'pull', handler: listTags },
  { method: 'GET', shape: 'referrers', action: 'pull', handler: listReferrers },
  { method: 'GET', shape: 'search', action: 'catalog', handler: searchRepositories },
];

/** By shape and method. */
const ROWS: Readonly<Partial<Record<Shape, Readonly<Record<string, Route>>>>> = Object.fromEntries(
  ROUTES.map(({ shape }) => [
    shape,
    Object.fromEntries(ROUTES.filter(route => route.shape === shape).map(route => [route.method, route])),
  ]),
);

/** What a path names: read from it once, and not yet checked. */
interface Place {
  readonly shape: Shape;
  readonly repository?: string;
  readonly reference?: string;
}

/** These belong to no repository. */
const GLOBAL: ReadonlySet<Shape> = new Set(['base', 'catalog', 'search', 'token']);

/** What lies below these is for `match`. */
const ROOTS = ['/v2', '/v1', '/token'];

/** The methods that something here understands. Any other is refused whatever its path, and whoever sends it. */
const METHODS: ReadonlySet<string> = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']);

export interface Match {
  readonly action: Action;
  readonly handler: Handler;
  /** Empty for the routes that belong to no repository. */
  readonly repository: string;
  /** The last part of the path: a tag, a digest or an upload's UUID, percent-decoded. */
  readonly reference: string;
}

/** Whether a path, without what stands before all of ours, is one of the registry's. */
export function isRegistryPath(path: string): boolean {
  return ROOTS.some(root => path.startsWith(root) && isEnd(path[root.length]));
}

function isEnd(character: string | undefined): boolean {
  return character === '/' || character === '?' || character === undefined;
}

export function isKnownMethod(method: string | undefined): boolean {
  return METHODS.has(method ?? '');
}

/**
 * Finds the route of a place. Nothing of it is resolved, collapsed or decoded first, but the reference once: `..` and `%2f`
 * reach the grammar as they are, and fail it.
 * @param found of `placeOf`
 * @param options.deletes whether the routes that delete exist
 * @param options.readOnly why only the routes that read exist; undefined where all do
 * @throws RegistryError NAME_INVALID; UNSUPPORTED (405, with Allow); undefined where nothing has such a path
 */
export function match(
  method: string,
  found: Place | undefined,
  { deletes, readOnly }: { deletes: boolean; readOnly: string | undefined },
): Match | undefined {
  if (!found) return undefined;
  const { shape, repository = '', reference = '' } = found;
  const isServed = ({ method, action }: Route) =>
    (deletes || action !== 'delete') && (readOnly === undefined || method === 'GET');
  // HEAD is GET without the body, which the exchange leaves out.
  const wanted = method === 'HEAD' ? 'GET' : method;
  const row = ROWS[shape]?.[wanted];
  if (!row || !isServed(row)) {
    const served = ROUTES.filter(route => route.shape === shape && isServed(route));
    const allowed = served.flatMap(route => (route.method === 'GET' ? ['GET', 'HEAD'] : [route.method]));
    throw new RegistryError('UNSUPPORTED', {
      headers: { Allow: allowed.join(', ') },
      ...(row && { message: readOnly ?? 'deletes are switched off (storage.delete.enabled)' }),
    });
  }
  if (!GLOBAL.has(shape) && !isRepositoryName(repository)) throw new RegistryError('NAME_INVALID');
  return { action: row.action, handler: row.handler, repository, reference: decode(reference) };
}

/**
 * The repositories that a request is about, whatever else is wrong with it: that of its path, or those of the scopes that
 * it wants a token for (distribution's token specification, "Resource Scope").
 */
export function repositoriesOf({ shape, repository }: Partial<Place> = {}, query: URLSearchParams): string[] {
  if (shape !== 'token') return repository === undefined ? [] : [repository];
  const scopes = query.getAll('scope').flatMap(scope => scope.split(' '));
  return scopes.flatMap(scope => /^repository(?:\([^)]*\))?:([^:]+):/.exec(scope)?.[1] ?? []);
}

/** @param path raw, without its query */
export function placeOf(path: string): Place | undefined {
  if (path === '/v2/' || path === '/v2') return { shape: 'base' };
  if (path === '/v2/_catalog') return { shape: 'catalog' };
  if (path === '/v1/search') return { shape: 'search' };
  if (path === '/token') return { shape: 'token' };
  if (!path.startsWith('/v2/')) return undefined;
  // Read from the right, since a name may hold every word that has a meaning on its right. Only a digest holds a colon,
  // and whatever follows it is a part of it, so that `sha256:../x` is a bad digest and not an unknown path.
  const colon = path.indexOf(':');
  const slash = path.lastIndexOf('/', colon < 0 ? path.length : colon);
  const before = slash > START ? path.lastIndexOf('/', slash - 1) : 0;
  const first = before > START ? path.lastIndexOf('/', before - 1) : 0;
  const [second, last] = [slash > START ? path.slice(before + 1, slash) : '', path.slice(slash + 1)];
  const repository = path.slice(START + 1, Math.max(before, START + 1));
  if (second === 'blobs' && last === 'uploads') return { shape: 'uploads', repository };
  if (second === 'uploads' && first > 0 && path.slice(first + 1, before) === 'blobs') {
    const shorter = path.slice(START + 1, Math.max(first, START + 1));
    return last === ''
      ? { shape: 'uploads', repository: shorter }
      : { shape: 'upload', repository: shorter, reference: last };
  }
  if (second === 'tags' && last === 'list') return { shape: 'tags', repository };
  if (second === 'manifests') return { shape: 'manifest', repository, reference: last };
  if (second === 'referrers') return { shape: 'referrers', repository, reference: last };
  if (second === 'blobs') return { shape: 'blob', repository, reference: last };
  return undefined;
}

/** Where the slash is behind which names begin. */
const START = '/v2'.length;

/** Some clients encode the colon of a digest. A bad escape stays as it is, and fails whatever grammar comes next. */
function decode(reference: string): string {
  if (!reference.includes('%')) return reference;
  try {
    return decodeURIComponent(reference);
  } catch {
    return reference;
  }
}
