import { resolve } from 'node:path';
import { z } from 'zod';
import { OperatorError } from '../errors.js';
import { formatSize, parseSize } from '../size.js';
import { formatDuration, parseAddress, parseBoolean, parseDuration, quote } from './values.js';

/**
 * The words in which `schema.ts` is written: kinds of values, keys, sections. Each puts what the loader, the reference and
 * `config print` need to know about a key beside its zod schema. Every scalar arrives as text, from whichever source.
 */

/**
 * - `supported`: does what it says.
 * - `accepted`: checked and shown, without effect and without a word, because nothing is lost by it.
 * - `warned`: without effect, and a warning says so where it is set.
 * - `refused`: where it is set nothing starts, for going on would store, trust or open something else than was meant.
 */
type Status = 'supported' | 'accepted' | 'warned' | 'refused';

export interface KeyInfo {
  /** One or two sentences for the reference. */
  readonly about: string;
  readonly shape: 'section' | 'scalar' | 'list' | 'map' | 'opaque';
  /** The kind of value, for the reference. */
  readonly type: string;
  readonly status: Status;
  /** For `warned` and `refused`: what to do instead, where it is not just to remove the key. */
  readonly instead?: string;
  /** The default as the reference and a configuration file would write it. */
  readonly fallback?: unknown;
  /** Never shown. */
  readonly secret?: true;
  /** Not a key of Distribution. */
  readonly ours?: true;
  /** The name in REGISTRY_* where Distribution takes it from a field of its program and not from the key. */
  readonly variable?: string;
  /** An old name: its value counts for this other key. */
  readonly movedTo?: string;
  /** Of a section that chooses a kind by the name of its child: what the choice is between. Unknown children are refused. */
  readonly choice?: string;
  /** A warning about a value that is allowed. */
  readonly caution?: (text: string) => string | undefined;
  /** The value as a configuration file would write it. */
  readonly write?: (value: never) => unknown;
}

/** What is known of each key, by its zod schema. */
export const KEYS = z.registry<KeyInfo>();

interface Kind<T> extends Pick<KeyInfo, 'type' | 'shape' | 'write' | 'caution'> {
  readonly schema: z.ZodType<T, unknown>;
}

type Extra = Partial<Omit<KeyInfo, 'about' | 'shape' | 'type'>>;

/** A key that always has a value. */
export function key<T>(kind: Kind<T>, fallback: T, about: string, extra: Extra = {}) {
  const { schema, ...rest } = kind;
  const written = kind.write ? kind.write(fallback as never) : fallback;
  const info: KeyInfo = { status: 'supported', ...rest, about, fallback: written, ...extra };
  // zod's default wants a value that is no `undefined`, which no kind yields.
  return schema.default(fallback as z.core.util.NoUndefined<T>).register(KEYS, info);
}

/** A key that may be absent. */
export function optionalKey<T>(kind: Kind<T>, about: string, extra: Extra = {}) {
  const { schema, ...rest } = kind;
  return schema.optional().register(KEYS, { status: 'supported', ...rest, about, ...extra });
}

/** A key, or a section with all its keys, of Distribution that has no counterpart here. */
export function unsupported(status: 'warned' | 'refused', about: string, instead?: string, extra: Extra = {}) {
  const info: KeyInfo = { about, shape: 'opaque', type: '', status, ...(instead && { instead }), ...extra };
  return z.never().optional().register(KEYS, info);
}

/** Further keys below one name; there even when nothing sets one of them. */
export function section<S extends z.core.$ZodLooseShape>(shape: S, about: string, extra: Extra = {}) {
  const info: KeyInfo = { about, shape: 'section', type: 'section', status: 'supported', ...extra };
  return z
    .strictObject(shape)
    .prefault({} as never)
    .register(KEYS, info);
}

/** A section that is there only where it is named. */
export function optionalSection<S extends z.core.$ZodLooseShape>(shape: S, about: string, extra: Extra = {}) {
  const info: KeyInfo = { about, shape: 'section', type: 'section', status: 'supported', ...extra };
  return z.strictObject(shape).optional().register(KEYS, info);
}

const unlessMissing = (what: string) => ({
  error: ({ input }: { input?: unknown }) => (input === undefined ? 'is missing' : what),
});

const scalar = z.string(unlessMissing('expects one value, not a list or further keys'));

/** Text through a parser whose OperatorError becomes the problem and its fix. */
function parsed<T>(parse: (text: string) => T): z.ZodType<T, unknown> {
  return scalar.transform((value, context): T => {
    try {
      return parse(value);
    } catch (error) {
      if (!(error instanceof OperatorError)) throw error;
      context.addIssue({ code: 'custom', message: error.message, params: { fix: error.fix } });
      return z.NEVER;
    }
  });
}

export const text: Kind<string> = {
  type: 'text',
  shape: 'scalar',
  schema: parsed(value => {
    if (/[\0-\x1f\x7f]/.test(value))
      throw new OperatorError('holds a line break or another control character', { fix: 'write it in one line' });
    return value;
  }),
};

