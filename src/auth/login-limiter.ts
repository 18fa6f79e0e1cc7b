import { isIPv6 } from 'node:net';
import { RegistryError } from '../errors.js';
import { growingCache } from '../growing-cache.js';
import { NOBODY, type Others } from '../others.js';

interface Rate {
  /** How many failures are free. */
  readonly burst: number;
  /** How many failures a second are forgiven. */
  readonly forgiven: number;
}

const TOPIC = 'login';

interface Login {
  readonly user: string;
  readonly network: string;
  readonly right: boolean;
}

/** One user name from one network: a person's typing errors, and ten guesses a minute. */
const PER_USER: Rate = { burst: 10, forgiven: 1 / 6 };
/** All names together from one network: behind one address there may be a whole company. */
const PER_NETWORK: Rate = { burst: 100, forgiven: 1 };
/** Of each kind; those that nobody has used for longest are forgotten, which only forgives them. */
const MOST_BUCKETS = 10_000;

/**
 * A token bucket for each user name in each network and for each network: who fails too often is told to wait, and costs
 * no hashing. Nobody is locked out for good, or because of what another network does; and right credentials that are
 * remembered never come here. Only failures are charged, so however many right logins a network has, they pass.
 */
export class LoginLimiter {
  readonly #users = new Buckets(PER_USER);
  readonly #networks = new Buckets(PER_NETWORK);

  /** @param others processes that serve the same port: what is charged in one is charged in all */
  constructor(private readonly others: Others = NOBODY) {
    others.hear(TOPIC, value => {
      const { user, network, right } = value as Login;
      if (right) this.#forgive(user, network);
      else this.#charge(user, network);
    });
  }

  /** Before the work of a check. @throws RegistryError TOOMANYREQUESTS with Retry-After, for known and unknown users alike */
  admit(user: string, network: string): void {
    const wait = Math.max(this.#users.wait(userIn(network, user)), this.#networks.wait(network));
    if (wait > 0)
      throw new RegistryError('TOOMANYREQUESTS', {
        message: 'too many failed logins',
        headers: { 'Retry-After': String(Math.ceil(wait)) },
      });
  }

  failed(user: string, network: string): void {
    this.#charge(user, network);
    this.others.tell(TOPIC, { user, network, right: false } satisfies Login);
  }

  /** Who has found the right password in the end starts anew. */
  succeeded(user: string, network: string): void {
    if (this.#users.owes(userIn(network, user)))
      this.others.tell(TOPIC, { user, network, right: true } satisfies Login);
    this.#forgive(user, network);
  }

  #charge(user: string, network: string): void {
    this.#users.charge(userIn(network, user));
    this.#networks.charge(network);
  }

  #forgive(user: string, network: string): void {
    this.#users.forget(userIn(network, user));
  }
}

class Buckets {
  /** When all that was charged will be forgiven, in seconds of `performance.now`. */
  readonly #forgivenAt = growingCache<string, number>(MOST_BUCKETS);

  constructor(private readonly rate: Rate) {}

  /** Seconds until the next failure may be risked; 0 for now. Checks under way when the last one is charged make it longer. */
  wait(key: string): number {
    const owed = ((this.#forgivenAt.get(key) ?? 0) - now()) * this.rate.forgiven;
    return Math.max(0, owed - (this.rate.burst - 1)) / this.rate.forgiven;
  }

  charge(key: string): void {
    this.#forgivenAt.set(key, Math.max(this.#forgivenAt.get(key) ?? 0, now()) + 1 / this.rate.forgiven);
  }

  owes(key: string): boolean {
    return this.#forgivenAt.has(key);
  }

  forget(key: string): void {
    this.#forgivenAt.delete(key);
  }
}

const now = (): number => performance.now() / 1000;

/** No network holds a space. To a directory the case of a name is nothing: its spellings are no further guesses. */
const userIn = (network: string, user: string): string => `${network} ${user.toLowerCase()}`;

/**
 * What counts as one source of logins: an IPv4 address, or the 64 bits of an IPv6 network, since one host has as many
 * addresses below them as it likes.
 * @param address as `Socket.remoteAddress` gives it; undefined once the client is gone
 */
export function networkOf(address = ''): string {
  if (!address.includes(':')) return address;
  const mapped = /^::ffff:([\d.]+)$/.exec(address)?.[1];
  if (mapped !== undefined || !isIPv6(address)) return mapped ?? address;
  const [head = '', tail] = address.replace(/%.*$/, '').split('::');
  const groups = head === '' ? [] : head.split(':');
  const last = tail ? tail.split(':') : [];
  const zeros = tail === undefined ? [] : Array<string>(8 - groups.length - last.length).fill('0');
  return [...groups, ...zeros, ...last].slice(0, 4).join(':');
}
