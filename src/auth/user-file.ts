import { BcryptPool } from './bcrypt-pool.js';
import type { HtpasswdCredentials } from './credentials.js';
import { addUser, changePassword, removeUser } from './htpasswd-edit.js';
import { loadHtpasswd } from './htpasswd-file.js';
import { LoginLimiter } from './login-limiter.js';

/** One user of the password file. */
export interface FileUser {
  /** In Unicode NFC. */
  readonly name: string;
  /** Why this user cannot log in; undefined for one who can. */
  readonly problem: string | undefined;
}

/** The users of an htpasswd file, while a registry serves them: a change is on the disk, and counts here, when it resolves. */
export class UserFile {
  readonly #bcrypt = new BcryptPool();
  readonly #limiter = new LoginLimiter();

  /** @param source those of the file who can log in here */
  constructor(
    private readonly file: string,
    private readonly source: Pick<HtpasswdCredentials, 'reload' | 'verify'>,
  ) {}

  /** In the order of their names. @throws OperatorError */
  async list(): Promise<FileUser[]> {
    const { entries } = await loadHtpasswd(this.file);
    // Of several lines for one user the last counts.
    const accounts = new Map(entries.map(({ name, problem }) => [name, { name, problem }]));
    return [...accounts.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** Undefined where there is no such user. @throws OperatorError */
  async find(name: string): Promise<FileUser | undefined> {
    return (await this.list()).find(account => account.name === name);
  }

  /** @param network who asks for it, as for `BcryptPool` @throws as `addUser`; RegistryError as `BcryptPool.hash` */
  async add(name: string, password: string, network: string): Promise<void> {
    await addUser(this.file, name, password, this.#hasher(network));
    await this.source.reload();
  }

  /** @throws as `changePassword`; RegistryError as `BcryptPool.hash` */
  async setPassword(name: string, password: string, network: string): Promise<void> {
    await changePassword(this.file, name, password, this.#hasher(network));
    await this.source.reload();
  }

  /** @throws as `removeUser` */
  async remove(name: string): Promise<void> {
    await removeUser(this.file, name);
    await this.source.reload();
  }

  /** Whether a password is the user's, within the bounds of logins. @throws RegistryError as `LoginLimiter.admit` and `CredentialSource.verify` */
  async confirms(name: string, password: string, network: string): Promise<boolean> {
    this.#limiter.admit(name, network);
    const right = await this.source.verify(name, password, network);
    if (right) this.#limiter.succeeded(name, network);
    else this.#limiter.failed(name, network);
    return right;
  }

  #hasher(network: string) {
    return (password: string, cost: number) => this.#bcrypt.hash({ password, cost, network });
  }
}
