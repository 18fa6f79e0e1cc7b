import { createHash } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { decodeProtectedHeader, errors, type JWTPayload, jwtVerify, SignJWT } from 'jose';
import { growingCache } from '../growing-cache.js';
import { ANONYMOUS, type Identity } from './identity.js';
import type { MachineTokens } from './machine-tokens.js';
import type { Realms } from './realms.js';

/** A secret by which tokens are signed and checked, in every process that serves the same data. */
interface TokenKey {
  readonly id: string;
  readonly secret: Uint8Array;
}

export interface TokenKeys {
  /** The one to sign with. */
  current(): Promise<TokenKey>;
  /** One that was made here, or by another process; undefined for any other name. */
  find(id: string): Promise<TokenKey | undefined>;
}

/** What a client has for its credentials (distribution's token specification, "Token Response Fields"). */
export interface IssuedToken {
  readonly token: string;
  /** The same, by its name in OAuth 2.0. */
  readonly access_token: string;
  /** In seconds. */
  readonly expires_in: number;
  /** RFC 3339. */
  readonly issued_at: string;
}

/** Clients come back for another one by themselves. In seconds. */
const LIFE = 300;
const ALGORITHM = 'HS256';
const ISSUER = 'registry-secure';
/** So that no other kind of token that is ever signed by such a key can pass for one of these. */
const TYPE = 'registry+jwt';
export const SERVICE = 'registry-secure';
const CACHED = 10_000;

interface Claims {
  /** Undefined: anonymous. */
  readonly user: string | undefined;
  /** By realm. */
  readonly versions: Readonly<Record<string, string>>;
  /** The id of the machine's token that this one was given for. */
  readonly machine: string | undefined;
  /** Milliseconds. */
  readonly expires: number;
}

/**
 * Tokens that say who somebody is, and nothing about what they may do: that is looked up on each request. Nor do they
 * outlive the credentials that they were given for: a user who is removed, or has another password, has none from that
 * moment. One that was given for a machine's token is good for as much as that one, for as long as that one.
 */
export class Tokens {
  /** What was checked before. The hash of a token stands for it, so that memory holds none. */
  readonly #checked = growingCache<string, Claims>(CACHED);

  constructor(
    private readonly keys: TokenKeys,
    private readonly realms: Pick<Realms, 'member'>,
    private readonly machineTokens?: Pick<MachineTokens, 'again'>,
  ) {}

  async issue(identity: Identity): Promise<IssuedToken> {
    const { id, secret } = await this.keys.current();
    const now = Math.floor(Date.now() / 1000);
    const token = await new SignJWT(claimsOf(identity))
      .setProtectedHeader({ alg: ALGORITHM, typ: TYPE, kid: id })
      .setIssuer(ISSUER)
      .setAudience(SERVICE)
      .setIssuedAt(now)
      .setNotBefore(now - 60)
      .setExpirationTime(now + LIFE)
      .sign(secret);
    return { token, access_token: token, expires_in: LIFE, issued_at: new Date(now * 1000).toISOString() };
  }

  /** Whose token it is; undefined for one that is not ours, is over, or whose user has other credentials by now. */
  async identify(token: string, request: IncomingMessage): Promise<Identity | undefined> {
    const hash = createHash('sha256').update(token).digest('base64');
    const claims = this.#checked.get(hash) ?? (await this.#check(token));
    if (!claims || claims.expires <= Date.now()) return undefined;
    this.#checked.set(hash, claims);
    if (claims.user === undefined) return ANONYMOUS;
    const { user, versions, machine } = claims;
    if (machine !== undefined) return this.machineTokens?.again(user, machine);
    const members = Object.entries(versions).map(async ([realm, version]) => {
      const member = await this.realms.member(realm, user, version, request);
      return member ? [[realm, member] as const] : [];
    });
    const known = await Promise.allSettled(members);
    const realms = new Map(known.flatMap(result => (result.status === 'fulfilled' ? result.value : [])));
    const fault = known.find(result => result.status === 'rejected');
    if (realms.size === 0 && fault) throw fault.reason;
    return realms.size > 0 ? { kind: 'user', name: user, via: 'token', realms } : undefined;
  }

  async #check(token: string): Promise<Claims | undefined> {
    try {
      // Only names a key of ours: nothing that a token brings with it is ever used as one.
      const { kid } = decodeProtectedHeader(token);
      const key = typeof kid === 'string' ? await this.keys.find(kid) : undefined;
      if (!key) return undefined;
      const { payload } = await jwtVerify(token, key.secret, {
        algorithms: [ALGORITHM],
        typ: TYPE,
        issuer: ISSUER,
        audience: SERVICE,
        requiredClaims: ['exp', 'nbf', 'iat'],
      });
      const { sub, versions = {}, machine, exp } = payload;
      if (!isVersions(versions) || !(machine === undefined || typeof machine === 'string')) return undefined;
      return { user: sub, versions, machine, expires: exp! * 1000 };
    } catch (error) {
      if (error instanceof errors.JOSEError || error instanceof TypeError) return undefined;
      throw error;
    }
  }
}

function claimsOf(identity: Identity): JWTPayload {
  if (identity.kind !== 'user') return {};
  const { name, machineToken: machine, realms = new Map() } = identity;
  if (machine !== undefined) return { sub: name, machine };
  return { sub: name, versions: Object.fromEntries([...realms].map(([realm, { version }]) => [realm, version])) };
}

function isVersions(value: unknown): value is Readonly<Record<string, string>> {
  return (
    typeof value === 'object' && value !== null && Object.values(value).every(version => typeof version === 'string')
  );
}
