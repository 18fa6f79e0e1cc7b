import { growingCache } from '../growing-cache.js';
import type { AuditEvent } from './event.js';

/** Who is logged in is told of again after this (ms). */
const LOGIN_AGAIN = 10 * 60_000;
/** Of refusals for one reason to one network, so many a minute have a line of their own. */
const LINES = 30;
/** Of all refusals together. */
const LINES_OF_ALL = 3_000;
const WINDOW = 60_000;
/** Networks and kinds that are told apart at a time; beyond them the oldest are told of, and begin anew. */
const MOST = 10_000;

interface Count {
  written: number;
  event: AuditEvent;
  /** Without a line of their own. */
  more: number;
}

/**
 * Keeps a flood from pushing everything else out of the log. Logins: one line for each user, network and credential in ten
 * minutes. Refusals: beyond a number a minute they are counted, and a line tells the count when the minute is over: none
 * goes unmentioned.
 */
export class Repeats {
  readonly #logins = growingCache<string, true>(MOST, LOGIN_AGAIN);
  readonly #refusals = new Map<string, Count>();
  /** Lines in this minute: of refusals, and of what was only counted. */
  #written = 0;
  #counts = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(private readonly record: (event: AuditEvent) => void) {}

  /** @param key what makes it another login */
  login(key: string, event: () => AuditEvent): void {
    if (this.#logins.has(key)) return;
    this.#logins.set(key, true);
    this.record(event());
  }

  /** @param usual most clients begin so: then one line a minute is enough */
  refusal(network: string, reason: string, event: AuditEvent, usual: boolean): void {
    const key = `${network} ${reason}`;
    let count = this.#refusals.get(key);
    if (!count) {
      if (this.#refusals.size >= MOST) this.#tellCounts();
      count = { written: 0, event, more: 0 };
      this.#refusals.set(key, count);
    }
    this.#timer ??= setTimeout(() => this.tell(), WINDOW).unref();
    if (count.written >= (usual ? 1 : LINES) || this.#written >= LINES_OF_ALL) {
      count.more++;
      return;
    }
    count.written++;
    this.#written++;
    this.record(event);
  }

  /** Writes what was only counted: at the end of each minute, and before the log ends. */
  tell(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#tellCounts();
    this.#written = 0;
    this.#counts = 0;
  }

  /** Within a minute too: who seems to be many networks gets no more lines by it. */
  #tellCounts(): void {
    let others = 0;
    for (const { event, more } of this.#refusals.values()) {
      if (more === 0) continue;
      // So many networks at once that a line for each would be a flood too.
      if (++this.#counts > LINES_OF_ALL) others += more;
      else {
        const { type, outcome, from, what } = event;
        this.record({ type, outcome, from, what: { reason: what?.reason, status: what?.status, more } });
      }
    }
    if (others > 0)
      this.record({ type: 'refusal', outcome: 'refused', what: { reason: 'many networks', more: others } });
    this.#refusals.clear();
  }
}
