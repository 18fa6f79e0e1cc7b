import { InvalidArgumentError } from 'commander';
import { isBareDuration, parseDuration } from '../config/values.js';
import { OperatorError } from '../errors.js';

const DAY = 24 * 3_600_000;

/** A parser for commander: a time from now on, such as `90d`, `12h`. In milliseconds. */
export function timeSpan(text: string): number {
  const days = /^(\d{1,5})d$/.exec(text)?.[1];
  if (days !== undefined && Number(days) > 0) return Number(days) * DAY;
  try {
    if (!isBareDuration(text) && days === undefined) {
      const span = parseDuration(text);
      if (span > 0) return span;
    }
  } catch (error) {
    if (!(error instanceof OperatorError)) throw error;
  }
  throw new InvalidArgumentError('expected a time with a unit, such as 90d, 12h or 30m');
}

/** A parser for commander: a day, which is its begin in UTC, or a time as in RFC 3339. */
export function pointInTime(text: string): Date {
  const time = new Date(
    /^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:\d{2}))?$/.test(text) ? text : '',
  );
  if (Number.isFinite(time.getTime())) return time;
  throw new InvalidArgumentError('expected a day or a time, such as 2027-01-31 or 2027-01-31T18:00:00Z');
}
