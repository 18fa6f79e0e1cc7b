import type { X509Certificate } from 'node:crypto';
import { join } from 'node:path';
import type { Surroundings } from '../trust/places.js';
import { isPresent } from '../trust/places.js';
import { quoted } from '../trust/shell.js';
import { TRUST_CLIENTS } from '../trust/table.js';
import type { Check, Say } from './check.js';
import { CLIENT_ERRORS } from './client-errors.js';
import { ask } from './connection.js';
import type { Registry } from './registry.js';
import { systemStore, textOf } from './stores.js';

export interface Login {
  readonly user: string;
  readonly password: string;
}

/** One file in which clients keep who is logged in where. */
interface AuthFile {
  readonly path: string;
  readonly client: 'docker' | 'podman';
}

/** Whether somebody is logged in under just this name, and whether the registry takes the login. */
export function credentialChecks(
  login: Login | undefined,
  authorities: (registry: Registry) => X509Certificate[],
): Check<Registry> {
  return {
    name: 'credentials',
    title: 'the login',
    run: async (registry, say) => {
      if (login) await tryLogin(registry, login, authorities(registry), 'the user', say);
      if (registry.answer?.status !== 401) return;
      for (const file of authFiles(registry.machine)) await checkFile(file, registry, authorities(registry), say);
    },
  };
}

function authFiles({ root, env, platform }: Surroundings): AuthFile[] {
  const home = env.HOME ?? '';
  const docker = env.DOCKER_CONFIG ?? join(root, home, '.docker');
  const podman =
    env.REGISTRY_AUTH_FILE ??
    (env.XDG_RUNTIME_DIR ? join(root, env.XDG_RUNTIME_DIR, 'containers/auth.json') : undefined);
  const machine = { root, env, platform };
  const present = (name: string) => TRUST_CLIENTS.some(client => client.name === name && isPresent(client, machine));
  return [
    ...(present('docker') || typeof textOf(join(docker, 'config.json')) === 'string'
      ? [{ path: join(docker, 'config.json'), client: 'docker' as const }]
      : []),
    ...(podman && typeof textOf(podman) === 'string' ? [{ path: podman, client: 'podman' as const }] : []),
  ];
}

interface Stored {
  readonly auths?: Record<string, { readonly auth?: string }>;
  readonly credHelpers?: Record<string, string>;
  readonly credsStore?: string;
}

async function checkFile(
  { path, client }: AuthFile,
  registry: Registry,
  authorities: X509Certificate[],
  say: Say,
): Promise<void> {
  const { reference } = registry;
  const commands = [`${client} login ${quoted(reference)}`];
  const text = textOf(path);
  let stored: Stored = {};
  if (typeof text === 'string')
    try {
      stored = JSON.parse(text) as Stored;
    } catch (error) {
      say.error(`${path} is no JSON: ${(error as Error).message}`, {
        fix: 'mend it, or move it away and log in again',
      });
      return;
    }
  const helper = stored.credHelpers?.[reference] ?? stored.credsStore;
  if (helper) {
    say.ok(`${path}: the login for ${reference} is kept by docker-credential-${helper}`);
    return;
  }
  const auths = stored.auths ?? {};
  const auth = auths[reference]?.auth;
  if (auth) {
    const [user = '', ...password] = Buffer.from(auth, 'base64').toString('utf8').split(':');
    await tryLogin(
      registry,
      { user, password: password.join(':') },
      authorities,
      `${path}: the login of`,
      say,
      commands,
    );
    return;
  }
  const near = Object.keys(auths).filter(key => hostOf(key) === hostOf(reference));
  const why =
    near.length > 0 ? `it has one for ${near.join(', ')}, which is not the same` : 'nobody is logged in there';
  say.warning(`${path} has no login for ${reference}: ${why}`, { error: 'no-login', commands });
}

/** Without scheme, port and path. */
const hostOf = (key: string): string =>
  key
    .replace(/^https?:\/\//, '')
    .replace(/\/.*$/, '')
    .replace(/:\d+$/, '')
    .toLowerCase();

/** A password goes to a server only that these authorities, or those of the system, vouch for. */
async function tryLogin(
  registry: Registry,
  { user, password }: Login,
  authorities: readonly X509Certificate[],
  whose: string,
  say: Say,
  commands?: readonly string[],
): Promise<void> {
  const { endpoint, machine } = registry;
  if (!endpoint || !registry.speaksTls) return;
  const ca = [...systemStore(machine).authorities, ...authorities].map(certificate => certificate.toString());
  const Authorization = `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`;
  const path = loginPath(registry);
  if (path === undefined) {
    say.ok(`${whose} ${user} was not tried: another server checks it`);
    return;
  }
  try {
    const { status } = await ask(endpoint, { path, headers: { Authorization }, ca });
    if (status === 200) say.ok(`${whose} ${user} can log in`);
    else if (status === 401)
      say.error(`${whose} ${user} is refused: the name or the password is not right`, {
        error: 'unauthorized',
        ...(commands ? { commands } : { fix: CLIENT_ERRORS.unauthorized.fix }),
      });
    else say.warning(`${whose} ${user}: the registry answers ${status}`);
  } catch (error) {
    say.warning(
      `${whose} ${user} was not tried: no password is sent to a server that is not trusted (${(error as Error).message})`,
    );
  }
}

/** Where this very server checks a password: at /v2/, or where it gives tokens out. Undefined where another one does. */
function loginPath({ answer, name, port }: Registry): string | undefined {
  const challenge = answer?.headers['www-authenticate'] ?? '';
  if (!/\bBearer\b/i.test(challenge) || /\bBasic\b/i.test(challenge)) return '/v2/';
  const [, realm = ''] = /realm="([^"]*)"/.exec(challenge) ?? [];
  const [, service] = /service="([^"]*)"/.exec(challenge) ?? [];
  if (!URL.canParse(realm)) return undefined;
  const url = new URL(realm);
  const same =
    url.protocol === 'https:' && url.hostname.replace(/^\[|\]$/g, '') === name && Number(url.port || 443) === port;
  if (!same) return undefined;
  if (service) url.searchParams.set('service', service);
  return url.pathname + url.search;
}
