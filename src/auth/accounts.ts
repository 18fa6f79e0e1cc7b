import { andThen, type MaybeLater } from '../at-once.js';
import type { Authenticator } from './authenticate.js';

/** Whoever says who sends a request, and what those are answered who may not send it. */
export type Authentication = Pick<Authenticator, 'authenticate' | 'issueToken' | 'refusal' | 'unauthorized'>;

/**
 * Lets nobody in whose account does not count, however they have shown who they are: by password, token, certificate or
 * whatever else. They hear no more than those with wrong credentials.
 */
export function onlyActive(inner: Authentication, isActive: (user: string) => MaybeLater<boolean>): Authentication {
  return {
    authenticate: (request, repositories) =>
      andThen(inner.authenticate(request, repositories), identity =>
        andThen(identity.kind !== 'user' || isActive(identity.name), active => {
          if (!active) throw inner.unauthorized(request, repositories);
          return identity;
        }),
      ),
    issueToken: (...given) => inner.issueToken(...given),
    refusal: (...given) => inner.refusal(...given),
    unauthorized: (...given) => inner.unauthorized(...given),
  };
}
