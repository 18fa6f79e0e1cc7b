import { createHash } from 'node:crypto';
import { errors, type JWTPayload, jwtVerify } from 'jose';
import { growingCache } from '../growing-cache.js';
import { isRepositoryName } from '../reference.js';
import type { Bound, Identity } from './identity.js';
import { type OutsideKeyFiles, OutsideKeys } from './outside-keys.js';
import type { Action } from './rights.js';

/** How far the clocks of the token server and of this machine may differ, as in Distribution. In seconds. */
const LEEWAY = 60;
const CACHED = 10_000;
/** Docker asks for a handful. */
const MOST_ENTRIES = 1_000;

export interface OutsideTokensOptions {
  readonly issuer: string;
  readonly service: string;
  /** Each with a public key: one that everybody may know must not pass for a secret of HS256. */
  readonly algorithms: readonly string[];
  readonly files: OutsideKeyFiles;
}

interface Grant {
  readonly identity: Identity;
  /** Milliseconds. */
  readonly ends: number;
}

/**
 * Tokens of a token server of somebody else's (distribution's "Token Authentication Implementation"). They say who somebody
 * is, and what may be done with them: these are the bounds of the identity.
 */
export class OutsideTokens {
  /** What was checked before. The hash of a token stands for it, so that memory holds none. */
  readonly #checked = growingCache<string, Grant>(CACHED);

  private constructor(
    private readonly options: OutsideTokensOptions,
    private keys: OutsideKeys,
  ) {}

  /** @throws OperatorError as `OutsideKeys.load` */
  static async open(options: OutsideTokensOptions): Promise<OutsideTokens> {
    return new OutsideTokens(options, await OutsideKeys.load(options.files));
  }

  /** From then on no token counts that another key has signed. @throws OperatorError: then the keys from before stay. */
  async reload(): Promise<void> {
    this.keys = await OutsideKeys.load(this.options.files);
    this.#checked.clear();
  }

  /** Whose token it is; undefined for one that does not count. */
  async identify(token: string): Promise<Identity | undefined> {
    const { keys } = this;
    const hash = createHash('sha256').update(token).digest('base64');
    const grant = this.#checked.get(hash) ?? (await this.#check(token, keys));
    if (!grant || grant.ends <= Date.now() || keys !== this.keys) return undefined;
    this.#checked.set(hash, grant);
    return grant.identity;
  }

  async #check(token: string, keys: OutsideKeys): Promise<Grant | undefined> {
    const { issuer, service, algorithms } = this.options;
    try {
      const { payload } = await jwtVerify(
        token,
        header => {
          const key = keys.find(header);
          if (!key) throw new errors.JWKSNoMatchingKey();
          return key;
        },
        {
          algorithms: [...algorithms],
          issuer,
          audience: service,
          clockTolerance: LEEWAY,
          requiredClaims: ['exp'],
        },
      );
      const identity = identityOf(payload);
      return identity && { identity, ends: (payload.exp! + LEEWAY) * 1000 };
    } catch (error) {
      // jose has TypeErrors for a key of another kind than the algorithm.
      if (error instanceof errors.JOSEError || error instanceof TypeError) return undefined;
      throw error;
    }
  }
}

/** Undefined for claims of another form: what is not understood is not good for a part of it either. */
function identityOf({ sub = '', access = [] }: JWTPayload): Identity | undefined {
  const name = typeof sub === 'string' ? sub.normalize('NFC') : undefined;
  if (name === undefined || name.length > 255 || /[\x00-\x1f\x7f-\x9f\ufffd]/.test(name)) return undefined;
  const bounds = boundsOf(access);
  if (!bounds) return undefined;
  return name === '' ? { kind: 'anonymous', bounds } : { kind: 'user', name, via: 'outside', bounds };
}

/** What each action of a token's `access` claim is, of ours. */
const ACTIONS: Readonly<Record<string, readonly Action[]>> = {
  pull: ['pull'],
  push: ['push', 'overwrite'],
  delete: ['delete'],
  '*': ['pull', 'push', 'overwrite', 'delete', 'admin'],
};

function boundsOf(access: unknown): Bound[] | undefined {
  // Go writes null for none.
  if (access === null) return [];
  if (!Array.isArray(access) || access.length > MOST_ENTRIES) return undefined;
  const bounds: Bound[] = [];
  for (const entry of access as unknown[]) {
    const { type, name, actions } = (entry ?? {}) as Record<string, unknown>;
    if (typeof type !== 'string' || typeof name !== 'string') return undefined;
    const asked = actions ?? [];
    if (!Array.isArray(asked) || !asked.every(action => typeof action === 'string')) return undefined;
    if (type === 'repository' && isRepositoryName(name)) {
      const known = asked.flatMap(action => (Object.hasOwn(ACTIONS, action) ? ACTIONS[action]! : []));
      if (known.length > 0) bounds.push({ actions: known, on: [name] });
    } else if (type === 'registry' && name === 'catalog' && asked.includes('*'))
      bounds.push({ actions: ['list'], on: ['**'] });
  }
  return bounds;
}
