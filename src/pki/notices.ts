import type { X509Certificate } from 'node:crypto';
import { notAfter, notBefore } from './x509.js';

/** How loud the coming end of a certificate is told: the nearer, the louder and the more often. */

export interface Notice {
  readonly level: 'info' | 'warn' | 'error';
  readonly message: string;
  readonly fix: string;
  /** How long until it is told again, in milliseconds. */
  readonly again: number;
}

const HOUR = 3_600_000;
const DAY = 24 * HOUR;

/** Parts of its life that a certificate has left when it is first spoken of, and when that becomes urgent. */
interface Steps {
  readonly info: number;
  readonly warn: number;
  readonly error: number;
}

/** A server certificate should have been renewed at a third; the last weeks of 13 months are an emergency. */
const SERVER: Steps = { info: 1 / 3, warn: 1 / 6, error: 1 / 18 };
/** A new authority has to reach every client by hand: of ten years, two to begin with. */
const AUTHORITY: Steps = { info: 1 / 5, warn: 1 / 10, error: 1 / 40 };

/** Undefined while it is too early to speak of it. */
export function serverNotice(certificate: X509Certificate, now: Date): Notice | undefined {
  return notice(certificate, now, SERVER, 'the server certificate', 'renew it: registry-secure certs renew');
}

export function authorityNotice(certificate: X509Certificate, now: Date): Notice | undefined {
  return notice(
    certificate,
    now,
    AUTHORITY,
    'the certificate authority',
    'no server certificate outlives it: change to a new one while it is valid: registry-secure certs rotate-ca',
  );
}

function notice(certificate: X509Certificate, now: Date, steps: Steps, what: string, fix: string): Notice | undefined {
  const end = notAfter(certificate).getTime();
  const left = end - now.getTime();
  const part = left / (end - notBefore(certificate).getTime());
  if (part > steps.info) return undefined;
  const date = new Date(end).toISOString();
  return {
    level: part > steps.warn ? 'info' : part > steps.error ? 'warn' : 'error',
    message: left < 0 ? `${what} expired on ${date}` : `${what} expires in ${span(left)}, on ${date}`,
    fix,
    // An eighth of what is left: monthly at first, hourly at the end.
    again: Math.max(HOUR, left / 8),
  };
}

function span(milliseconds: number): string {
  const [count, unit] = milliseconds < 2 * DAY ? [milliseconds / HOUR, 'hour'] : [milliseconds / DAY, 'day'];
  const whole = Math.floor(count);
  return `${whole} ${unit}${whole === 1 ? '' : 's'}`;
}
