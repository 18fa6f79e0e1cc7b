import type { IncomingMessage } from 'node:http';
import type { Origin } from '../auth/proxies.js';
import { OperatorError } from '../errors.js';
import { covers, parseImageHost } from '../pki/names.js';

/**
 * Where a client gets its token, as an absolute URL: below `http.host`, else below the host that the client has asked for,
 * where the certificate is good for it. Undefined for any other host: a client must not be sent to where somebody else
 * may wait for its password.
 * A proxy that is believed has seen to it that the host is its own.
 * @param names those of the certificate that is served now; undefined over plain HTTP, where nothing can be checked
 */
export function tokenRealm(
  { host, prefix }: { readonly host: string; readonly prefix: string },
  names: () => readonly string[] | undefined,
  origin: (request: IncomingMessage) => Pick<Origin, 'scheme'> = () => ({ scheme: undefined }),
): (request: IncomingMessage) => string | undefined {
  if (host !== '') return () => `${new URL(host).origin}${prefix}/token`;
  return request => {
    const asked = parsed(request.headers.host);
    const { scheme } = origin(request);
    if (scheme) return asked && `${scheme}://${asked.imageHost}${prefix}/token`;
    const good = names();
    if (!asked || (good && !covers(good, asked.host))) return undefined;
    return `${good ? 'https' : 'http'}://${asked.imageHost}${prefix}/token`;
  };
}

function parsed(host: string | undefined): ReturnType<typeof parseImageHost> | undefined {
  try {
    return host === undefined ? undefined : parseImageHost(host);
  } catch (error) {
    if (error instanceof OperatorError) return undefined;
    throw error;
  }
}
