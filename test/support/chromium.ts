import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { type Browser, chromium } from 'playwright-core';
import { must, requireTools } from './process.js';

const EXECUTABLE = '/usr/bin/chromium';

/**
 * A real Chromium with a home of its own, in the network of the process that starts it. With `ca` it trusts that authority
 * as a person would have it: by its own store of certificates, with no flag that switches a check off.
 */
export async function startChromium(dir: string, { ca }: { ca?: string } = {}): Promise<Browser> {
  requireTools('chromium', 'certutil');
  const home = join(dir, 'chromium');
  const store = join(home, '.pki/nssdb');
  mkdirSync(store, { recursive: true });
  await must(['certutil', '-N', '-d', `sql:${store}`, '--empty-password']);
  if (ca !== undefined) await must(['certutil', '-A', '-d', `sql:${store}`, '-t', 'C,,', '-n', 'ca', '-i', ca]);
  return chromium.launch({
    executablePath: EXECUTABLE,
    // Root may not have its sandbox.
    args: ['--no-sandbox'],
    env: { PATH: process.env.PATH ?? '', HOME: home, LANG: 'C.UTF-8' },
  });
}
