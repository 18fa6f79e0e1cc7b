import assert from 'node:assert/strict';
import { test } from 'node:test';
import { azureRefusal } from '../../src/storage/azure/failure.js';
import type { AzureOptions } from '../../src/storage/azure/options.js';
import { ServiceError } from '../../src/storage/object/requests.js';

const options: AzureOptions = {
  serviceUrl: 'https://images.blob.core.windows.net',
  account: 'images',
  container: 'registry',
  login: { key: 'c2VjcmV0' },
  root: '',
  skipVerify: false,
};

test('what Azure answers where azurite does not has a way out, too', () => {
  const cases: Array<[number | undefined, string, RegExp, RegExp]> = [
    [403, 'AuthenticationFailed', /refuses the account key/, /accountkey and accountname, and the clock/],
    [403, 'AuthorizationPermissionMismatch', /refuses access/, /Storage Blob Data Contributor.*READONLY_ENABLED/],
    [403, 'AuthorizationFailure', /refuses access/, /firewall of the account/],
    [404, 'ContainerNotFound', /there is no container registry/, /az storage container create/],
    [undefined, 'ENOTFOUND', /cannot be reached \(ENOTFOUND\)/, /accountname, realm and serviceurl/],
    [undefined, 'SELF_SIGNED_CERT_IN_CHAIN', /is not trusted/, /NODE_EXTRA_CA_CERTS/],
    [409, 'AccountIsDisabled', /cannot be used: AccountIsDisabled/, /check storage\.azure/],
  ];
  for (const [status, code, message, fix] of cases) {
    const refusal = azureRefusal(options, new ServiceError({ status, code, message: 'No.' }));
    assert.match(refusal.message, message);
    assert.match(refusal.fix!, fix);
  }
});
