/**
 * What a request does. `overwrite` is a push that moves a tag from one manifest to another; `login` only asks whether the
 * credentials are right, and `token` for something to send in their place. `list` asks whether a repository may be shown in
 * the catalog and the search. `administer` is about no repository, but about accounts, tokens of others, and the policy itself.
 */
export type Action =
  | 'login'
  | 'token'
  | 'catalog'
  | 'list'
  | 'pull'
  | 'push'
  | 'overwrite'
  | 'delete'
  | 'admin'
  | 'administer';

/** What can be asked about one repository. */
export const REPOSITORY_ACTIONS = ['pull', 'push', 'overwrite', 'delete', 'admin'] as const satisfies readonly Action[];

/** What a rule can give, and the actions that it allows: nothing can be pushed or deleted without being looked at. */
export const RIGHTS = {
  pull: ['list', 'pull'],
  'create-only': ['list', 'pull', 'push'],
  push: ['list', 'pull', 'push', 'overwrite'],
  delete: ['list', 'pull', 'delete'],
  admin: ['list', 'pull', 'push', 'overwrite', 'delete', 'admin', 'administer'],
} as const satisfies Record<string, readonly Action[]>;

export type Right = keyof typeof RIGHTS;
