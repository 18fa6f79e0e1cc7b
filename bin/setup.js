// What `npm run setup`, `npm start` and `npm test` share: install and build what is missing, and nothing else.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = dirname(dirname(fileURLToPath(import.meta.url)));

const read = path => (existsSync(path) ? readFileSync(path, 'utf8') : undefined);

function run(what, command, args) {
  process.stderr.write(`setup: ${what}\n`);
  // npm is a .cmd file on Windows, which only a shell can start; nothing here comes from outside.
  const result = spawnSync(command, args, { cwd: root, stdio: ['ignore', 2, 2], shell: process.platform === 'win32' });
  if (result.status === 0) return;
  process.stderr.write(
    `setup: failed: ${command} ${args.join(' ')}${result.error ? `: ${result.error.message}` : ''}\n`,
  );
  process.exit(1);
}

/** One line for each file below the folders: path, size and modification time. Changes whenever a build is due. */
function fingerprint(folders) {
  const hash = createHash('sha256');
  for (const folder of folders)
    for (const entry of readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
      .filter(entry => entry.isFile())
      .map(entry => join(entry.parentPath, entry.name))
      .sort()) {
      const { size, mtimeMs } = statSync(entry);
      hash.update(`${entry} ${size} ${mtimeMs}\n`);
    }
  for (const file of ['tsconfig.json', 'package-lock.json']) hash.update(readFileSync(join(root, file)));
  return hash.digest('hex');
}

/** Installs the dependencies where the lock file changed, then builds `src`, or `src` and `test`, where they changed. */
export function setup({ tests = false } = {}) {
  const lock = createHash('sha256')
    .update(readFileSync(join(root, 'package-lock.json')))
    .digest('hex');
  const installed = join(root, 'node_modules', '.setup');
  if (read(installed) !== lock) {
    run('installing dependencies (npm ci)', 'npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error']);
    writeFileSync(installed, lock);
  }
  const [stamp, folders, project] = tests
    ? ['dist/test.setup', ['src', 'test'], 'test/tsconfig.json']
    : ['dist/src.setup', ['src'], 'tsconfig.json'];
  const now = fingerprint(folders);
  if (read(join(root, stamp)) === now) return;
  run(`building ${folders.join(' and ')}`, process.execPath, ['node_modules/typescript/bin/tsc', '-p', project]);
  mkdirSync(join(root, 'dist'), { recursive: true });
  writeFileSync(join(root, stamp), now);
}

if (process.argv[1] && resolve(process.argv[1]) === fileURLToPath(import.meta.url)) setup();
