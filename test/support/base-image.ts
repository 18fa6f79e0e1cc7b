import { cpSync, mkdirSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Docker } from './docker.js';
import { must, requireTools } from './process.js';

export const BASE_IMAGE = 'local/node:20';

const APPLETS = [
  'sh',
  'ls',
  'cat',
  'id',
  'wget',
  'env',
  'sleep',
  'mkdir',
  'chown',
  'chmod',
  'rm',
  'cp',
  'mv',
  'stat',
  'ln',
];

/**
 * Imports a base image made of this machine's own Node, the libraries it needs and busybox, because no other image can
 * be had without a network. About 100 MB. It knows two users, root and node (1000), as the public Node images do. With a
 * folder that npm used as its cache, it has npm too, which then installs those packages without a network.
 */
export async function importBaseImage(docker: Docker, { npmCache }: { npmCache?: string } = {}): Promise<void> {
  requireTools('busybox', 'ldd', 'tar');
  const root = join(docker.dir, 'base');
  for (const folder of ['usr/local/bin', 'bin', 'usr/bin', 'etc', 'root', 'home/node'])
    mkdirSync(join(root, folder), { recursive: true });
  mkdirSync(join(root, 'tmp'));
  await must(['chmod', '1777', join(root, 'tmp')]);

  cpSync(process.execPath, join(root, 'usr/local/bin/node'));
  for (const [, library] of (await must(['ldd', process.execPath])).matchAll(/(?:=> |^\s*)(\/\S+)/gm)) {
    mkdirSync(join(root, dirname(library!)), { recursive: true });
    cpSync(realpathSync(library!), join(root, library!));
  }
  cpSync((await must(['sh', '-c', 'command -v busybox'])).trim(), join(root, 'bin/busybox'), { dereference: true });
  for (const applet of APPLETS) symlinkSync('busybox', join(root, 'bin', applet));
  symlinkSync('/bin/env', join(root, 'usr/bin/env'));
  const settings = npmCache === undefined ? [] : await addNpm(root, npmCache);
  writeFileSync(join(root, 'etc/passwd'), 'root:x:0:0::/root:/bin/sh\nnode:x:1000:1000::/home/node:/bin/sh\n');
  writeFileSync(join(root, 'etc/group'), 'root:x:0:\nnode:x:1000:\n');
  writeFileSync(join(root, 'etc/nsswitch.conf'), 'hosts: files dns\n');

  const archive = `${root}.tar`;
  await must(['tar', '--numeric-owner', '--owner=0', '--group=0', '-C', root, '-cf', archive, '.']);
  const variables = ['PATH=/usr/local/bin:/bin', ...settings].join(' ');
  await docker.must(['import', '-c', `ENV ${variables}`, archive, BASE_IMAGE]);
  rmSync(root, { recursive: true });
  rmSync(archive);
}

/** This machine's npm and what it needs to work from that cache alone: the settings, as variables. */
async function addNpm(root: string, cache: string): Promise<string[]> {
  const program = realpathSync((await must(['sh', '-c', 'command -v npm'])).trim());
  const registry = (await must(['npm', 'config', 'get', 'registry'], { env: { HOME: process.env.HOME ?? '' } })).trim();
  cpSync(dirname(dirname(program)), join(root, 'usr/local/lib/node_modules/npm'), { recursive: true });
  symlinkSync('../lib/node_modules/npm/bin/npm-cli.js', join(root, 'usr/local/bin/npm'));
  cpSync(cache, join(root, 'root/npm-cache'), { recursive: true });
  return ['npm_config_cache=/root/npm-cache', 'npm_config_offline=true', `npm_config_registry=${registry}`];
}
