import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Draft } from '../../src/config/draft.js';
import { applyEnvironment } from '../../src/config/environment.js';
import { inspectConfig } from '../../src/config/load.js';

function inspect(env: NodeJS.ProcessEnv) {
  return inspectConfig({ dir: '/srv', env, standardFiles: false });
}

/** What the variables make of nothing, as plain objects. */
function draft(env: NodeJS.ProcessEnv, before: (draft: Draft) => void = () => {}): unknown {
  const draft = new Draft();
  before(draft);
  assert.deepEqual(applyEnvironment(draft, env), []);
  return JSON.parse(JSON.stringify(draft.tree));
}

describe('the value of a variable', () => {
  test('is YAML', () => {
    assert.deepEqual(draft({ REGISTRY_HTTP_HEADERS: '{X-Frame-Options: [DENY, "a: b"]}' }), {
      http: { headers: { 'X-Frame-Options': ['DENY', 'a: b'] } },
    });
    assert.deepEqual(draft({ REGISTRY_HTTP_ADDR: '"0.0.0.0:443"' }), { http: { addr: '0.0.0.0:443' } });
    assert.deepEqual(draft({ REGISTRY_STORAGE_MAINTENANCE_READONLY: '{"enabled":true}' }), {
      storage: { maintenance: { readonly: { enabled: 'true' } } },
    });
  });

  test('is the text itself where one text is wanted', () => {
    for (const text of ['[::]:443', '@secret', '*x', 'Registry: Realm', "it's: {", 'true', '007'])
      assert.deepEqual(draft({ REGISTRY_AUTH_HTPASSWD_REALM: text }), { auth: { htpasswd: { realm: text } } });
    assert.deepEqual(draft({ REGISTRY_HTTP_HEADERS_X: "default-src 'self': y" }), {
      http: { headers: { x: "default-src 'self': y" } },
    });
  });

  test('that is empty takes away what was there', () => {
    const before = (draft: Draft) => {
      draft.set(['http', 'addr'], ':1', 'file');
      draft.set(['auth'], { none: {} }, 'file');
    };
    assert.deepEqual(draft({ REGISTRY_HTTP_ADDR: '', REGISTRY_AUTH: ' ' }, before), { http: {} });
  });

  test('that is no YAML where it must be', () => {
    const { problems } = inspect({ REGISTRY_HTTP_TLS: '{hunter2' });
    assert.equal(problems[0]!.what, 'REGISTRY_HTTP_TLS: http.tls: the value is not valid YAML');
  });
});

test('a kind replaces its section', () => {
  const before = (draft: Draft) => draft.set(['storage'], { s3: { bucket: 'b' }, delete: { enabled: 'true' } }, 'file');
  assert.deepEqual(draft({ REGISTRY_STORAGE: 'filesystem' }, before), { storage: { filesystem: {} } });
  assert.deepEqual(draft({ REGISTRY_STORAGE: 'filesystem', REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY: '/x' }, before), {
    storage: { filesystem: { rootdirectory: '/x' } },
  });
});

test('lists go by index, in the order of the numbers', () => {
  const names = Array.from({ length: 12 }, (_, index) => [
    `REGISTRY_VALIDATION_MANIFESTS_URLS_ALLOW_${index}`,
    `p${index}`,
  ]);
  assert.deepEqual(draft(Object.fromEntries(names.reverse())), {
    validation: { manifests: { urls: { allow: Array.from({ length: 12 }, (_, index) => `p${index}`) } } },
  });
  const { config } = inspect({
    REGISTRY_VALIDATION_MANIFESTS_INDEXES_PLATFORMLIST_0_OS: 'linux',
    REGISTRY_VALIDATION_MANIFESTS_INDEXES_PLATFORMLIST_0_ARCHITECTURE: 'amd64',
  });
  assert.deepEqual(config!.validation.manifests.indexes.platformlist, [{ architecture: 'amd64', os: 'linux' }]);
});