export const path: Kind<string> = {
  type: 'path',
  shape: 'scalar',
  schema: parsed(value => {
    if (/[\0\n\r]/.test(value))
      throw new OperatorError('is not a path', { fix: 'name a file; do not write its content here' });
    return resolve(value);
  }),
};

export const yesNo: Kind<boolean> = { type: 'true or false', shape: 'scalar', schema: parsed(parseBoolean) };

export const address: Kind<string> = {
  type: 'host:port',
  shape: 'scalar',
  schema: parsed(value => {
    parseAddress(value);
    return value;
  }),
};

/** Milliseconds, written with units. */
export const duration: Kind<number> = {
  type: 'duration',
  shape: 'scalar',
  schema: parsed(parseDuration),
  write: formatDuration,
};

/** A duration for which 0 means the default, as in Distribution. */
export function positiveDuration(fallback: number): Kind<number> {
  return { ...duration, schema: parsed(value => parseDuration(value) || fallback) };
}

/** A whole number; one below `least` means `fallback`, as in Distribution. */
export function count(least: number, fallback: number): Kind<number> {
  return {
    type: 'whole number',
    shape: 'scalar',
    schema: parsed(value => {
      if (!/^-?\d{1,15}$/.test(value)) throw new OperatorError(`${quote(value)} is not a whole number`);
      return Number(value) < least ? fallback : Number(value);
    }),
  };
}

/** A whole number from `least` to `most`, and no other. */
export function wholeFrom(least: number, most: number): Kind<number> {
  return {
    type: `whole number from ${least} to ${most}`,
    shape: 'scalar',
    schema: parsed(value => {
      if (/^\d{1,15}$/.test(value) && Number(value) >= least && Number(value) <= most) return Number(value);
      throw new OperatorError(`${quote(value)} is not a whole number from ${least} to ${most}`);
    }),
  };
}

/** A number of bytes from `least` to `most`, written with a unit. */
export function size(least: number, most: number): Kind<number> {
  return {
    type: 'size',
    shape: 'scalar',
    schema: parsed(value => {
      const bytes = parseSize(value);
      if (bytes >= least && bytes <= most) return bytes;
      throw new OperatorError(`${quote(value)} is too ${bytes < least ? 'small' : 'large'}`, {
        fix: `write a size from ${formatSize(least)} to ${formatSize(most)}`,
      });
    }),
    write: formatSize,
  };
}

/** One of some words, in any case. */
export function oneOf<const T extends string>(...words: readonly T[]): Kind<T> {
  return {
    type: words.map(word => `\`${word}\``).join(', '),
    shape: 'scalar',
    schema: parsed(value => {
      const word = words.find(word => word === value.toLowerCase());
      if (!word)
        throw new OperatorError(`${quote(value)} is not known here`, { fix: `write one of: ${words.join(', ')}` });
      return word;
    }),
  };
}

const itemsOf = <T>(item: z.ZodType<T, unknown>): z.ZodType<T[], unknown> =>
  z.preprocess(
    value => (typeof value === 'string' ? [value] : value),
    z.array(item, unlessMissing('expects a list, such as [a, b]')),
  );

/** A list of values that each pass `parse`; one value alone stands for a list of one. */
export function list<T>(type: string, parse: (text: string) => T): Kind<T[]> {
  return { type: `list of ${type}`, shape: 'list', schema: itemsOf(parsed(parse)) };
}

/** A list whose items hold the given keys. */
export function listOf<T>(type: string, item: z.ZodType<T, unknown>): Kind<T[]> {
  return { type: `list of ${type}`, shape: 'list', schema: itemsOf(item) };
}

/** Names of the operator's choice; `parse` sees the name and each value, and answers the value. */
export function map<T>(type: string, value: z.ZodType<T, unknown>, name: RegExp): Kind<Record<string, T>> {
  return {
    type: `map of ${type}`,
    shape: 'map',
    schema: z.record(z.string().regex(name, { error: 'is not a valid name' }), value, {
      error: 'expects names with values below it',
    }),
  };
}

/** Values of a header, RFC 9110 section 5.5: one or several, without control characters. */
export const headerValues = itemsOf(
  parsed(value => {
    if (/[\0-\x08\x0a-\x1f\x7f]|[^\0-\xff]/.test(value))
      throw new OperatorError('is not a valid header value', { fix: 'use printable characters only' });
    return value;
  }),
);

export const anyText: z.ZodType<string, unknown> = scalar;

/** The caution of a key that turns the verification of a service's certificate off. */
export function warnsWhereOn(value: string): string | undefined {
  return /^(?:true|yes|on|y)$/i.test(value)
    ? 'lets anybody on the way pass for the object store; NODE_EXTRA_CA_CERTS names an authority to trust'
    : undefined;
}
