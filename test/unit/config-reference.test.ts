import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { shown, toYaml } from '../../src/config/display.js';
import { FLAGS } from '../../src/config/flags.js';
import { type LoadOptions, loadConfig } from '../../src/config/load.js';
import { reference } from '../../src/config/reference.js';
import { NODES, nodeAt } from '../../src/config/tree.js';

function load(options: Partial<LoadOptions>) {
  return loadConfig({ dir: '/srv/registry', env: {}, standardFiles: false, ...options });
}

test('docs/configuration.md is what the schema says (else: npm run docs)', () => {
  const file = fileURLToPath(new URL('../../../docs/configuration.md', import.meta.url));
  assert.equal(readFileSync(file, 'utf8'), reference());
});

test('every key is described, and every variable is one of its own', () => {
  for (const node of NODES) assert.match(node.about, /^[A-Z`].*[.]$/, node.path);
  assert.equal(new Set(NODES.map(node => node.environment)).size, NODES.length);
  for (const { movedTo } of NODES) assert.ok(movedTo === undefined || nodeAt(movedTo)?.shape === 'scalar', movedTo);
});

test('every flag sets a key that is supported', () => {
  for (const { key, value } of FLAGS) {
    const node = nodeAt(key)!;
    assert.equal(node.status, 'supported', key);
    assert.equal(value === undefined, node.type === 'true or false', key);
  }
});

test('every default is what a configuration without anything has', () => {
  const server = { realm: 'https://a.example/', service: 's', issuer: 'i', jwks: '/keys' };
  const token = Object.entries(server).map(([name, value]) => [`REGISTRY_AUTH_TOKEN_${name.toUpperCase()}`, value]);
  const provider = { REGISTRY_AUTH_OIDC_ISSUER: 'https://a.example', REGISTRY_AUTH_OIDC_CLIENTID: 'i' };
  const stores = {
    s3: { BUCKET: 'b', REGION: 'r' },
    azure: { ACCOUNTNAME: 'a', CONTAINER: 'c' },
    gcs: { BUCKET: 'b' },
    swift: { AUTHURL: 'https://a.example/v3', USERNAME: 'u', PASSWORD: 'p', CONTAINER: 'c' },
  };
  const storing = Object.entries(stores).map(([kind, keys]) => {
    const named = Object.entries(keys).map(([name, value]) => [
      `REGISTRY_STORAGE_${kind.toUpperCase()}_${name}`,
      value,
    ]);
    return { REGISTRY_STORAGE: kind, ...Object.fromEntries(named) };
  });
  const values = new Map([
    ...shown(load({ env: Object.fromEntries(token) })),
    ...shown(load({ env: provider })),
    ...storing.flatMap(env => [...shown(load({ env }))]),
    ...shown(load({})),
  ]);
  for (const { path, fallback, shape } of NODES)
    if (fallback !== undefined && shape !== 'section' && !String(fallback).includes('`'))
      assert.deepEqual(values.get(path)?.value, fallback, path);
});

test('what is printed is a configuration file that means the same', () => {
  const folder = mkdtempSync(join(tmpdir(), 'config-print-'));
  try {
    const env = {
      REGISTRY_HTTP_ADDR: '[::]:443',
      REGISTRY_HTTP_DRAINTIMEOUT: '1h30m',
      REGISTRY_HTTP_HEADERS: '{X-A: [b, "c: #d"], X-E: "true"}',
      REGISTRY_LOG_FIELDS_SERVICE: '007',
      REGISTRY_VALIDATION_MANIFESTS_URLS_ALLOW: '["^https://a\\\\.example/"]',
      REGISTRY_VALIDATION_MANIFESTS_INDEXES_PLATFORMLIST: '[{os: linux, architecture: amd64}]',
    };
    const before = load({ env });
    writeFileSync(join(folder, 'printed.yml'), toYaml(before));
    const again = load({ file: join(folder, 'printed.yml') });
    assert.deepEqual(again.config, before.config);
    writeFileSync(join(folder, 'defaults.yml'), toYaml(load({})));
    assert.deepEqual(load({ file: join(folder, 'defaults.yml') }).warnings, []);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('each value stands with its source, and a list or map with those of its parts', () => {
  const { config, sources, ...rest } = load({
    env: {
      REGISTRY_LOG_FIELDS_A: '1',
      REGISTRY_LOG_FIELDS_B: '2',
      REGISTRY_AUTH: 'none',
    },
    flags: [{ flag: '--log-level', key: 'log.level', value: 'debug' }],
  });
  const values = shown({ config, sources, ...rest });
  assert.deepEqual(values.get('log.level'), { value: 'debug', source: '--log-level' });
  assert.deepEqual(values.get('log.fields'), {
    value: { a: '1', b: '2' },
    source: 'REGISTRY_LOG_FIELDS_A, REGISTRY_LOG_FIELDS_B',
  });
  assert.deepEqual(values.get('auth.none'), { value: {}, source: 'REGISTRY_AUTH' });
  assert.deepEqual(values.get('http.draintimeout'), { value: '8s', source: 'default' });
  assert.match(toYaml({ config, sources, ...rest }), /^ {2}level: debug # --log-level$/m);
});

test('no secret is shown', () => {
  const loaded = load({
    env: {
      REGISTRY_HTTP_SECRET: 'hunter2',
      REGISTRY_HTTP_HEADERS_AUTHORIZATION: 'Basic hunter2',
      REGISTRY_HTTP_HEADERS_X_LINK: 'see https://user:hunter2@host/x',
      REGISTRY_LOG_FIELDS_DBPASSWORD: 'hunter2',
      REGISTRY_LOG_FIELDS_API_KEY: 'hunter2',
      REGISTRY_LOG_FIELDS_PEM: '-----BEGIN EC PRIVATE KEY-----hunter2',
    },
  });
  assert.equal(shown(loaded).get('http.secret')!.value, '***');
  const text = toYaml(loaded) + JSON.stringify([...shown(loaded)]) + loaded.warnings.join();
  assert.ok(!text.includes('hunter2'), text);
});
