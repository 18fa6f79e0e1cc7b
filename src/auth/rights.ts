/**
 * What a request does. `overwrite` is a push that moves a tag from one manifest to another; `login` only asks whether the
 * credentials are right, and `token` for something to send in their place.
 */
export type Action = 'login' | 'token' | 'catalog' | 'pull' | 'push' | 'overwrite' | 'delete' | 'admin';

/** What a rule can give, and the actions that it allows: nothing can be pushed or deleted without being looked at. */
export const RIGHTS = {
  pull: ['pull'],
  'create-only': ['pull', 'push'],
  push: ['pull', 'push', 'overwrite'],
  delete: ['pull', 'delete'],
  admin: ['pull', 'push', 'overwrite', 'delete', 'admin'],
} as const satisfies Record<string, readonly Action[]>;

export type Right = keyof typeof RIGHTS;
