import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { cpuSeconds, rssPeakMib } from '../family.js';
import type { Work } from './work.js';

/** Runs a command of ours to its end. */
export interface CommandJob {
  readonly kind: 'command';
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly cwd: string;
}

/** @returns as its CPU seconds those of the command; `times` has its peak of resident memory (MiB) alone */
export async function command({ argv, env, cwd }: CommandJob): Promise<Work> {
  const began = performance.now();
  const child = spawn(argv[0]!, argv.slice(1), {
    env: { ...process.env, ...env },
    cwd,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const said = text(child.stderr);
  // What a process has used is known while it runs only, so the last look before its end has to do.
  const [used, peak] = [[0], [0]];
  const look = setInterval(() => {
    used.push(cpuSeconds(child.pid!));
    peak.push(rssPeakMib(child.pid!));
  }, 20);
  const [status] = (await once(child, 'exit')) as [number | null];
  clearInterval(look);
  if (status !== 0) throw new Error(`${argv.join(' ')}: exit code ${status}\n${await said}`);
  return { amount: 1, seconds: (performance.now() - began) / 1000, cpu: Math.max(...used), times: [Math.max(...peak)] };
}
