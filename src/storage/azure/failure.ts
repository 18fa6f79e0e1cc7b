import { RestError } from '@azure/storage-blob';
import { OperatorError } from '../../errors.js';
import { isDistrust, ServiceError, unreadable, wayError } from '../object/requests.js';
import type { AzureOptions } from './options.js';

/** Leaves the request behind, whose headers hold credentials. */
export function azureError(error: unknown): ServiceError {
  // The client's own, where an answer of success lacks a header.
  if (error instanceof RangeError) return unreadable(error.message);
  if (!(error instanceof RestError)) return wayError(error);
  const { statusCode: status, code = '', message, response, details } = error;
  if (status === undefined) return new ServiceError({ code, message: firstLine(message) });
  // It has broken off on the way, or is not the service's.
  if (status < 400) return unreadable(`HTTP ${status}: ${firstLine(message)}`);
  const header = (name: string) => response?.headers.get(name);
  const seconds = Number(header('retry-after'));
  return new ServiceError({
    status,
    code: header('x-ms-error-code') ?? (details as { errorCode?: string } | undefined)?.errorCode ?? code,
    message: firstLine(message),
    retryAfter: seconds > 0 ? seconds * 1000 : undefined,
  });
}

/** The others tell when it was, and by which request. */
function firstLine(text: string): string {
  return text.trim().split('\n')[0]!;
}

/** Why a container cannot be opened, and the way out. */
export function azureRefusal(
  { account, container, serviceUrl, login }: AzureOptions,
  error: ServiceError,
): OperatorError {
  const { status, code, message } = error;
  const refuse = (what: string, fix: string) => new OperatorError(what, { fix, cause: error });
  if (code === 'ContainerNotFound' || code === 'ContainerBeingDeleted')
    return refuse(
      `there is no container ${container} at ${serviceUrl}`,
      `make it (az storage container create --account-name ${account} --name ${container}), or check storage.azure.container`,
    );
  // azurite calls a wrong key a lack of rights.
  const isKey = 'key' in login && code === 'AuthorizationFailure' && /authenticate/.test(message);
  if (['AuthenticationFailed', 'InvalidAuthenticationInfo'].includes(code) || status === 401 || isKey)
    return refuse(
      `${serviceUrl} refuses the ${'key' in login ? 'account key' : 'token'} (${code || `HTTP ${status}`}): ${message}`,
      'key' in login
        ? 'check storage.azure.accountkey and accountname, and the clock of this machine'
        : 'check storage.azure.credentials, and the clock of this machine',
    );
  if (status === 403)
    return refuse(
      `${serviceUrl} refuses access to the container ${container} (${code || 'HTTP 403'}): ${message}`,
      'give this identity the role Storage Blob Data Contributor, and this machine access by the firewall of the account; where it is to read only: REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED=true',
    );
  if (isDistrust(code) && code !== 'EPROTO')
    return refuse(
      `the certificate of ${serviceUrl} is not trusted (${code})`,
      'name its authority: NODE_EXTRA_CA_CERTS=FILE',
    );
  if (status === undefined)
    return refuse(
      `${serviceUrl} cannot be reached (${code || message})`,
      'check storage.azure.accountname, realm and serviceurl, and the network',
    );
  return refuse(
    `the container ${container} at ${serviceUrl} cannot be used: ${[code, message].filter(Boolean).join(': ')} (HTTP ${status})`,
    'check storage.azure.* and the service',
  );
}
