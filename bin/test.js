// `npm test` and its kin: set up, then run the named folders of test/ (or single files) with node:test. `--without=FILE`
// leaves one out.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { root, setup, typesFit } from './setup.js';

setup({ tests: true });
const WITHOUT = '--without=';
const given = process.argv.slice(2);
const flags = given.filter(argument => argument.startsWith('--') && !argument.startsWith(WITHOUT));
const named = given.filter(argument => !argument.startsWith('--'));
const without = given
  .filter(argument => argument.startsWith(WITHOUT))
  .map(argument => join('test', argument.slice(WITHOUT.length)));
const files = named
  .flatMap(name => {
    const path = join('test', name);
    if (!statSync(join(root, path)).isDirectory()) return [path];
    return readdirSync(join(root, path), { recursive: true }).map(file => join(path, file));
  })
  .filter(file => file.endsWith('.test.ts') && !without.includes(file))
  // The compiled copy of each source file: a test whose source is gone must not run from a stale build.
  .map(file => join('dist', `${file.slice(0, -'.ts'.length)}.js`))
  .sort();
if (files.length === 0) {
  process.stderr.write(`test: no *.test.ts below test/${named.join(', test/')}\n`);
  process.exit(1);
}
// A test that hangs is to fail by its name, well before whatever runs all of them gives up on them.
const { LONG, COUNT, SWIFT_TEST, CEPH_TEST, MINIO_TEST } = process.env;
if (LONG !== '1') flags.push(`--test-timeout=${COUNT || SWIFT_TEST || CEPH_TEST || MINIO_TEST ? 3_600_000 : 600_000}`);
const tests = spawn(process.execPath, ['--test', '--test-reporter=spec', ...flags, ...files], {
  cwd: root,
  stdio: 'inherit',
});
const [[status], fit] = await Promise.all([once(tests, 'close'), typesFit()]);
if (!fit) process.stderr.write('test: the types do not fit; see what the compiler says above\n');
process.exit(fit ? (status ?? 1) : 1);
