import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, beforeEach } from 'node:test';
import { LocalRegistry } from './local-registry.js';

/** In a `describe`: each test has an empty folder, `dir`, and what it starts there as users do has ended after it. */
export function inAFolder() {
  let dir: string;
  const running: LocalRegistry[] = [];
  const folders: string[] = [];
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'registry-secure-up-'));
    folders.push(dir);
  });
  afterEach(async () => {
    for (const registry of running.splice(0)) await registry.stop('SIGKILL');
  });
  after(async () => {
    for (const folder of folders) await rm(folder, { recursive: true, force: true });
  });
  return {
    get dir(): string {
      return dir;
    },
    async start(
      args: readonly string[],
      options?: { env?: NodeJS.ProcessEnv; input?: string; cwd?: string },
    ): Promise<LocalRegistry> {
      // As users start it: in as many processes as the machine has it serve in.
      const env = { REGISTRY_WORKERS: '', ...options?.env };
      const registry = await LocalRegistry.start(dir, args, { ...options, env });
      running.push(registry);
      return registry;
    },
  };
}
