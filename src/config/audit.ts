import { bare } from './keeping.js';
import { key, optionalKey, path, positiveDuration, section, size, yesNo } from './keys.js';

/** The part of the configuration that says what is kept of who did what. */

const MIB = 1024 * 1024;
const HOUR = 3_600_000;

export const audit = section(
  {
    enabled: key(yesNo, true, 'Writes the audit log. See [Audit](audit.md).'),
    folder: key(path, '', 'The folder of its files, one or more for each process.', {
      fallback: '`DIR/audit`, or `registry-secure/audit-log` in the data with a configuration file',
    }),
    head: optionalKey(
      path,
      'A folder for the seals of the log, which tell up to where it was written; without one they are in the data. Put it where who can change the log cannot.',
    ),
    rotatesize: key(size(64 * 1024, 1024 * MIB), 16 * MIB, 'A file of this size is followed by another one.'),
    rotateage: key(positiveDuration(24 * HOUR), 24 * HOUR, 'And one that is so old.', bare),
    keep: key(size(MIB, Number.MAX_SAFE_INTEGER), 1024 * MIB, 'Of all files together; beyond it the oldest go.'),
  },
  'The log of logins, refusals, pushes, deletes and changes, in which nothing can be changed unseen.',
  { ours: true },
);
