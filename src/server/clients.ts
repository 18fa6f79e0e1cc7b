import { join, resolve } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import type { AuditEvent } from '../audit/event.js';
import type { Config } from '../config/schema.js';
import { clientFolderFiles, ensureClientAuthority, reissueListIfDue } from '../pki/clients.js';
import type { Passphrase } from '../pki/folder.js';
import {
  type ClientAuth,
  type ClientTrust,
  type ClientTrustFiles,
  clientTrustWarnings,
  listNotice,
  loadClientTrust,
  refuseOlderLists,
} from './client-trust.js';
import type { Log } from './log.js';
import { type Account, handingOver } from './privileges.js';
import type { WatchFiles } from './watch.js';

/** What the configuration asks of clients, and the own authority's part in it. */

export interface ClientSetup {
  readonly mode: ClientAuth;
  readonly files: ClientTrustFiles;
  /** `certs/clients`, where its authority is one of those that are trusted: its list is kept up. */
  readonly ownFolder: string | undefined;
}

/** Undefined where nothing is asked of clients. @param dir holds `certs/` */
export function clientSetupOf({ http: { tls } }: Config, dir: string): ClientSetup | undefined {
  const { clientauth, clientcas, clientcrls } = tls;
  if (clientauth === undefined && clientcas.length === 0) return undefined;
  const own = resolve(dir, 'certs', 'clients');
  const { authority, list } = clientFolderFiles(own);
  const ours = clientcas.length === 0 || clientcas.includes(authority);
  return {
    mode: clientauth ?? 'require-and-verify-client-cert',
    files: {
      authorities: clientcas.length === 0 ? [authority] : clientcas,
      lists: ours && !clientcrls.includes(list) ? [...clientcrls, list] : clientcrls,
    },
    ownFolder: ours ? own : undefined,
  };
}

/**
 * Makes the own authority where it is missing, and its list anew where that is due.
 * @returns warnings
 * @throws OperatorError when there is none and none can be made
 */
async function prepareOwnClients(dir: string, passphrase: Passphrase | undefined): Promise<string[]> {
  await ensureClientAuthority({ dir, passphrase, newPassphrase: passphrase });
  return reissueListIfDue({ dir, passphrase }).then(
    () => [],
    error => [`${join(dir, 'crl.pem')} is due and cannot be issued anew: ${(error as Error).message}`],
  );
}

/** The trust in client certificates, as its files were when they could last be used. */
export interface Clients extends ClientSetup {
  trust(): ClientTrust;
  /** Calls back with each one that takes its place. Before the first who follows there is nothing that could take it. */
  follow(change: (next: ClientTrust) => void): void;
}

/** Makes what is ours to make, and reads the files now and whenever they change; undefined where nothing is asked of clients. @throws OperatorError */
export async function openClients(options: {
  readonly config: Config;
  /** Holds `certs/`. */
  readonly dir: string;
  readonly passphrase: Passphrase | undefined;
  /** Who is to own what is made; undefined: whoever runs this. */
  readonly account: Account | undefined;
  readonly watch: WatchFiles;
  readonly log: Log;
}): Promise<Clients | undefined> {
  const { config, dir, passphrase, account, watch, log } = options;
  const setup = clientSetupOf(config, dir);
  if (!setup) return undefined;
  const { mode, files, ownFolder } = setup;
  if (ownFolder !== undefined) {
    const prepare = () => prepareOwnClients(ownFolder, passphrase);
    for (const warning of await handingOver(account, ownFolder, prepare)) log.warn(warning);
  }
  const followers: Array<(next: ClientTrust) => void> = [];
  let trust: ClientTrust | undefined;
  watch([...files.authorities, ...files.lists], 'trust in client certificates', async () => {
    const next = await loadClientTrust(mode, files);
    if (followers.length === 0 || !trust) throw new Error('not listening yet');
    refuseOlderLists(trust, next);
    for (const change of followers) change(next);
    trust = next;
  });
  const first = await loadClientTrust(mode, files);
  trust = first;
  for (const warning of clientTrustWarnings(first)) log.warn(warning);
  return { ...setup, trust: () => trust ?? first, follow: change => void followers.push(change) };
}

/** Between two looks at the lists (ms): clocks are set and machines sleep, so no timer is trusted for longer. */
const LOOK = 3_600_000;
/** Time between two warnings of the same kind (ms). */
const AGAIN = { warn: 12 * 3_600_000, error: 3_600_000 };

export interface ListUpkeep {
  /** Stops it, and waits for what it is doing. */
  close(): Promise<void>;
}

/**
 * Issues the own list of revoked certificates anew long before it ends; the watch of the files has it taken over, in this
 * process and all others. Says so, the nearer the end the louder, where that is not possible, and of lists of others.
 */
export function startListUpkeep(options: {
  readonly ownFolder: string | undefined;
  readonly passphrase: Passphrase | undefined;
  /** What is in force. */
  readonly trust: () => ClientTrust;
  readonly log: Log;
  /** Told of what was done, for the audit log. */
  readonly record?: (event: AuditEvent) => void;
  readonly now?: () => Date;
  readonly look?: number;
}): ListUpkeep {
  const { ownFolder, passphrase, trust, log, record, now = () => new Date(), look = LOOK } = options;
  const stop = new AbortController();
  let told: { level: 'warn' | 'error'; next: number } | undefined;

  /** Does and says what is due; how long until there may be more (ms). Never rejects. */
  async function step(): Promise<number> {
    const at = now();
    let obstacle = '';
    try {
      if (ownFolder !== undefined && (await reissueListIfDue({ dir: ownFolder, passphrase, now: at }))) {
        log.info('issued the list of revoked client certificates anew');
        record?.({ type: 'certificate.client-list', outcome: 'done' });
      }
    } catch (error) {
      obstacle = `; it cannot be issued anew: ${(error as Error).message}`;
    }
    const notice = listNotice(trust(), at, obstacle !== '');
    if (!notice) told = undefined;
    else if (told?.level !== notice.level || at.getTime() >= told.next) {
      told = { level: notice.level, next: at.getTime() + AGAIN[notice.level] };
      const fix =
        ownFolder === undefined ? 'replace it by the newest one' : 'issue it anew: registry-secure certs client crl';
      log[notice.level](`${notice.message}${obstacle}; ${fix}`);
    }
    const ends = trust().lists.map(list => (list.nextUpdate?.getTime() ?? Number.POSITIVE_INFINITY) - at.getTime());
    return Math.min(look, ...ends.filter(left => left > 0));
  }

  const running = (async () => {
    while (!stop.signal.aborted) {
      const wait = await step();
      await pause(wait, undefined, { signal: stop.signal, ref: false }).catch(() => undefined);
    }
  })();
  return {
    async close() {
      stop.abort();
      await running;
    },
  };
}
