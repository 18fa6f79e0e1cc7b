// `npm test` and its kin: set up, then run the named folders of test/ (or single files) with node:test.
import { spawnSync } from 'node:child_process';
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { root, setup } from './setup.js';

setup({ tests: true });
const flags = process.argv.slice(2).filter(argument => argument.startsWith('--'));
const named = process.argv.slice(2).filter(argument => !argument.startsWith('--'));
const files = named
  .flatMap(name => {
    const path = join('test', name);
    if (!statSync(join(root, path)).isDirectory()) return [path];
    return readdirSync(join(root, path), { recursive: true }).map(file => join(path, file));
  })
  .filter(file => file.endsWith('.test.ts'))
  // The compiled copy of each source file: a test whose source is gone must not run from a stale build.
  .map(file => join('dist', `${file.slice(0, -'.ts'.length)}.js`))
  .sort();
if (files.length === 0) {
  process.stderr.write(`test: no *.test.ts below test/${named.join(', test/')}\n`);
  process.exit(1);
}
// A test that hangs is to fail by its name, well before whatever runs all of them gives up on them.
if (process.env.LONG !== '1') flags.push('--test-timeout=600000');
const result = spawnSync(process.execPath, ['--test', '--test-reporter=spec', ...flags, ...files], {
  cwd: root,
  stdio: 'inherit',
});
process.exit(result.status ?? 1);
