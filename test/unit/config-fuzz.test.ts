import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { shown, toYaml } from '../../src/config/display.js';
import { type Inspected, inspectConfig, loadConfig } from '../../src/config/load.js';
import { NODES } from '../../src/config/tree.js';

let file: string;
before(() => {
  file = join(mkdtempSync(join(tmpdir(), 'config-fuzz-')), 'config.yml');
});
after(() => rmSync(join(file, '..'), { recursive: true }));

const word = fc.constantFrom(
  '',
  'true',
  'off',
  '0',
  '7',
  '30s',
  ':5000',
  'htpasswd',
  'none',
  's3',
  '~',
  '*x',
  '[',
  '{a: b}',
  '[a]',
  '"',
);
const value = fc.oneof(word, fc.string({ maxLength: 20 }), fc.string({ unit: 'binary', maxLength: 8 }));

/** Either a configuration that can be shown, or problems in single lines: nothing else may come of any input. */
function holds({ config, problems, warnings, sources }: Inspected): void {
  assert.equal(config === undefined, problems.length > 0);
  for (const line of [...warnings, ...problems.map(({ what }) => what)]) assert.ok(line.length > 10);
  if (!config) return;
  const loaded = { config, sources, warnings };
  shown(loaded);
  toYaml(loaded);
  assert.ok(config.auth.htpasswd || sources.get('auth.none') !== 'default', 'never open by default');
}

test('any variables', () => {
  const name = fc
    .tuple(
      fc.constantFrom(...NODES.map(node => node.environment)),
      fc.constantFrom('', '_0', '_1', '_X', '_0_URL', '__', '_'),
    )
    .map(parts => parts.join(''));
  fc.assert(
    fc.property(fc.dictionary(name, value, { maxKeys: 8 }), env =>
      holds(inspectConfig({ dir: '/srv', env, standardFiles: false })),
    ),
    { numRuns: 500 },
  );
});

test('any file', () => {
  const tree = fc.letrec(tie => ({
    map: fc.dictionary(
      fc.oneof(fc.constantFrom(...NODES.map(node => node.path.split('.').at(-1)!)), fc.string({ maxLength: 5 })),
      fc.oneof({ maxDepth: 4 }, value, tie('map'), fc.array(value, { maxLength: 3 })),
      { maxKeys: 5 },
    ),
  })).map;
  fc.assert(
    fc.property(
      fc.oneof(
        tree.map(map => JSON.stringify(map)),
        fc.string(),
      ),
      text => {
        writeFileSync(file, text);
        holds(inspectConfig({ dir: '/srv', file, env: {} }));
      },
    ),
    { numRuns: 300 },
  );
});

test('what is printed means the same, whatever it is', () => {
  const valid = fc.record(
    {
      REGISTRY_HTTP_DRAINTIMEOUT: fc.nat({ max: 1e9 }).map(milliseconds => `${milliseconds}ms`),
      REGISTRY_AUTH_HTPASSWD_REALM: fc.string({ minLength: 1 }).map(text => JSON.stringify(`r ${text}`)),
      REGISTRY_LOG_FIELDS_A: fc.string({ unit: 'binary' }).map(text => JSON.stringify(`v ${text}`)),
      REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY: fc
        .string()
        .map(text => JSON.stringify(`/${text.replaceAll('\0', '')}`)),
    },
    { requiredKeys: [] },
  );
  fc.assert(
    fc.property(valid, env => {
      const before = inspectConfig({ dir: '/srv', env, standardFiles: false });
      if (!before.config) return;
      writeFileSync(file, toYaml({ ...before, config: before.config }));
      const again = loadConfig({ dir: '/elsewhere', file, env: {} });
      assert.deepEqual(again.config, before.config);
    }),
    { numRuns: 200 },
  );
});
