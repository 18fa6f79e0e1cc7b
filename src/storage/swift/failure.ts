import { OperatorError } from '../../errors.js';
import { isDistrust, type ServiceError } from '../object/requests.js';
import type { SwiftOptions } from './options.js';

/** Why a container cannot be opened, and the way out. */
export function swiftRefusal({ container, authUrl }: SwiftOptions, error: ServiceError): OperatorError {
  const { status, code, message } = error;
  const refuse = (what: string, fix: string) => new OperatorError(what, { fix, cause: error });
  if (status === 404)
    return refuse(
      `there is no container ${container} in the account that ${authUrl} gives`,
      `make it (openstack container create ${container}), or check storage.swift.container and tenant`,
    );
  if (status === 401 || status === 403)
    return refuse(
      `the object store refuses access to the container ${container} (HTTP ${status})`,
      'give this user a role that may read and write it; where it is to read only: REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED=true',
    );
  if (isDistrust(code))
    return refuse(
      `the certificate of ${authUrl}, or of the object store, is not trusted (${code})`,
      'name its authority: NODE_EXTRA_CA_CERTS=FILE',
    );
  if (status === undefined)
    return refuse(
      `${authUrl}, or the object store, cannot be reached (${code || message})`,
      'check storage.swift.authurl and the network',
    );
  return refuse(
    `the container ${container} cannot be used: ${message || code} (HTTP ${status})`,
    'check storage.swift.* and the service',
  );
}
