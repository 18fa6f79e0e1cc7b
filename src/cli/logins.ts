import { execFile } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { RegistryLogin } from '../copy/registry-client.js';
import { systemStore } from '../doctor/stores.js';
import { OperatorError, systemCode } from '../errors.js';
import { readPem } from '../pki/inspect.js';
import { THIS_MACHINE } from '../trust/places.js';

export type Login = RegistryLogin;

/** Whom a client of this machine trusts: the authority that is named, else that of the folder and those of the system. In PEM. */
export async function authoritiesOf({ ca, dir }: { ca?: string; dir: string }): Promise<readonly (string | Buffer)[]> {
  if (ca !== undefined) return [await readPem(ca)];
  const own = join(dir, 'certs', 'ca.crt');
  return [
    ...(existsSync(own) ? [await readPem(own)] : []),
    ...systemStore(THIS_MACHINE).authorities.map(certificate => certificate.toString()),
  ];
}

/** How long a credential helper may take (ms): some ask their user. */
const HELPER_PATIENCE = 60_000;

/** What docker and podman write where they keep logins. */
interface Kept {
  readonly auths?: Readonly<Record<string, { readonly auth?: unknown }>>;
  readonly credHelpers?: Readonly<Record<string, string>>;
  readonly credsStore?: string;
}

/**
 * The login that docker, or else podman, keeps for a registry, by a credential helper where they use one; undefined for none.
 * @param host as the logins are kept under @throws OperatorError where the helper is not here
 */
export async function keptLogin(host: string): Promise<Login | undefined> {
  for (const file of loginFiles()) {
    const { credHelpers, credsStore, auths } = read(file);
    const helper = credHelpers?.[host] ?? credsStore;
    const login = (helper && (await fromHelper(helper, host))) || decoded(auths?.[host]?.auth);
    if (login) return login;
  }
  return undefined;
}

function read(file: string): Kept {
  try {
    return parsed(readFileSync(file, 'utf8'));
  } catch {
    return {};
  }
}

/** Where logins are kept. */
export function loginFiles(): string[] {
  const { DOCKER_CONFIG, HOME = '', REGISTRY_AUTH_FILE, XDG_RUNTIME_DIR } = process.env;
  const podman = REGISTRY_AUTH_FILE ?? (XDG_RUNTIME_DIR && join(XDG_RUNTIME_DIR, 'containers/auth.json'));
  return [
    join(DOCKER_CONFIG ?? join(HOME, '.docker'), 'config.json'),
    ...(podman && existsSync(podman) ? [podman] : []),
  ];
}

function decoded(auth: unknown): Login | undefined {
  if (typeof auth !== 'string') return undefined;
  const [user = '', ...password] = Buffer.from(auth, 'base64').toString('utf8').split(':');
  return user === '' ? undefined : { user, password: password.join(':') };
}

/** By the protocol of docker-credential-helpers: the host on its input, the login as JSON on its output. */
function fromHelper(name: string, host: string): Promise<Login | undefined> {
  if (!/^[\w.-]+$/.test(name)) return Promise.resolve(undefined);
  return new Promise((resolve, reject) => {
    const options = { timeout: HELPER_PATIENCE, maxBuffer: 1024 * 1024 };
    const child = execFile(`docker-credential-${name}`, ['get'], options, (error, stdout) => {
      if (error && systemCode(error) === 'ENOENT') {
        reject(
          new OperatorError(`the login for ${host} is kept by docker-credential-${name}, which is not here`, {
            fix: 'install it, or say whom to log in as',
          }),
        );
        return;
      }
      // It fails where it knows of no login.
      const { Username: user, Secret: password } = error ? {} : (parsed(stdout) as Record<string, unknown>);
      resolve(typeof user === 'string' && typeof password === 'string' ? { user, password } : undefined);
    });
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(host);
  });
}

function parsed(text: string): object {
  try {
    return (JSON.parse(text) as object | null) ?? {};
  } catch {
    return {};
  }
}
