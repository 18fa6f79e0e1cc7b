import type { Identity } from './identity.js';

export type Action = 'pull' | 'push' | 'delete' | 'catalog';

/** Whether `identity` may do `action`, to a repository where the action is about one. Pure. */
export type Authorise = (identity: Identity, action: Action, repository?: string) => boolean;

/** @param open whether the registry asks nobody who they are: then anybody may do everything, else every user. */
export function createPolicy({ open }: { readonly open: boolean }): Authorise {
  return identity => open || identity.kind === 'user';
}
