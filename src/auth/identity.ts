import type { Right } from './rights.js';

/** Who is asking. Made only by `Authenticator.authenticate`; what it may do is decided only by `authorise`. */
export type Identity = { readonly kind: 'anonymous' } | User;

interface User {
  readonly kind: 'user';
  /** In Unicode NFC. */
  readonly name: string;
  /** By what the user was recognised. */
  readonly via?: Via;
  /** Groups that are known from where the user is, beyond those of the policy. */
  readonly groups?: readonly string[];
  /** The realms in which this is so, each with the groups there; undefined: all there are. */
  readonly realms?: ReadonlyMap<string, readonly string[]>;
  /** What this may do at most, whatever the policy allows the user: one of these must allow it too. Undefined: no bounds. */
  readonly bounds?: readonly Bound[];
}

type Via = 'password' | 'token' | 'certificate' | 'proxy' | 'machine-token' | 'outside' | 'session';

interface Bound {
  readonly may: readonly Right[];
  /** Patterns of repositories (`parseGlob`). */
  readonly on: readonly string[];
}

export const ANONYMOUS: Identity = { kind: 'anonymous' };
