import { isIP } from 'node:net';
import { join } from 'node:path';
import type { Config } from '../config/schema.js';
import { type Certificates, ensureCertificates } from '../pki/certificates.js';
import type { Passphrase } from '../pki/folder.js';
import { loadServerPair, type PemFiles, type ServerPair } from '../pki/inspect.js';
import { type Machine, namesHint } from '../pki/machine.js';
import type { Log } from './log.js';
import { type Account, handingOver } from './privileges.js';
import type { WatchFiles } from './watch.js';

/** The certificate that is served, as its files were when they could last be used. */
export interface ServedCertificate {
  /** The folder of our own authority; undefined where the operator brought a certificate, and over plain HTTP. */
  readonly certificates: Certificates | undefined;
  /** Undefined over plain HTTP, as are the pair and its names. */
  readonly files: PemFiles | undefined;
  /** That of the start. */
  readonly pair: (ServerPair & { readonly path: string }) | undefined;
  /** Those that it is good for now. */
  names(): readonly string[] | undefined;
  /** Calls back with each one that takes its place. Before the first who follows there is nothing that could take it. */
  follow(change: (next: ServerPair) => void): void;
}

interface CertificateOptions {
  readonly config: Config;
  readonly dir: string;
  readonly names: readonly string[];
  readonly machine: Machine;
  readonly passphrase?: Passphrase | undefined;
  /** Where to listen. */
  readonly host: string;
  /** Who is to own what is made; undefined: whoever runs this. */
  readonly account: Account | undefined;
  readonly watch: WatchFiles;
  readonly log: Log;
}

/** Makes the certificate where it is ours to make, and reads it now and whenever it changes. @throws OperatorError */
export async function openCertificate(options: CertificateOptions): Promise<ServedCertificate> {
  const { machine, watch, log } = options;
  const { certificates, files } = await prepareFiles(options);
  const followers: Array<(next: ServerPair) => void> = [];
  let served: ServerPair | undefined;
  if (files)
    watch([files.certificate, files.key], 'certificate', async () => {
      const next = await loadServerPair(files);
      if (followers.length === 0) throw new Error('not listening yet');
      for (const change of followers) change(next);
      served = next;
      for (const warning of next.warnings) log.warn(warning);
    });
  const pair = files && { ...(await loadServerPair(files)), path: files.certificate };
  served = pair;
  for (const warning of new Set([...(certificates?.warnings ?? []), ...(pair?.warnings ?? [])])) log.warn(warning);
  const hint = certificates && namesHint(certificates.server.names, machine);
  if (hint) log.warn(hint);
  if (!files)
    log.warn(
      'serving plain HTTP: passwords and images can be read on the way; put TLS in front, or listen on loopback only',
    );
  return {
    certificates,
    files,
    pair,
    names: () => served?.names,
    follow: change => void followers.push(change),
  };
}

/** Whose certificate is served: the operator's, or one of our own authority in `certs/`; none over plain HTTP. */
async function prepareFiles({ config, dir, names, machine, passphrase, host, account }: CertificateOptions) {
  if (config.http.insecureplainhttp) return { certificates: undefined, files: undefined };
  const { certificate, key } = config.http.tls;
  if (certificate !== undefined && key !== undefined) return { certificates: undefined, files: { certificate, key } };
  // An address that we are told to listen on is one that clients use; 0.0.0.0 and [::] are none.
  const own = isIP(host) === 0 || /^[0.:]*$/.test(host) ? [] : [host];
  const folder = join(dir, 'certs');
  const certificates = await handingOver(account, folder, () =>
    ensureCertificates({
      dir: folder,
      names,
      machineNames: [...own, ...machine.names],
      passphrase,
      encryptWith: passphrase,
    }),
  );
  return { certificates, files: certificates.server };
}
