import { cpSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { BASE_IMAGE, importBaseImage } from './base-image.js';
import { CHECKOUT, npmEnvironment } from './checkout.js';
import type { Docker } from './docker.js';
import { must } from './process.js';

/**
 * Makes `docker build` of this checkout work without a network. Outside of the namespace npm fills a cache with the packages
 * of the lock file; the base image that the Dockerfile names is then one of this machine's own Node and npm, with that
 * cache, from which the build's own `npm ci` installs.
 */
export async function provideBaseImage(docker: Docker): Promise<void> {
  const folder = join(docker.dir, 'packages');
  const npmCache = join(folder, 'cache');
  mkdirSync(npmCache, { recursive: true });
  for (const file of ['package.json', 'package-lock.json', '.npmrc']) cpSync(join(CHECKOUT, file), join(folder, file));
  const env = npmEnvironment({ npm_config_cache: npmCache, npm_config_ignore_scripts: 'true' });
  const patience = { timeout: 400_000 };
  await must(['npm', 'ci', '--loglevel=error'], { cwd: folder, env: env as Record<string, string>, ...patience });
  await importBaseImage(docker, { npmCache });
  const [, named] = /^ARG NODE_IMAGE=(\S+)$/m.exec(readFileSync(join(CHECKOUT, 'Dockerfile'), 'utf8')) ?? [];
  await docker.must(['tag', BASE_IMAGE, named!]);
}