test('an index without the ones before it, or none at all, is an error', () => {
  assert.match(inspect({ REGISTRY_HTTP_TLS_CIPHERSUITES_2: 'x' }).problems[0]!.what, /has 0 items before it/);
  assert.match(inspect({ REGISTRY_HTTP_TLS_CIPHERSUITES_A: 'x' }).problems[0]!.what, /is a list, and a is no index/);
});

test('maps take names, and an index after them', () => {
  const before = (draft: Draft) => draft.set(['http', 'headers'], { 'X-Frame-Options': ['A'], Keep: ['me'] }, 'file');
  assert.deepEqual(
    draft(
      {
        'REGISTRY_HTTP_HEADERS_X-FRAME-OPTIONS': '[DENY]',
        REGISTRY_HTTP_HEADERS_X_OTHER_0: 'a',
        REGISTRY_HTTP_HEADERS_X_OTHER_1: 'b',
        REGISTRY_LOG_FIELDS_MY_NAME: 'x',
      },
      before,
    ),
    {
      http: { headers: { 'X-Frame-Options': ['DENY'], Keep: ['me'], 'x-other': ['a', 'b'] } },
      log: { fields: { my_name: 'x' } },
    },
  );
});

test('a name of an object of JavaScript is a name like any other', () => {
  const { config, problems } = inspect({ REGISTRY_LOG_FIELDS_CONSTRUCTOR: 'a', REGISTRY_LOG_FIELDS___PROTO__: 'b' });
  assert.deepEqual(problems, []);
  assert.equal(config!.log.fields.constructor, 'a');
  assert.equal(({} as Record<string, unknown>).b, undefined);
});

test('a section that is not there is made: the read-only switch does not crash', () => {
  assert.deepEqual(draft({ REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED: 'true' }), {
    storage: { maintenance: { readonly: { enabled: 'true' } } },
  });
});

test('what others put into the environment is passed over in silence', () => {
  const { problems, warnings, config } = inspect({
    REGISTRY_PORT: 'tcp://10.0.0.1:5000',
    REGISTRY_PORT_5000_TCP: 'tcp://10.0.0.1:5000',
    REGISTRY_PORT_5000_TCP_ADDR: '10.0.0.1',
    REGISTRY_PORT_5000_TCP_PORT: '5000',
    REGISTRY_PORT_5000_TCP_PROTO: 'tcp',
    REGISTRY_SERVICE_HOST: '10.0.0.1',
    REGISTRY_SERVICE_PORT: '5000',
    REGISTRY_SERVICE_PORT_HTTPS: '5000',
    REGISTRY_AUTH_SERVICE_HOST: '10.0.0.2',
    REGISTRY_AUTH_PORT: 'tcp://10.0.0.2:5001',
    REGISTRY_AUTH_PORT_5001_TCP_ADDR: '10.0.0.2',
    REGISTRY_AUTH_FILE: '/run/containers/0/auth.json',
    REGISTRY_SECURE_NAMES: '192.168.0.12',
    OTHER_HTTP_ADDR: 'x',
  });
  assert.deepEqual([problems, warnings], [[], []]);
  assert.equal(config!.http.addr, '0.0.0.0:5000');
});

test('an unknown name warns of the nearest one, and never shows its value', () => {
  const { warnings, config } = inspect({
    REGISTRY_HTTP_ADRESS: 'hunter2',
    REGISTRY_HTTP_ADDR_X: 'hunter2',
    REGISTRY_PORT: '5000',
    REGISTRY_HTPASSWD: 'hunter2',
  });
  assert.deepEqual(warnings, [
    'REGISTRY_HTPASSWD is no known setting and is ignored; did you mean REGISTRY_AUTH_HTPASSWD?',
    'REGISTRY_HTTP_ADDR_X is no known setting and is ignored; did you mean REGISTRY_HTTP_ADDR?',
    'REGISTRY_HTTP_ADRESS is no known setting and is ignored; did you mean REGISTRY_HTTP_ADDR?',
    'REGISTRY_PORT is no known setting and is ignored',
  ]);
  assert.ok(config);
});
