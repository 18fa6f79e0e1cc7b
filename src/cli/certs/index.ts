import type { Command } from 'commander';
import { client } from './client.js';
import { csr } from './csr.js';
import { exportCerts } from './export.js';
import { importCerts } from './import.js';
import { inspect } from './inspect.js';
import { passphrase } from './passphrase.js';
import { renew } from './renew.js';
import { rotateCa } from './rotate-ca.js';
import { sign } from './sign.js';

/** The table of subcommands: each entry adds one, and lives in the file of its name. */
const COMMANDS: ReadonlyArray<(certs: Command) => void> = [
  inspect,
  renew,
  rotateCa,
  exportCerts,
  csr,
  sign,
  importCerts,
  passphrase,
  client,
];

/** `registry-secure certs …`: the life of the authority and of the server's certificate, after `init-certs`. */
export function certs(program: Command): void {
  const group = program.command('certs').description('look after the certificates: renew, rotate, sign, take in');
  for (const add of COMMANDS) add(group);
}
