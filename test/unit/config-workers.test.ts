import assert from 'node:assert/strict';
import { availableParallelism } from 'node:os';
import { describe, test } from 'node:test';
import { loadConfig } from '../../src/config/load.js';
import { type Machine, usualWorkers } from '../../src/config/workers.js';

const MIB = 1024 * 1024;
const NO_LIMIT = '9223372036854771712\n';

/** On a large machine whose files below /proc and /sys are these. */
function workers(files: Readonly<Record<string, string>>, machine: Partial<Machine> = {}): number {
  return usualWorkers({ cores: 64, memory: 64 * 1024 * MIB, read: path => files[path], ...machine });
}

/** Version 2 as a container sees it: its own group is the root of what is mounted. */
const V2 = {
  '/proc/self/cgroup': '0::/\n',
  '/proc/self/mountinfo': '1 0 0:1 / / rw - overlay overlay rw\n31 1 0:28 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n',
};
/** Version 1 as a container without a namespace of its own sees it: the host's path, of which only the end is mounted. */
const V1 = {
  '/proc/self/cgroup': '4:memory:/docker/f00\n2:cpu,cpuacct:/docker/f00\n1:name=systemd:/docker/f00\n0::/docker/f00\n',
  '/proc/self/mountinfo': [
    '32 1 0:29 /docker/f00 /sys/fs/cgroup/cpu,cpuacct ro,nosuid shared:1 - cgroup cgroup rw,cpu,cpuacct',
    '35 1 0:32 /docker/f00 /sys/fs/cgroup/memory ro,nosuid shared:2 - cgroup cgroup rw,memory',
    '38 1 0:37 /docker/f00 /sys/fs/cgroup/systemd ro - cgroup cgroup rw,xattr,name=systemd',
  ].join('\n'),
};

describe('how many processes serve unless told', () => {
  test('one for each core, and four at most', () => {
    assert.deepEqual(
      [1, 2, 3, 4, 5, 64].map(cores => workers({}, { cores })),
      [1, 2, 3, 4, 4, 4],
    );
  });

  test('one for each 160 MiB of memory, and one at least', () => {
    assert.deepEqual(
      [64, 159, 319, 320, 480, 4096].map(size => workers({}, { memory: size * MIB })),
      [1, 1, 1, 2, 3, 4],
    );
  });

  for (const [what, files, expected] of [
    ['no limit', { 'cpu.max': 'max 100000\n', 'memory.max': 'max\n' }, 4],
    ['a core and a half', { 'cpu.max': '150000 100000\n' }, 2],
    ['half a core', { 'cpu.max': '25000 50000\n' }, 1],
    ['a period that is not the usual one', { 'cpu.max': '30000 10000\n' }, 3],
    ['little memory', { 'cpu.max': 'max 100000\n', 'memory.max': `${256 * MIB}\n` }, 1],
    ['what is no number', { 'cpu.max': 'x\n', 'memory.max': '\n' }, 4],
  ] as const)
    test(`version 2: ${what}`, () => {
      const own = Object.entries(files).map(([name, text]) => [`/sys/fs/cgroup/${name}`, text]);
      assert.equal(workers({ ...V2, ...Object.fromEntries(own) }), expected);
    });

  test('version 2: the least of the groups from the own one up to the root', () => {
    const nested = { ...V2, '/proc/self/cgroup': '0::/system.slice/registry.service\n' };
    const at = (own: string, above: string) => ({
      ...nested,
      '/sys/fs/cgroup/system.slice/registry.service/cpu.max': own,
      '/sys/fs/cgroup/system.slice/cpu.max': above,
    });
    assert.equal(workers(at('300000 100000', '200000 100000')), 2);
    assert.equal(workers(at('100000 100000', '200000 100000')), 1);
    assert.equal(workers(at('max 100000', 'max 100000')), 4);
    assert.equal(workers({ ...nested, '/sys/fs/cgroup/system.slice/memory.max': `${400 * MIB}` }), 2);
  });

  test('version 1: quota and memory, each in a tree of its own', () => {
    const cpu = (quota: string, period = '100000') => ({
      ...V1,
      '/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us': `${quota}\n`,
      '/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us': `${period}\n`,
      '/sys/fs/cgroup/memory/memory.limit_in_bytes': NO_LIMIT,
    });
    assert.equal(workers(cpu('-1')), 4);
    assert.equal(workers(cpu('150000')), 2);
    assert.equal(workers(cpu('50000', '50000')), 1);
    assert.equal(workers({ ...cpu('-1'), '/sys/fs/cgroup/memory/memory.limit_in_bytes': `${500 * MIB}\n` }), 3);
  });

  test('version 1 beside version 2, on a host', () => {
    const files = {
      '/proc/self/cgroup': '4:memory:/\n1:cpu:/system.slice/registry.service\n0::/system.slice/registry.service\n',
      '/proc/self/mountinfo': [
        '32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu',
        '33 31 0:30 / /sys/fs/cgroup/cpuacct rw - cgroup cgroup rw,cpuacct',
        '41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw',
      ].join('\n'),
      '/sys/fs/cgroup/cpu/cpu.cfs_quota_us': '-1',
      '/sys/fs/cgroup/cpu/system.slice/registry.service/cpu.cfs_quota_us': '200000',
      '/sys/fs/cgroup/cpu/system.slice/registry.service/cpu.cfs_period_us': '100000',
    };
    assert.equal(workers(files), 2);
  });

  test('a folder with a space in its name', () => {
    const files = {
      '/proc/self/cgroup': '0::/\n',
      '/proc/self/mountinfo': '31 1 0:28 / /mnt/control\\040groups rw - cgroup2 cgroup2 rw',
      '/mnt/control groups/cpu.max': '100000 100000',
    };
    assert.equal(workers(files), 1);
  });

  test('where there are no control groups, or none are mounted', () => {
    assert.equal(workers({ '/proc/self/cgroup': '0::/x\n' }, { cores: 3 }), 3);
    assert.equal(workers({ '/proc/self/mountinfo': V2['/proc/self/mountinfo'] }, { cores: 3 }), 3);
  });

  test('this machine has some answer, which is the default of the configuration', () => {
    const usual = usualWorkers();
    assert.ok(usual >= 1 && usual <= Math.min(4, availableParallelism()), `${usual}`);
    const { config, sources } = loadConfig({ dir: '/srv', env: {}, standardFiles: false });
    assert.deepEqual([config.workers, sources.get('workers')], [usual, 'default']);
  });
});
