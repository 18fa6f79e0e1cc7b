import type { Right } from './rights.js';

/** Who is asking. Made only by `Authenticator.authenticate`; what it may do is decided only by `authorise`. */
export type Identity = { readonly kind: 'anonymous' } | User;

export interface User {
  readonly kind: 'user';
  /** In Unicode NFC. */
  readonly name: string;
  /** By what the user was recognised. */
  readonly via?: Via;
  /** Groups that are known from where the user is, beyond those of the policy. */
  readonly groups?: readonly string[];
  /** The realms in which this is the user; in the repositories of others it is nobody. Undefined: all there are. */
  readonly realms?: ReadonlyMap<string, Membership>;
  /** What this may do at most, whatever the policy allows the user: one of these must allow it too. Undefined: no bounds. */
  readonly bounds?: readonly Bound[];
}

type Via = 'password' | 'token' | 'certificate' | 'proxy' | 'machine-token' | 'outside' | 'session';

/** What one realm knows of a user. */
export interface Membership {
  readonly groups: readonly string[];
  /** By which a token is held to the credentials that it was given for: `Realms.member` knows it. */
  readonly version: string;
}

interface Bound {
  readonly may: readonly Right[];
  /** Patterns of repositories (`parseGlob`). */
  readonly on: readonly string[];
}

export const ANONYMOUS: Identity = { kind: 'anonymous' };
