import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { cpuSeconds } from '../family.js';
import { Connection, type Target } from './connection.js';
import type { Work } from './work.js';

/** Starts a server and waits for its first answer. */
export interface Start {
  readonly kind: 'start';
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly cwd: string;
}

const PATIENCE = 120;

/** @returns as its CPU seconds those of the server until then */
export async function start(target: Target, { argv, env, cwd }: Start): Promise<Work> {
  const began = performance.now();
  const server = spawn(argv[0]!, argv.slice(1), { env: { ...process.env, ...env }, cwd, stdio: 'ignore' });
  const gone = once(server, 'exit');
  try {
    while (!(await answers(target))) {
      if (server.exitCode !== null) throw new Error(`${argv[0]} ended with exit code ${server.exitCode}`);
      if (performance.now() - began > PATIENCE * 1000) throw new Error(`no answer within ${PATIENCE} s`);
      await sleep(2);
    }
    return { amount: 1, seconds: (performance.now() - began) / 1000, cpu: cpuSeconds(server.pid!) };
  } finally {
    server.kill('SIGTERM');
    await gone;
  }
}

async function answers(target: Target): Promise<boolean> {
  const connection = new Connection(target);
  try {
    return (await connection.send('GET', '/v2/')).status !== 503;
  } catch {
    return false;
  } finally {
    connection.close();
  }
}
