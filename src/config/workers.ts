import { readFileSync } from 'node:fs';
import { availableParallelism, totalmem } from 'node:os';

/** More processes than this gain little, and each takes memory. */
const MOST = 4;
/** What one process may come to need when it is busy, in bytes. */
const ROOM = 160 * 1024 * 1024;

/** What the number of processes depends on. */
export interface Machine {
  /** That this process may run on. */
  readonly cores: number;
  /** In bytes. */
  readonly memory: number;
  /** The text of a file below /proc or /sys; undefined where there is none. */
  readonly read: (path: string) => string | undefined;
}

/**
 * How many processes serve unless the operator says otherwise: as many as there are cores, counting a limit of the
 * container (`docker run --cpus 1.5` is two), as there is memory for, and four at most. Control groups are read here
 * because Node 20 counts cores and affinity only, and knows nothing of limits on processor time.
 */
export function usualWorkers(machine: Machine = thisMachine()): number {
  const groups = controlGroups(machine.read);
  const quota = Math.min(...groups.map(group => cpusOf(group, machine.read)));
  const memory = Math.min(machine.memory, ...groups.map(group => memoryOf(group, machine.read)));
  return Math.max(1, Math.min(MOST, machine.cores, Math.ceil(quota), Math.floor(memory / ROOM)));
}

function thisMachine(): Machine {
  return { cores: availableParallelism(), memory: totalmem(), read };
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

/** The folders of this process's control groups and of all above them that it can see: each limits it. */
function controlGroups(read: Machine['read']): string[] {
  const mounts = (read('/proc/self/mountinfo') ?? '').split('\n').flatMap(line => mountOf(line) ?? []);
  const memberships = (read('/proc/self/cgroup') ?? '').split('\n').map(line => /^\d+:([^:]*):(\/.*)$/.exec(line));
  return memberships.flatMap(found => {
    const [, controllers = '', path = ''] = found ?? [];
    const mount = found && mounts.find(({ serves }) => serves(controllers));
    if (!mount) return [];
    const { root, folder } = mount;
    // Without a namespace of its own a container sees the host's path, of which only the end is mounted.
    const within = `${path}/`.startsWith(`${root}/`) ? path.slice(root.length) : root === '/' ? path : '';
    const parts = within.split('/').filter(part => part !== '' && part !== '..');
    return [folder, ...parts.map((_, index) => [folder, ...parts.slice(0, index + 1)].join('/'))];
  });
}

interface Mount {
  /** The control group that is mounted here. */
  readonly root: string;
  readonly folder: string;
  /** Whether it is that of these controllers, as /proc/self/cgroup names them. */
  serves(controllers: string): boolean;
}

/** proc(5), /proc/PID/mountinfo; cgroups(7). */
function mountOf(line: string): Mount | undefined {
  const [before = '', after = ''] = line.split(' - ');
  const [, , , root, folder] = before.split(' ').map(text => text.replaceAll('\\040', ' '));
  const [type, , options = ''] = after.split(' ');
  if (root === undefined || folder === undefined) return undefined;
  // Version 2 has one tree, for all controllers; those of version 1 stand among the options of their mounts.
  if (type === 'cgroup2') return { root, folder, serves: controllers => controllers === '' };
  if (type !== 'cgroup') return undefined;
  const served = new Set(options.split(','));
  return { root, folder, serves: controllers => controllers.split(',').some(controller => served.has(controller)) };
}

/** How many cores' worth of time a group gets: `cpu.max` of version 2, the quota of version 1. */
function cpusOf(group: string, read: Machine['read']): number {
  const [quota, period] =
    read(`${group}/cpu.max`)?.trim().split(' ') ??
    ['cpu.cfs_quota_us', 'cpu.cfs_period_us'].map(name => read(`${group}/${name}`)?.trim());
  const cpus = Number(quota) / Number(period);
  return cpus > 0 ? cpus : Number.POSITIVE_INFINITY;
}

/** In bytes; version 1 writes a huge number where there is no limit. */
function memoryOf(group: string, read: Machine['read']): number {
  const limit = Number(read(`${group}/memory.max`) ?? read(`${group}/memory.limit_in_bytes`) ?? Number.NaN);
  return limit > 0 ? limit : Number.POSITIVE_INFINITY;
}
