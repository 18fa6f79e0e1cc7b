import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type Inspected, inspectConfig, type LoadOptions } from '../../src/config/load.js';

function inspect(options: Partial<LoadOptions>): Inspected {
  return inspectConfig({ dir: '/srv/registry', env: {}, standardFiles: false, ...options });
}

describe('the variables of the old recipes, as they are written', () => {
  test('TLS on port 443', () => {
    const { config, problems, warnings, sources } = inspect({
      env: {
        REGISTRY_HTTP_ADDR: '0.0.0.0:443',
        REGISTRY_HTTP_TLS_CERTIFICATE: '/certs/domain.crt',
        REGISTRY_HTTP_TLS_KEY: '/certs/domain.key',
      },
    });
    assert.deepEqual([problems, warnings], [[], []]);
    assert.equal(config!.http.addr, '0.0.0.0:443');
    assert.equal(config!.http.tls.certificate, '/certs/domain.crt');
    assert.equal(config!.http.tls.key, '/certs/domain.key');
    assert.equal(sources.get('http.tls.key'), 'REGISTRY_HTTP_TLS_KEY');
  });

  test('a password file', () => {
    const { config, problems, warnings } = inspect({
      env: {
        REGISTRY_AUTH: 'htpasswd',
        REGISTRY_AUTH_HTPASSWD_REALM: 'Registry Realm',
        REGISTRY_AUTH_HTPASSWD_PATH: '/auth/htpasswd',
      },
    });
    assert.deepEqual([problems, warnings], [[], []]);
    assert.deepEqual(config!.auth, { htpasswd: { realm: 'Registry Realm', path: '/auth/htpasswd' } });
  });
});
