import type { Authentication } from '../../src/auth/accounts.js';
import type { Identity } from '../../src/auth/identity.js';

/** Who sends a request: a promise, whether that is known at once or not. */
export async function identityFrom(
  of: Pick<Authentication, 'authenticate'>,
  ...asked: Parameters<Authentication['authenticate']>
): Promise<Identity> {
  return of.authenticate(...asked);
}
