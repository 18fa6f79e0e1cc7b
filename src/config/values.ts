import { isIP } from 'node:net';
import { OperatorError } from '../errors.js';

/** The grammars of configuration values: pure functions from text. Every failure is an OperatorError with its fix. */

const NANOSECONDS: Readonly<Record<string, number>> = {
  ns: 1,
  us: 1e3,
  µs: 1e3,
  μs: 1e3,
  ms: 1e6,
  s: 1e9,
  m: 60e9,
  h: 3600e9,
};
const PART = /(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)/g;
const DURATION = new RegExp(`^(?:${PART.source})+$`);
/** About a century: far below what timers and dates hold. */
const LONGEST_MS = 1_000_000 * 3_600_000;

/**
 * A duration in milliseconds, rounded up to whole ones, from `168h`, `1h30m`, `30s`, `500ms` (the grammar of Go's
 * time.ParseDuration) or from a bare integer, which is nanoseconds as in Distribution.
 */
export function parseDuration(text: string): number {
  const trimmed = text.trim();
  const whole = /^\d{1,20}$/.test(trimmed);
  if (!whole && (trimmed.length > 100 || !DURATION.test(trimmed)))
    throw new OperatorError(`${quote(text)} is not a duration`, {
      fix: 'write a number with a unit (h, m, s, ms), such as 168h, 1h30m or 30s',
    });
  let nanoseconds = whole ? Number(trimmed) : 0;
  for (const [, number, unit] of whole ? [] : trimmed.matchAll(PART))
    nanoseconds += Number(number) * NANOSECONDS[unit!]!;
  const milliseconds = Math.ceil(Number((nanoseconds / 1e6).toFixed(6)));
  if (milliseconds > LONGEST_MS)
    throw new OperatorError(`${quote(text)} is too long`, { fix: 'write at most 1000000h' });
  return milliseconds;
}

/** A bare integer other than 0: nanoseconds, which is seldom what was meant. */
export function isBareDuration(text: string): boolean {
  return /^\s*0*[1-9]\d*\s*$/.test(text);
}

/** The shortest text that `parseDuration` reads back as the same whole number of milliseconds: `1h30m`, `0s`. */
export function formatDuration(milliseconds: number): string {
  let rest = milliseconds;
  let text = '';
  for (const [unit, size] of [
    ['h', 3_600_000],
    ['m', 60_000],
    ['s', 1000],
    ['ms', 1],
  ] as const) {
    const count = Math.floor(rest / size);
    rest -= count * size;
    if (count > 0) text += `${count}${unit}`;
  }
  return text || '0s';
}

/** Where to listen. An empty host means every interface, IPv6 and IPv4, as `server.listen` takes it. */
export interface Address {
  readonly host: string;
  readonly port: number;
}

const HOST_NAME =
  /^(?=.{1,253}$)[a-zA-Z0-9_](?:[a-zA-Z0-9_-]*[a-zA-Z0-9_])?(?:\.[a-zA-Z0-9_](?:[a-zA-Z0-9_-]*[a-zA-Z0-9_])?)*$/;

/** `HOST:PORT`, `:PORT` (every interface) or `[IPv6]:PORT`; the host comes back without its brackets. Port 0: any free one. */
export function parseAddress(text: string): Address {
  const fail = (why: string, fix: string) => new OperatorError(`${quote(text)} ${why}`, { fix });
  const example = 'write HOST:PORT, such as 0.0.0.0:5000, or :5000 for every interface';
  if (text.includes('/')) throw fail('is not an address to listen on', `${example}, without a scheme or path`);
  if (/^\d+$/.test(text)) throw fail('has no colon before the port', `write :${text} or 0.0.0.0:${text}`);
  const colon = text.lastIndexOf(':');
  if (colon < 0) throw fail('has no port', `write ${isIP(text) || HOST_NAME.test(text) ? text : 'HOST'}:5000`);
  const host = text.slice(0, colon);
  const port = text.slice(colon + 1);
  if (isIP(text) === 6) throw fail('has no port', `write [${text}]:5000`);
  if (!/^\d{1,5}$/.test(port) || Number(port) > 65_535)
    throw fail('has no valid port', `${example}; a port is a number from 0 to 65535`);
  if (host.startsWith('[') && host.endsWith(']')) {
    const inner = host.slice(1, -1);
    if (isIP(inner) !== 6) throw fail('has no IPv6 address in its brackets', 'write such as [::]:5000');
    return { host: inner, port: Number(port) };
  }
  if (isIP(host) === 6) throw fail('is ambiguous', `write the IPv6 address in brackets: [${host}]:${port}`);
  if (host !== '' && isIP(host) === 0 && (!HOST_NAME.test(host) || /^[\d.]+$/.test(host)))
    throw fail('has no valid host', example);
  return { host, port: Number(port) };
}

/** `true` and `false`, and the other words that YAML 1.1 and so Distribution read as such. */
export function parseBoolean(text: string): boolean {
  const word = text.trim().toLowerCase();
  if (['true', 'yes', 'on', 'y'].includes(word)) return true;
  if (['false', 'no', 'off', 'n'].includes(word)) return false;
  throw new OperatorError(`${quote(text)} is neither true nor false`, { fix: 'write true or false' });
}

/** A value as an error message shows it: quoted, and cut where it is long. */
export function quote(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 77)}…` : text);
}

/**
 * The candidate with the fewest single-character edits from `name` (Levenshtein), where parts that are left out in front count
 * as one edit together. Parts are parted by `.` or `_`. Undefined when none is close.
 */
export function nearest(name: string, candidates: Iterable<string>): string | undefined {
  let best: string | undefined;
  let least = Math.floor(name.length / 2) + 1;
  const lower = name.toLowerCase();
  const count = name.split(/[._]/).length;
  for (const candidate of candidates) {
    const whole = candidate.toLowerCase();
    const tail = whole
      .split(/(?<=[._])/)
      .slice(-count)
      .join('');
    const edits = Math.min(distance(lower, whole, least), distance(lower, tail, least - 1) + 1);
    if (edits < least) [best, least] = [candidate, edits];
  }
  return best;
}

/** Exact where it is less than `most`. */
function distance(from: string, to: string, most: number): number {
  if (Math.abs(from.length - to.length) >= most) return Number.POSITIVE_INFINITY;
  let row = Array.from({ length: to.length + 1 }, (_, index) => index);
  for (let i = 1; i <= from.length; i++) {
    const next = [i];
    for (let j = 1; j <= to.length; j++)
      next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (from[i - 1] === to[j - 1] ? 0 : 1)));
    row = next;
  }
  return row[to.length]!;
}
