import type { IncomingMessage } from 'node:http';

/** Somebody whom a source of users knows. */
export interface Member {
  /** As the source spells it, in Unicode NFC: what was typed may differ where the source does not mind the case. */
  readonly name: string;
  /** Those that the source knows of. */
  readonly groups: readonly string[];
  /** What is another one whenever the user's credentials are, or it is another user by that name; says nothing about them. */
  readonly version: string;
}

/** Where users with passwords come from. Names are in Unicode NFC. */
export interface CredentialSource {
  /** Whether this was found right not long ago, and still is. Costs next to nothing: it is the path of nearly every request. */
  remembers(user: string, password: string): boolean;
  /**
   * As `remembers`, for who shows the same again and again: tells whether it is so still, at no more than a look. Undefined
   * where it is not remembered now; a source without it is asked each time.
   */
  remembering?(user: string, password: string): (() => boolean) | undefined;
  /**
   * Whether the password is this user's. An unknown user costs as much as a wrong password.
   * @param network where the request comes from: none may have more than its share of the checks that wait
   * @throws RegistryError TOOMANYREQUESTS, UNAVAILABLE.
   */
  verify(user: string, password: string, network: string): Promise<boolean>;
  /** A user, without a password; undefined for nobody. @throws RegistryError UNAVAILABLE, for what cannot be told now */
  find(user: string): Member | undefined | Promise<Member | undefined>;
  /** Whether there is such a user, where that can be told without asking another server. */
  knows?(user: string): boolean;
}

/** What says who sends a request by something else than a password: the client's certificate, or a proxy in front. */
export interface RequestSource {
  readonly via: 'certificate' | 'proxy';
  /** @throws RegistryError with status 400 for a request that says it in two ways */
  identify(request: IncomingMessage): Member | undefined;
}
