import { readFileSync, writeFileSync } from 'node:fs';

/** What a server has used while it was watched. */
export interface Usage {
  /** User and system time (s). */
  readonly cpu: number;
  /**
   * The most memory (MiB) that the machine would get back if it ended (proportional set size: what several processes share
   * counts once), as looked at twice a second.
   */
  readonly pss: number;
  /** Peak resident memory (MiB) as the kernel keeps it. Of several processes it is the sum of their peaks, so never too little. */
  readonly rss: number;
  /** Of the object store meanwhile, where there is one: its time (s), and how many requests it had. */
  readonly store?: { readonly cpu: number; readonly requests: number };
}

/** The process and all below it: a server may have workers. */
export function family(pid: number): number[] {
  const children = read(`/proc/${pid}/task/${pid}/children`).trim().split(' ');
  return [pid, ...children.filter(Boolean).flatMap(child => family(Number(child)))];
}

/** User and system time so far, in seconds (proc(5): fields 14 to 17, in ticks of 10 ms), of those that have ended too. */
export function cpuSeconds(pid: number): number {
  const ticks = (one: number) => {
    const fields = read(`/proc/${one}/stat`)
      .replace(/^.*\) /, '')
      .split(' ');
    return fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0);
  };
  return family(pid).reduce((sum, one) => sum + ticks(one), 0) / 100;
}

function pssMib(pid: number): number {
  return kilobytes(pid, 'smaps_rollup', /^Pss:\s+(\d+) kB/m) / 1024;
}

export function rssPeakMib(pid: number): number {
  return kilobytes(pid, 'status', /^VmHWM:\s+(\d+) kB/m) / 1024;
}

function kilobytes(pid: number, file: string, line: RegExp): number {
  return family(pid).reduce((sum, one) => sum + Number(line.exec(read(`/proc/${one}/${file}`))?.[1] ?? 0), 0);
}

/** Empty for a process that has ended meanwhile. */
function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

/** Begins to watch a process and those below it; the function ends it. */
export function watch(pid: number): () => Usage {
  for (const one of family(pid)) writeFileSync(`/proc/${one}/clear_refs`, '5');
  const before = cpuSeconds(pid);
  let pss = pssMib(pid);
  const look = () => {
    pss = Math.max(pss, pssMib(pid));
  };
  // Nobody ends it where a measurement fails, and the process is to end then.
  const timer = setInterval(look, 500).unref();
  return () => {
    const cpu = cpuSeconds(pid) - before;
    clearInterval(timer);
    look();
    return { cpu, pss, rss: rssPeakMib(pid) };
  };
}
