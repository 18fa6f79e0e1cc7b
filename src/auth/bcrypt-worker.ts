import { getPriority, setPriority } from 'node:os';
import { parentPort } from 'node:worker_threads';
import { compareSync, genSaltSync, hashSync } from 'bcryptjs';
import { bcryptCost } from './htpasswd.js';
import { legacyMatches } from './legacy-hash.js';

/** One check; the answer is a boolean. */
export interface BcryptCheck {
  /** The spellings of the password, any of which may match. None is over 72 bytes. */
  readonly passwords: readonly string[];
  readonly hash: string;
  /** A check that fails does as much work as one at this cost. */
  readonly cost: number;
}

/** A new password; the answer is its hash. */
export interface BcryptHash {
  readonly password: string;
  readonly cost: number;
}

/**
 * Where cores are few, who is logged in already comes first. Only Linux has a priority for each thread (setpriority(2)
 * with 0: the thread that calls); elsewhere it would be that of the whole process.
 */
if (process.platform === 'linux')
  try {
    setPriority(0, Math.min(19, getPriority(0) + 5));
  } catch {
    // A sandbox may forbid it: then logins and transfers share as before.
  }

parentPort!.on('message', (task: BcryptCheck | BcryptHash) => {
  if ('password' in task) return parentPort!.postMessage(hashSync(task.password, task.cost));
  const { passwords, hash, cost } = task;
  const own = bcryptCost(hash);
  const right = passwords.some(password =>
    own === undefined ? legacyMatches(password, hash) : compareSync(password, hash),
  );
  if (!right)
    for (const password of passwords)
      if (own === undefined) hashSync(password, genSaltSync(cost));
      else pad(password, own, cost);
  parentPort!.postMessage(right);
});

/** Work doubles with each step of the cost, so 2^done + (2^done + … + 2^(wanted-1)) = 2^wanted. */
function pad(password: string, done: number, wanted: number): void {
  for (let cost = done; cost < wanted; cost++) hashSync(password, genSaltSync(cost));
}
