// What `npm run setup`, `npm start` and `npm test` share: install and build what is missing, and nothing else.
import './node-version.js';
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = dirname(dirname(fileURLToPath(import.meta.url)));

const read = path => (existsSync(path) ? readFileSync(path, 'utf8') : undefined);

class SetupError extends Error {}

/** @throws SetupError when the command fails; what it has to say is on standard error by then. */
function run(what, command, args, fix) {
  process.stderr.write(`setup: ${what}\n`);
  // npm is a .cmd file on Windows, which only a shell can start; nothing here comes from outside.
  const result = spawnSync(command, args, { cwd: root, stdio: ['ignore', 2, 2], shell: process.platform === 'win32' });
  if (result.status === 0) return;
  const why = result.error?.message ?? (result.signal ? `ended by ${result.signal}` : `exit code ${result.status}`);
  throw new SetupError(`failed (${why}): ${command} ${args.join(' ')}; ${fix}`);
}

/** Changes whenever a build is due: with a file below the folders, the compiler's settings, or the packages. */
function fingerprint(folders) {
  const hash = createHash('sha256');
  for (const file of folders.flatMap(filesBelow)) {
    const { size, mtimeMs } = statSync(join(root, file));
    hash.update(`${file} ${size} ${mtimeMs}\n`);
  }
  for (const file of ['tsconfig.json', 'package-lock.json']) hash.update(readFileSync(join(root, file)));
  return hash.digest('hex');
}

function filesBelow(folder) {
  if (!existsSync(join(root, folder))) return [];
  return readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile())
    .map(entry => relative(root, join(entry.parentPath, entry.name)))
    .sort();
}

/** What was built from a source that is gone would still be found by imports, and packed. */
function removeStale(folders) {
  for (const file of folders.flatMap(folder => filesBelow(join('dist', folder))))
    if (!existsSync(join(root, relative('dist', file).replace(/\.js$/, '.ts')))) rmSync(join(root, file));
}

const LOCK = join(root, 'dist', 'setup.lock');

/** Two of these commands at once take turns: one installs and builds, the other then finds all of it done. */
function locked(task) {
  mkdirSync(dirname(LOCK), { recursive: true });
  for (let told = false; ; told = true) {
    try {
      writeFileSync(LOCK, `${process.pid}`, { flag: 'wx' });
      break;
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
    }
    const holder = Number(read(LOCK));
    // Empty for the moment between its creation and its content.
    if (holder && !isRunning(holder) && read(LOCK) === `${holder}`) rmSync(LOCK, { force: true });
    else if (!told) process.stderr.write(`setup: waiting for process ${holder || ''} (else remove ${LOCK})\n`);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50);
  }
  try {
    return task();
  } finally {
    rmSync(LOCK, { force: true });
  }
}

function isRunning(pid) {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return error.code !== 'ESRCH';
  }
}

/** Whether the types of `src` and `test` fit, by the compiler, which says where they do not. */
export async function typesFit() {
  const stamp = join(root, 'dist', 'types.setup');
  const now = fingerprint(['src', 'test']);
  if (read(stamp) === now) return true;
  const tsc = join('node_modules', 'typescript', 'bin', 'tsc');
  const child = spawn(process.execPath, [tsc, '-p', 'test/tsconfig.json', '--noEmit'], { cwd: root });
  const said = [];
  for (const stream of [child.stdout, child.stderr]) stream.on('data', chunk => said.push(chunk));
  const [status] = await once(child, 'close');
  process.stderr.write(Buffer.concat(said));
  if (status === 0) writeFileSync(stamp, now);
  return status === 0;
}

/** Installs the dependencies where the lock file changed, then builds `src`, or `src` and `test`, where they changed. */
export function setup({ tests = false } = {}) {
  const [stamp, folders, project] = tests
    ? ['dist/test.setup', ['src', 'test'], 'test/tsconfig.json']
    : ['dist/src.setup', ['src'], 'tsconfig.json'];
  const installed = join(root, 'node_modules', '.setup');
  const lock = createHash('sha256')
    .update(readFileSync(join(root, 'package-lock.json')))
    .digest('hex');
  const isInstalled = () => read(installed) === lock;
  const isBuilt = () => read(join(root, stamp)) === fingerprint(folders);
  if (isInstalled() && isBuilt() && !existsSync(LOCK)) return;
  try {
    locked(() => {
      if (!isInstalled()) {
        const fix = 'see what npm says above; the packages come from the npm registry, so check the network or proxy';
        run('installing dependencies (npm ci)', 'npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'], fix);
        writeFileSync(installed, lock);
      }
      if (isBuilt()) return;
      const now = fingerprint(folders);
      const tsc = [join('node_modules', 'typescript', 'bin', 'tsc'), '-p', project];
      // Nobody need wait for the types: bin/test.js looks at them beside the tests, and `npm pack` does.
      tsc.push('--noCheck');
      run(`building ${folders.join(' and ')}`, process.execPath, tsc, 'see what the compiler says above');
      removeStale(folders);
      writeFileSync(join(root, stamp), now);
    });
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    process.stderr.write(`setup: ${error.message}\n`);
    process.exit(1);
  }
}

if (process.argv[1] && resolve(process.argv[1]) === fileURLToPath(import.meta.url)) setup();
