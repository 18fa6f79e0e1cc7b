import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../..', import.meta.url));

/** What each folder of src/ may import, besides itself, errors.ts and reference.ts: downward only. */
const BELOW: Record<string, readonly string[]> = {
  cli: [
    'copy',
    'server',
    'audit',
    'doctor',
    'ui',
    'api',
    'registry',
    'auth',
    'trust',
    'pki',
    'store',
    'storage',
    'config',
  ],
  server: ['audit', 'doctor', 'ui', 'api', 'registry', 'auth', 'trust', 'pki', 'store', 'storage', 'config'],
  doctor: ['auth', 'trust', 'pki', 'storage', 'config'],
  api: ['registry', 'auth', 'store', 'storage'],
  copy: ['trust', 'store', 'storage'],
  registry: ['auth', 'store', 'storage'],
  ui: ['trust', 'pki'],
  audit: ['store', 'storage'],
  auth: [],
  trust: ['pki'],
  pki: [],
  store: ['storage'],
  storage: [],
  config: [],
};

test('imports point downward only', () => {
  const files = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' }).filter(file =>
    file.endsWith('.ts'),
  );
  assert.ok(files.length > 5, 'the sources were found');
  const wrong: string[] = [];
  for (const file of files) {
    const source = readFileSync(join(root, 'src', file), 'utf8');
    for (const [, specifier] of source.matchAll(/(?:from|import\()\s*'(\.[^']+)'/g)) {
      const target = normalize(join(dirname(file), specifier!));
      const [from, to] = [file, target].map(path => (path.includes('/') ? path.slice(0, path.indexOf('/')) : ''));
      if (to === '' || from === to) continue;
      if (!from || !BELOW[from]?.includes(to!)) wrong.push(`${file} imports ${target}`);
    }
  }
  assert.deepEqual(wrong, []);
});
