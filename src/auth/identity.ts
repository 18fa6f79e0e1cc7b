import type { IncomingMessage } from 'node:http';
import type { Action } from './rights.js';

/** Who is asking. Made only by `Authenticator.authenticate`; what it may do is decided only by `authorise`. */
export type Identity = Nobody | User;

interface Nobody extends Bounded {
  readonly kind: 'anonymous';
}

export interface User extends Bounded {
  readonly kind: 'user';
  /** In Unicode NFC. */
  readonly name: string;
  /** By what the user was recognised. */
  readonly via?: Via;
  /** Groups that are known from where the user is, beyond those of the policy. */
  readonly groups?: readonly string[];
  /** The realms in which this is the user; in the repositories of others it is nobody. Undefined: all there are. */
  readonly realms?: ReadonlyMap<string, Membership>;
  /** The id of the machine's token that was shown, or that the token was given for. */
  readonly machineToken?: string;
}

interface Bounded {
  /** What this may do at most, whatever the policy allows: one of these must allow it too. Undefined: no bounds. */
  readonly bounds?: readonly Bound[];
}

type Via = 'password' | 'token' | 'certificate' | 'proxy' | 'machine-token' | 'outside' | 'session';

/** What one realm knows of a user. */
export interface Membership {
  readonly groups: readonly string[];
  /** By which a token is held to the credentials that it was given for: `Realms.member` knows it. */
  readonly version: string;
}

export interface Bound {
  readonly actions: readonly Action[];
  /** Patterns, as those of a rule. */
  readonly on: readonly string[];
}

export const ANONYMOUS: Identity = { kind: 'anonymous' };

/** What somebody is where nobody knows them: no less bounded than before. */
export function unknown({ bounds }: Identity): Identity {
  return bounds ? { kind: 'anonymous', bounds } : ANONYMOUS;
}

/** A request by whoever it turned out to be from. By a symbol: an entry of a WeakMap for each request costs many times that. */
const IDENTITY = Symbol('identity');

type Identified = IncomingMessage & { [IDENTITY]?: Identity };

export function setIdentity(request: IncomingMessage, identity: Identity): void {
  (request as Identified)[IDENTITY] = identity;
}

/** Undefined before anybody has been recognised. */
export function identityOf(request: IncomingMessage): Identity | undefined {
  return (request as Identified)[IDENTITY];
}
