import { randomUUID } from 'node:crypto';
import { readlinkSync } from 'node:fs';
import { open, readFile, stat, unlink, utimes } from 'node:fs/promises';
import { hostname } from 'node:os';
import { setTimeout as pause } from 'node:timers/promises';
import { OperatorError, systemCode } from './errors.js';

const HEARTBEAT = 2_000;
const LONGEST_WAIT = 60_000;
/** A lock gets its content just after its creation: one that stays empty was left so by a crash. */
const UNNAMED = 'unnamed';
const LONGEST_UNNAMED = 1_000;

/**
 * Runs the task while holding the lock file, which no other process or caller holds meanwhile. A lock that a killed
 * process left is broken: at once when it ran here, else when nobody has touched the file for `abandonedAfter`
 * milliseconds. The folder must exist and be writable. A task may ask whether the lock is still its own before a step
 * that cannot be undone: a process that was stopped for longer than `abandonedAfter` has lost it.
 * @throws OperatorError when a living process keeps the lock for a minute; whatever the task throws.
 */
export async function withLock<T>(
  path: string,
  task: (held: () => Promise<boolean>) => Promise<T>,
  abandonedAfter = 10_000,
): Promise<T> {
  const token = randomUUID();
  await acquire(path, token, abandonedAfter);
  const heartbeat = setInterval(() => {
    const now = new Date();
    utimes(path, now, now).catch(() => undefined);
  }, HEARTBEAT);
  heartbeat.unref();
  const held = async (): Promise<boolean> => (await read(path))?.token === token;
  try {
    return await task(held);
  } finally {
    clearInterval(heartbeat);
    if (await held()) await remove(path);
  }
}

interface Holder {
  readonly token: string;
  readonly pid: number;
  readonly machine: string;
  readonly touched: number;
}

async function acquire(path: string, token: string, abandonedAfter: number): Promise<void> {
  const start = performance.now();
  let seen: Holder | undefined;
  let seenSince = start;
  const content = JSON.stringify({ token, pid: process.pid, machine: machine() });
  for (;;) {
    const created = await create(path, content);
    const holder = await read(path);
    // Looked at again, since it may have been broken while it was still empty.
    if (created && holder?.token === token) return;
    if (!holder) continue;
    const now = performance.now();
    // Compared with our own clock only: the file's times may come from another machine's.
    if (holder.token !== seen?.token || holder.touched !== seen.touched) [seen, seenSince] = [holder, now];
    const patience = holder.token === UNNAMED ? Math.min(LONGEST_UNNAMED, abandonedAfter) : abandonedAfter;
    if (isDead(holder) || now - seenSince > patience) {
      // Who was to remove the lock may have died before: then that right is free again.
      if (now - seenSince > patience + abandonedAfter) await remove(rightTo(path, holder.token));
      await breakLock(path, holder.token);
      continue;
    }
    if (now - start > LONGEST_WAIT)
      throw new OperatorError(`${path} is held by process ${holder.pid} on ${holder.machine}`, {
        fix: 'wait for that process or end it, then run this again',
      });
    await pause(20 + Math.random() * 30);
  }
}

/** Only one of those who found the lock abandoned may remove it, and only while it is still that same lock. */
async function breakLock(path: string, token: string): Promise<void> {
  const right = rightTo(path, token);
  if (!(await create(right, ''))) {
    await pause(20);
    return;
  }
  if ((await read(path))?.token === token) await remove(path);
  await remove(right);
}

/** The file whose maker may remove the lock that has this token. */
function rightTo(path: string, token: string): string {
  return `${path}.${token}`;
}

/** False when the file exists. */
async function create(path: string, content: string): Promise<boolean> {
  try {
    const file = await open(path, 'wx', 0o600);
    try {
      await file.writeFile(content);
    } finally {
      await file.close();
    }
    return true;
  } catch (error) {
    if (systemCode(error) === 'EEXIST') return false;
    throw error;
  }
}

async function read(path: string): Promise<Holder | undefined> {
  try {
    const [content, { mtimeMs }] = await Promise.all([readFile(path, 'utf8'), stat(path)]);
    try {
      return { ...(JSON.parse(content) as Omit<Holder, 'touched'>), touched: mtimeMs };
    } catch {
      return { token: UNNAMED, pid: 0, machine: '', touched: mtimeMs };
    }
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

async function remove(path: string): Promise<void> {
  await unlink(path).catch(error => {
    if (systemCode(error) !== 'ENOENT') throw error;
  });
}

function isDead(holder: Holder): boolean {
  if (holder.pid <= 0 || holder.machine !== machine()) return false;
  try {
    process.kill(holder.pid, 0);
    return false;
  } catch (error) {
    return systemCode(error) === 'ESRCH';
  }
}

/** Where process ids mean the same: containers may share a host name and not their processes. */
function machine(): string {
  try {
    return `${hostname()} ${readlinkSync('/proc/self/ns/pid')}`;
  } catch {
    return hostname();
  }
}
