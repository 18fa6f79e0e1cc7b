import { setTimeout as sleep } from 'node:timers/promises';
import { OperatorError, systemCode } from '../../errors.js';
import { StorageError } from '../driver.js';

/** How often one request is sent at most. */
const ATTEMPTS = 5;

/** The longest wait before the second and before the last time (ms); each is a random part of it. */
const FIRST_PAUSE = 200;
const LAST_PAUSE = 5_000;

/** How many more tries than answers there may be, of all requests together: a service that is down is not to be flooded. */
const BUDGET = 100;

/** How long one attempt may take (ms), and for each byte that it sends: those of a line of 100 KB/s. */
const PATIENCE = 30_000;
const FOR_EACH_BYTE = 0.01;

/** What a service has answered; or, without a status, what went wrong on the way to it. Holds no credentials. */
export class ServiceError extends Error {
  override readonly name = 'ServiceError';
  readonly status: number | undefined;
  /** The service's own word for it, or a code of the system. */
  readonly code: string;
  /** How long the service asks to wait (ms). */
  readonly retryAfter: number | undefined;

  constructor({ status, code, message, retryAfter }: Answer) {
    super(message.replaceAll(/\s+/g, ' ').trim());
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }

  /** Whether the same request may well be answered otherwise in a moment. */
  get passes(): boolean {
    if (this.status !== undefined) return [408, 429, 500, 502, 503, 504].includes(this.status);
    return !isDistrust(this.code);
  }
}

interface Answer {
  readonly status?: number | undefined;
  readonly code: string;
  readonly message: string;
  readonly retryAfter?: number | undefined;
}

/** What a login may answer while the service of it is updated, besides failures of its own (5xx). */
export const MAY_PASS: readonly number[] = [404, 408, 410, 429];

/** A login that may well succeed in a moment. Its status would be taken for one of the object, such as that there is none. */
export function noToken(code: string, message: string): ServiceError {
  return new ServiceError({ status: 503, code, message });
}

/** Whether a code of the system says that the other side's certificate, or its TLS, will not do. */
export function isDistrust(code: string): boolean {
  return /CERT|^UNABLE_TO_|^EPROTO$|^ERR_(?:TLS|SSL)_/.test(code);
}

/** The code of an answer that calls itself a success and is none: a web page, or an error all the same. */
export const UNREADABLE = 'UnreadableAnswer';

/** @param message what is wrong with it, and how it begins: of a page no more than a line is told */
export function unreadable(message: string): ServiceError {
  return new ServiceError({ code: UNREADABLE, message: message.replaceAll(/\s+/g, ' ').slice(0, 200) });
}

/** Of an error that has no answer of the service in it. */
export function wayError(error: unknown): ServiceError {
  const { cause, name = '', message = '' } = (error ?? {}) as Error;
  const code = systemCode(error) ?? systemCode(cause) ?? name;
  return new ServiceError({ code, message: message === '' ? code : message });
}

/** What to throw where a request has failed for good. The message is for the log. */
export function storageFailure(action: string, error: unknown): unknown {
  // What the operator has to mend while it runs is for the log; clients come again.
  if (error instanceof OperatorError) return new StorageError('unavailable', `${action}: ${error.message}`, error);
  if (!(error instanceof ServiceError)) return error;
  const { status, code, message } = error;
  const kind = status === 507 || status === 413 || /quota|insufficientstorage/i.test(code) ? 'full' : 'unavailable';
  const words = [...new Set([code, message].filter(word => word !== ''))].join(': ');
  return new StorageError(kind, `${action}: ${words}${status ? ` (HTTP ${status})` : ''}`, error);
}

/** As an answer tells it (bytes). @throws ServiceError where it does not: then it is no object of no bytes */
export function sizeOf(told: number | string | undefined): number {
  const size = told === '' ? Number.NaN : Number(told);
  if (Number.isSafeInteger(size) && size >= 0) return size;
  throw unreadable('the answer does not tell the size of the object');
}

/** One request. It is told how often it was sent before: then the service may have done already what it is asked for. */
type Send<T> = (signal: AbortSignal, before: number) => Promise<T>;

/**
 * Sends requests to a service: each with a time-out, again after what passes, with pauses that grow and vary, and counted.
 * Knows the service's clock from its answers.
 */
export class Requests {
  /** How many of each kind were sent, those that were sent again too. */
  readonly counts = new Map<string, number>();
  #budget = BUDGET;
  #ahead = 0;

  /** @param understand what the client of the service throws; an OperatorError where it is for the operator alone to mend */
  constructor(private readonly understand: (error: unknown) => ServiceError | OperatorError) {}

  /** The service's clock less ours (ms), as its last answer tells. */
  get ahead(): number {
    return this.#ahead;
  }

  /** @param date the header of an answer, which has whole seconds */
  hear(date: string | null | undefined): void {
    const told = Date.parse(date ?? '');
    if (!Number.isNaN(told)) this.#ahead = told + 500 - Date.now();
  }

  /**
   * @param bytes how many it sends
   * @throws ServiceError
   */
  async send<T>(kind: string, send: Send<T>, bytes = 0): Promise<T> {
    for (let before = 0; ; before++) {
      this.counts.set(kind, (this.counts.get(kind) ?? 0) + 1);
      try {
        const result = await this.#inTime(signal => send(signal, before), PATIENCE + bytes * FOR_EACH_BYTE);
        this.#budget = Math.min(BUDGET, this.#budget + before + 1);
        return result;
      } catch (thrown) {
        if (thrown instanceof StorageError || thrown instanceof OperatorError || thrown instanceof TypeError)
          throw thrown;
        const error = thrown instanceof ServiceError ? thrown : this.understand(thrown);
        if (error instanceof OperatorError || !error.passes || before + 1 === ATTEMPTS || this.#budget === 0)
          throw error;
        this.#budget -= 1;
        await sleep(pause(before, error.retryAfter));
      }
    }
  }

  /** As `send`. @param action what was to be done, for the log @throws StorageError */
  attempt<T>(action: string, kind: string, send: Send<T>, bytes = 0): Promise<T> {
    return this.unless<T, T>(() => false, undefined as T, action, kind, send, bytes);
  }

  /** As `attempt`, and answers `otherwise` where the service has refused for that reason. */
  async unless<T, O>(
    isSo: (error: ServiceError) => boolean,
    otherwise: O,
    action: string,
    kind: string,
    send: Send<T>,
    bytes = 0,
  ): Promise<T | O> {
    try {
      return await this.send(kind, send, bytes);
    } catch (error) {
      if (error instanceof ServiceError && isSo(error)) return otherwise;
      throw storageFailure(action, error);
    }
  }

  async #inTime<T>(send: (signal: AbortSignal) => Promise<T>, limit: number): Promise<T> {
    const control = new AbortController();
    const late = new Promise<never>((_, reject) => {
      control.signal.addEventListener('abort', () => reject(control.signal.reason));
    });
    const timer = setTimeout(() => control.abort(), limit);
    try {
      // Not everything on the way heeds the signal.
      return await Promise.race([send(control.signal), late]);
    } catch (error) {
      if (!control.signal.aborted) throw error;
      throw new ServiceError({ code: 'TimeoutError', message: `no answer within ${Math.round(limit / 1000)} seconds` });
    } finally {
      clearTimeout(timer);
    }
  }
}

function pause(before: number, asked: number | undefined): number {
  const longest = Math.min(LAST_PAUSE, FIRST_PAUSE * 3 ** before);
  return Math.max(Math.random() * longest, Math.min(asked ?? 0, LAST_PAUSE));
}
