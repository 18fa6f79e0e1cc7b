import type { Config } from '../config/schema.js';
import { thisMachine } from '../pki/machine.js';
import { environmentNames, unique } from '../pki/names.js';
import { wantsVolumeOwner } from '../server/privileges.js';
import { collectStart } from '../server/settle.js';
import { type Charge, isFirstToServe, leave, sayReady } from '../server/worker.js';
import { passphraseFileOf, servingPassphrase } from './passphrase.js';

/** The options of `serve` and `up` that are no key of the configuration. */
export interface ServingOptions {
  /** The folder that holds `certs/`, `auth/` and `data/`. */
  readonly dir: string;
  readonly ip?: readonly string[];
  readonly dns?: readonly string[];
  readonly passphraseFile?: string;
}

/** What is to be served, as the command line and the configuration say: plain data, which another process can be sent. */
export interface Order extends ServingOptions {
  readonly config: Config;
  /** Of the configuration, for the log. */
  readonly warnings: readonly string[];
  /** Of `up`, which also says how clients get in: what it was told of the first user. */
  readonly up?: { readonly user?: string | undefined; readonly password?: string | undefined };
}

/**
 * Serves until `stop`, then drains. What serving takes is loaded only now: a process that starts others needs none of it.
 * @param charge where this process is one of several
 */
export async function carryOut(order: Order, charge: Charge | undefined, stop: Promise<void>): Promise<void> {
  try {
    const { serve } = await import('../server/serve.js');
    const { dir, ip = [], dns = [], config, warnings, up } = order;
    const telling = up && isFirstToServe(charge) ? await import('./story.js') : undefined;
    const server = await serve({
      dir,
      config,
      warnings,
      names: unique([...ip, ...dns, ...environmentNames()]),
      machine: thisMachine(),
      passphrase: await servingPassphrase(order),
      passphraseFile: passphraseFileOf(order),
      terminal: process.stdout.isTTY,
      asVolumeOwner: wantsVolumeOwner(process.env.REGISTRY_SECURE_USER),
      ...(up && { firstUser: { name: up.user, password: up.password } }),
      worker: charge,
    });
    try {
      if (telling) process.stdout.write(await telling.story(server, order));
      sayReady(server);
      collectStart();
      await stop;
    } finally {
      await server.stop();
    }
  } finally {
    leave();
  }
}
