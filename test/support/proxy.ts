import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CHECKOUT } from './checkout.js';
import type { Namespace } from './namespace.js';
import { type Daemon, requireTools } from './process.js';

/** The recipes of docs/realms.md for a web server, in their order. */
export function recipes(language: 'nginx' | 'apache'): string[] {
  const text = readFileSync(join(CHECKOUT, 'docs', 'realms.md'), 'utf8');
  const blocks = text.matchAll(new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\`$`, 'gm'));
  return [...blocks].map(([, block]) => block!);
}

/** Debian's nginx with one recipe, which finds its files where it says, in the /etc of the namespace. */
export async function startNginx(namespace: Namespace, recipe: string): Promise<Daemon> {
  requireTools('nginx');
  const dir = join(namespace.dir, 'nginx');
  mkdirSync(dir, { recursive: true });
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    name => `${name}_temp_path ${dir}/${name};`,
  );
  writeFileSync(
    join(dir, 'nginx.conf'),
    `user root;\ndaemon off;\npid ${dir}/pid;\nevents {}\nhttp {\naccess_log off;\n${temporary.join('\n')}\n${recipe}}\n`,
  );
  const daemon = namespace.start('nginx', ['nginx', '-p', dir, '-c', join(dir, 'nginx.conf'), '-e', 'stderr']);
  await daemon.ready(() => namespace.answers('https://registry.example.com/'));
  return daemon;
}

const MODULES = [
  ['mpm_event', 'authn_core', 'authn_file', 'authz_core', 'authz_user', 'auth_basic'],
  ['socache_shmcb', 'ssl', 'proxy', 'proxy_http', 'headers'],
].flat();

/** Debian's Apache with one recipe. */
export async function startApache(namespace: Namespace, recipe: string): Promise<Daemon> {
  requireTools('apache2');
  const dir = join(namespace.dir, 'apache2');
  mkdirSync(dir, { recursive: true });
  const modules = MODULES.map(name => `LoadModule ${name}_module /usr/lib/apache2/modules/mod_${name}.so`);
  writeFileSync(
    join(dir, 'apache2.conf'),
    `${modules.join('\n')}
ServerRoot ${dir}
ServerName registry.example.com
DefaultRuntimeDir ${dir}
PidFile ${dir}/pid
ErrorLog /dev/stderr
User www-data
Group www-data
Listen 443
${recipe}`,
  );
  const daemon = namespace.start('apache2', ['apache2', '-f', join(dir, 'apache2.conf'), '-DFOREGROUND']);
  await daemon.ready(() => namespace.answers('https://registry.example.com/'));
  return daemon;
}
