import type { MachineToken } from '../store/machine-tokens.js';
import type { Remote } from './remote.js';

/** A token as a registry shows it. */
export interface ShownToken extends Omit<MachineToken, 'hash'> {
  /** RFC 3339. */
  readonly used?: string;
}

/** @throws OperatorError with what the registry says */
export async function createThere(
  remote: Remote,
  { user, allow, expires, description }: Pick<MachineToken, 'user' | 'allow' | 'description'> & { expires?: string },
): Promise<{ token: ShownToken; secret: string }> {
  const body = { user, allow, expires: expires ?? null, ...(description !== undefined && { description }) };
  const { secret, ...token } = (await remote.ask<ShownToken & { secret: string }>('POST', '/tokens', { body })).value;
  return { token, secret };
}

/** Those of a user; of none, all that who asks may see. @throws OperatorError */
export async function listThere(remote: Remote, user: string | undefined): Promise<ShownToken[]> {
  const { administrator } = (await remote.ask<{ administrator: boolean }>('GET', '/whoami')).value;
  const wanted = user ?? (administrator ? '*' : undefined);
  const query = wanted === undefined ? '' : `?${new URLSearchParams({ user: wanted })}`;
  return remote.all<ShownToken>(`/tokens${query}`, 'tokens');
}

/** @throws OperatorError */
export async function revokeThere(remote: Remote, id: string): Promise<void> {
  await remote.ask('DELETE', `/tokens/${id}`);
}
