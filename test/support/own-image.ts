import { cpSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { BASE_IMAGE, importBaseImage } from './base-image.js';
import { CHECKOUT, npmEnvironment } from './checkout.js';
import type { Docker } from './docker.js';
import { must } from './process.js';

/**
 * Builds the image of this checkout by its Dockerfile as it is, but for the base image. Outside of the namespace npm fills
 * a cache with the packages of the lock file; inside, without a network, the build's own `npm ci` installs from it.
 */
export async function buildOwnImage(docker: Docker, tag: string): Promise<void> {
  const folder = join(docker.dir, 'packages');
  const npmCache = join(folder, 'cache');
  mkdirSync(npmCache, { recursive: true });
  for (const file of ['package.json', 'package-lock.json', '.npmrc']) cpSync(join(CHECKOUT, file), join(folder, file));
  const env = npmEnvironment({ npm_config_cache: npmCache, npm_config_ignore_scripts: 'true' });
  await must(['npm', 'ci', '--loglevel=error'], { cwd: folder, env: env as Record<string, string> });
  await importBaseImage(docker, { npmCache });
  await docker.must(['build', '--network', 'none', '-t', tag, '--build-arg', `NODE_IMAGE=${BASE_IMAGE}`, CHECKOUT], {
    timeout: 300_000,
  });
}
