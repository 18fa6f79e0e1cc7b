import { setTimeout as pause } from 'node:timers/promises';
import type { AuditEvent } from '../audit/event.js';
import { OperatorError } from '../errors.js';
import { type Passphrase, readFolder } from '../pki/folder.js';
import { type PemFiles, parseCertificates, readPem } from '../pki/inspect.js';
import { authorityNotice, type Notice, serverNotice } from '../pki/notices.js';
import { doUpkeep, renewalObstacle, upkeepOf } from '../pki/renewal.js';
import { certificateFields, notAfter } from '../pki/x509.js';
import type { Log } from './log.js';

/** Between two looks (ms): clocks are set and machines sleep, so no timer is trusted for longer. */
const LOOK = 3_600_000;
const RETRY = 300_000;

export interface RenewalOptions {
  /** The folder of the authority whose certificate is served; undefined where the operator brought one. */
  readonly folder: string | undefined;
  /** What is served. */
  readonly files: PemFiles;
  readonly passphrase: Passphrase | undefined;
  readonly log: Log;
  /** Told of what was done, for the audit log. */
  readonly record?: (event: AuditEvent) => void;
  readonly now?: () => Date;
  /** Longest time between two looks (ms). */
  readonly look?: number;
}

export interface RenewalTask {
  /** To be told that other files are served now: what is due may be something else. */
  changed(): void;
  /** Stops it, and waits for what it is doing. */
  close(): Promise<void>;
}

/**
 * Renews the server certificate at two thirds of its life and ends a rotation whose time is over; the watch of the files
 * then has it served. Where that is not possible, and when an authority nears its end, it says so: the nearer, the louder.
 */
export function startRenewal(options: RenewalOptions): RenewalTask {
  const renewal = new Renewal(options);
  const { look = LOOK } = options;
  const stop = new AbortController();
  let wake = new AbortController();
  const keepLooking = async (): Promise<void> => {
    while (!stop.signal.aborted) {
      wake = new AbortController();
      const signal = AbortSignal.any([stop.signal, wake.signal]);
      const wait = Math.min(look, Math.max(0, await renewal.look()));
      await pause(wait, undefined, { signal, ref: false }).catch(() => undefined);
    }
  };
  const running = keepLooking();
  return {
    changed: () => wake.abort(),
    async close() {
      stop.abort();
      await running;
    },
  };
}

/** What is told of, each with its own rhythm. */
type Subject = 'server' | 'authority' | 'upkeep';

class Renewal {
  readonly #options: RenewalOptions;
  readonly #told = new Map<Subject, { level: Notice['level']; next: number }>();
  #first = true;

  constructor(options: RenewalOptions) {
    this.#options = options;
  }

  /** Does and says what is due; how long until there may be more (ms). Never rejects. */
  async look(): Promise<number> {
    const { folder, log } = this.#options;
    const now = this.#options.now?.() ?? new Date();
    try {
      return await (folder === undefined ? this.#lookAtTheirs(now) : this.#lookAtOurs(folder, now));
    } catch (error) {
      log.error('the certificate cannot be looked after', { error });
      return RETRY;
    } finally {
      this.#first = false;
    }
  }

  async #lookAtTheirs(now: Date): Promise<number> {
    const { certificate } = this.#options.files;
    const [leaf] = parseCertificates(certificate, await readPem(certificate));
    const fix = 'renew it where it came from, and replace the files: they are read again at once';
    this.#tell('server', serverNotice(leaf, now), now, { what: '', fix });
    return LOOK;
  }

  async #lookAtOurs(dir: string, now: Date): Promise<number> {
    const { passphrase, log } = this.#options;
    let problem: OperatorError | undefined;
    try {
      const done = await doUpkeep({ dir, passphrase, now });
      if (done) await this.#report(dir, done);
    } catch (error) {
      if (!(error instanceof OperatorError)) throw error;
      problem = error;
    }
    const folder = await readFolder(dir);
    const leaf = folder.server?.chain[0];
    const notice = leaf && serverNotice(leaf, now);
    // Opening an encrypted key takes a while: it is tried at the start, and then when it would be needed.
    if (!problem && (this.#first || notice)) problem = await renewalObstacle({ dir, passphrase, now });
    if (problem) {
      const what = ` and will not be renewed by itself: ${problem.message}`;
      const reason = { what, fix: problem.fix ?? '' };
      if (notice) this.#tell('server', notice, now, reason);
      else if (this.#first)
        log.info(`the server certificate will not be renewed by itself: ${problem.message}; ${problem.fix}`);
    }
    if (folder.rotation && folder.rotation.until <= now)
      this.#tell(
        'upkeep',
        {
          level: 'warn',
          message: `the rotation should have ended on ${folder.rotation.until.toISOString()}`,
          fix: '',
          again: LOOK,
        },
        now,
        {
          what: problem ? `: ${problem.message}` : '',
          fix: `end it: registry-secure certs rotate-ca --finish`,
        },
      );
    if (folder.authority) this.#tell('authority', authorityNotice(folder.authority, now), now);
    if (problem) return RETRY;
    const next = upkeepOf(folder)?.due.getTime() ?? Number.POSITIVE_INFINITY;
    return Math.max(1_000, next - now.getTime());
  }

  async #report(dir: string, done: 'renew' | 'finish'): Promise<void> {
    const { server } = await readFolder(dir);
    const [leaf] = server!.chain;
    const fields = { names: certificateFields(leaf).names.join(', '), until: notAfter(leaf).toISOString() };
    const type = done === 'renew' ? 'certificate.renew' : 'certificate.rotation-end';
    this.#options.record?.({ type, outcome: 'done', what: fields });
    if (done === 'renew') this.#options.log.info('renewed the server certificate', fields);
    else this.#options.log.info('the rotation is over: the new authority stands alone', fields);
  }

  #tell(
    subject: Subject,
    notice: Notice | undefined,
    now: Date,
    more: { what: string; fix: string } = { what: '', fix: '' },
  ): void {
    if (!notice) {
      this.#told.delete(subject);
      return;
    }
    const before = this.#told.get(subject);
    if (before && before.level === notice.level && now.getTime() < before.next) return;
    this.#told.set(subject, { level: notice.level, next: now.getTime() + notice.again });
    this.#options.log[notice.level](`${notice.message}${more.what}; ${more.fix || notice.fix}`);
  }
}
