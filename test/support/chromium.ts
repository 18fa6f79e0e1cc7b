import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Browser, chromium } from 'playwright-core';
import type { Namespace } from './namespace.js';
import { requireTools } from './process.js';

/**
 * A real Chromium in the network of a namespace, with a home of its own. With `ca` it trusts that authority as a person
 * would have it do: by its own store of certificates, with no flag that switches a check off. `made`: with
 * the store of an earlier one. Close it before the namespace.
 */
export async function startChromium(
  machine: Namespace,
  { ca, made = false }: { ca?: string; made?: boolean } = {},
): Promise<Browser> {
  requireTools('chromium', 'certutil');
  const home = join(machine.dir, ca === undefined ? 'chromium' : 'chromium-trusting');
  const store = join(home, '.pki/nssdb');
  mkdirSync(store, { recursive: true });
  if (!made) await machine.must(['certutil', '-N', '-d', `sql:${store}`, '--empty-password']);
  if (ca !== undefined) await machine.must(['certutil', '-A', '-d', `sql:${store}`, '-t', 'C,,', '-n', 'ca', '-i', ca]);
  const executablePath = join(home, 'chromium');
  writeFileSync(executablePath, `#!/bin/sh\nexec nsenter --net=/proc/${machine.holder.pid}/ns/net chromium "$@"\n`, {
    mode: 0o755,
  });
  // Root may not have Chromium's sandbox.
  return chromium.launch({
    executablePath,
    timeout: 120_000,
    args: ['--no-sandbox'],
    env: { PATH: process.env.PATH ?? '', HOME: home, LANG: 'C.UTF-8' },
  });
}
