import { isMap, isScalar, isSeq, LineCounter, parseDocument } from 'yaml';
import { OperatorError } from './errors.js';

/** What YAML consists of, every scalar as text. Maps have no prototype. */
export type Raw = string | Raw[] | RawMap;
export interface RawMap {
  [name: string]: Raw;
}

/** What a YAML text says, every scalar as text, and where each value stands (`LINE:COLUMN` by dotted path). */
export interface Parsed {
  readonly value: Raw;
  readonly positions: ReadonlyMap<string, string>;
}

const DEEPEST = 32;

/**
 * Reads YAML without giving scalars a type: the schema does that, so `0123` keeps its zero and `yes` is a word until a key
 * wants a truth value. Quotes nothing of the text, which may hold a secret.
 * @throws OperatorError `LINE:COLUMN: what`
 */
export function parseYaml(source: string): Parsed {
  const counter = new LineCounter();
  const at = (offset: number) => {
    const { line, col } = counter.linePos(offset);
    return `${line}:${col}`;
  };
  const document = parseDocument(source.replace(/^\uFEFF/, ''), {
    schema: 'failsafe',
    customTags: ['merge'],
    lineCounter: counter,
    prettyErrors: false,
    logLevel: 'error',
  });
  const [error] = document.errors;
  if (error) {
    const [what, fix] = explain(error.code);
    throw new OperatorError(`${at(error.pos[0])}: ${what}`, fix ? { fix } : {});
  }
  let value: unknown;
  try {
    value = document.toJS();
  } catch (cause) {
    throw new OperatorError('1:1: the aliases cannot be resolved', { fix: 'write the values out', cause });
  }
  const positions = new Map<string, string>();
  locate(document.contents, [], (path, offset) => positions.set(path.join('.'), at(offset)));
  return { value: plain(value, DEEPEST), positions };
}

function explain(code: string): [what: string, fix?: string] {
  switch (code) {
    case 'TAB_AS_INDENT':
      return ['a tab indents this line', 'indent with spaces'];
    case 'DUPLICATE_KEY':
      return ['this key stands twice', 'remove one of them'];
    case 'MULTIPLE_DOCS':
      return ['a second document begins', 'remove the line ---'];
    case 'MISSING_CHAR':
      return ['a quote or bracket is not closed', 'close it, or put the whole value in quotes'];
    case 'BAD_INDENT':
      return ['the indentation is wrong', 'give keys of one level the same number of spaces'];
    default:
      return ['this is not valid YAML', 'check the indentation, the space after each colon, and quote odd characters'];
  }
}

function locate(
  node: unknown,
  path: readonly string[],
  found: (path: readonly string[], offset: number) => void,
): void {
  if (isMap(node))
    for (const { key, value } of node.items) {
      const name = [...path, String(isScalar(key) ? key.value : key)];
      if (isScalar(key) && key.range) found(name, key.range[0]);
      locate(value, name, found);
    }
  else if (isSeq(node))
    node.items.forEach((item, index) => {
      const name = [...path, String(index)];
      if ((isScalar(item) || isMap(item)) && item.range) found(name, item.range[0]);
      locate(item, name, found);
    });
}

/** Copies into objects without a prototype. The depth bounds what an alias to its own parent unfolds to. */
function plain(value: unknown, depth: number): Raw {
  if (depth === 0)
    throw new OperatorError('1:1: the values are nested too deeply', { fix: 'remove recursive aliases' });
  if (Array.isArray(value)) return value.map(item => plain(item, depth - 1));
  if (typeof value !== 'object' || value === null) return String(value ?? '');
  const copy = Object.create(null) as RawMap;
  for (const [name, child] of Object.entries(value)) copy[name] = plain(child, depth - 1);
  return copy;
}

/** No value at all: nothing, or one of YAML's words for it. */
export function isBlank(value: Raw): boolean {
  return typeof value === 'string' && /^(?:~|null|Null|NULL)?$/.test(value.trim());
}
