import { accessSync, constants, existsSync, statSync } from 'node:fs';
import { delimiter, join, posix, win32 } from 'node:path';
import { CONFIG_HOME, type Place, type Target, type TrustClient } from './client.js';

/** A machine as clients on it see it: its own, an image that is mounted somewhere, or one that a test has made. */
export interface Surroundings {
  /** The folder that stands for `/`. */
  readonly root: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly platform: NodeJS.Platform;
}

export const THIS_MACHINE: Surroundings = { root: '/', env: process.env, platform: process.platform };

/** The path of a place on a machine; undefined where what it begins with is unknown there. */
export function locate(place: Place, { root, env, platform }: Surroundings): string | undefined {
  const variable = /^\$env:(\w+)/.exec(place);
  if (variable) {
    const folder = platform === 'win32' ? env[variable[1]!] : undefined;
    return folder === undefined ? undefined : win32.join(folder, place.slice(variable[0].length));
  }
  if (platform === 'win32') return undefined;
  const prefix = [CONFIG_HOME, `\${XDG_RUNTIME_DIR}`, '$HOME'].find(known => place.startsWith(known)) ?? '';
  const start = folderOf(prefix, env);
  const path = start === undefined ? undefined : posix.join(start, place.slice(prefix.length));
  return path?.startsWith('/') ? join(root, path) : undefined;
}

function folderOf(prefix: string, env: Surroundings['env']): string | undefined {
  if (prefix === CONFIG_HOME) return env.XDG_CONFIG_HOME || (env.HOME && `${env.HOME}/.config`);
  if (prefix === '$HOME') return env.HOME || undefined;
  return prefix === '' ? '/' : env.XDG_RUNTIME_DIR || undefined;
}

/** Whether the client can be seen on the machine. */
export function isPresent(client: TrustClient, machine: Surroundings): boolean {
  if (!runsOn(client, machine.platform)) return false;
  return client.present.some(signs =>
    signs.every(sign => {
      if (/^[\w.-]+$/.test(sign)) return hasCommand(sign, machine);
      const path = locate(sign, machine);
      return path !== undefined && existsSync(path);
    }),
  );
}

/** Whether the client's instructions are for this kind of system. */
export function runsOn({ system }: TrustClient, platform: NodeJS.Platform): boolean {
  if (platform === 'win32') return system === 'windows';
  return system === 'unix' || system === (platform === 'darwin' ? 'macos' : 'linux');
}

/** Where daemons are, which the search path of an ordinary user leaves out. */
const USUAL_FOLDERS = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'];

function hasCommand(command: string, { root, env, platform }: Surroundings): boolean {
  // The search path of this machine says nothing of another one.
  const own = root === '/' ? (env.PATH ?? '').split(delimiter).filter(folder => folder !== '') : [];
  const folders = platform === 'win32' ? own : [...own, ...USUAL_FOLDERS];
  return folders.some(folder => isExecutable(join(root, folder, command)));
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

/** One file that a client looks up for a registry. */
export interface ClientFile {
  readonly holds: 'ca' | 'certificate' | 'key' | 'settings';
  readonly place: Place;
  readonly root: boolean;
}

/** The files of a client for a registry, those of a client certificate included. */
export function filesOf(client: TrustClient, host: string): ClientFile[] {
  const target: Target = {
    host,
    ca: 'ca.crt',
    pem: '',
    authorities: [],
    pair: { certificate: 'client.cert', key: 'client.key' },
    image: '',
  };
  return client.steps(target).flatMap((step): ClientFile[] => {
    if ('run' in step) return [];
    return [{ holds: 'copy' in step ? step.copy : 'settings', place: step.to, root: step.root }];
  });
}
