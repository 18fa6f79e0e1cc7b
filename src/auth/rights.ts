/**
 * What a request does. `overwrite` is a push that moves a tag from one manifest to another; `login` only asks whether the
 * credentials are right, and `token` for something to send in their place. `list` asks whether a repository may be shown in
 * the catalog and the search.
 */
export type Action = 'login' | 'token' | 'catalog' | 'list' | 'pull' | 'push' | 'overwrite' | 'delete' | 'admin';

/** What a rule can give, and the actions that it allows: nothing can be pushed or deleted without being looked at. */
export const RIGHTS = {
  pull: ['list', 'pull'],
  'create-only': ['list', 'pull', 'push'],
  push: ['list', 'pull', 'push', 'overwrite'],
  delete: ['list', 'pull', 'delete'],
  admin: ['list', 'pull', 'push', 'overwrite', 'delete', 'admin'],
} as const satisfies Record<string, readonly Action[]>;

export type Right = keyof typeof RIGHTS;
