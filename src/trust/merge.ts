import { isDeepStrictEqual } from 'node:util';
import { isMap, parseDocument } from 'yaml';
import { OperatorError } from '../errors.js';
import { tomlBlock, tomlMarks } from './shell.js';

/**
 * What a registry needs, in a file of settings that is not its alone. All that others have written stays, comments as well.
 */

type Tree = { readonly [key: string]: Tree | string | readonly string[] };

/** The file with our part in it: unchanged where it is there. @throws OperatorError where others say something else. */
export function merged(before: string, step: { as: 'yaml' | 'toml' | 'json'; add: string; host: string }): string {
  if (step.as === 'toml') return withBlock(before, step.host, step.add);
  const document = parsed(before);
  for (const [path, value] of leaves(parseDocument(step.add).toJS() as Tree)) {
    const blocked = path.slice(0, -1).findIndex((_, depth) => {
      const node = document.getIn(path.slice(0, depth + 1));
      return node !== undefined && !isMap(node);
    });
    if (blocked >= 0)
      throw new OperatorError(`${path.slice(0, blocked + 1).join(' → ')} in it is no map`, {
        fix: 'remove it, and run this again',
      });
    const there = document.getIn(path);
    // A list that somebody has set, such as the addresses of a mirror, says more than ours.
    if (there !== undefined && Array.isArray(value)) continue;
    if (!isDeepStrictEqual(there, value)) document.setIn(path, document.createNode(value));
  }
  return isDeepStrictEqual(document.toJS(), parsed(before).toJS()) ? before : document.toString({ lineWidth: 0 });
}

/** The file without it; empty where nothing else is left. @throws OperatorError where it cannot be read. */
export function unmerged(before: string, step: { as: 'yaml' | 'toml' | 'json'; add: string; host: string }): string {
  if (step.as === 'toml') return withoutBlock(before, step.host);
  const document = parsed(before);
  let found = false;
  for (const [path, value] of leaves(parseDocument(step.add).toJS() as Tree)) {
    const there = document.getIn(path) as { toJSON?: () => unknown } | undefined;
    if (!isDeepStrictEqual(there?.toJSON?.() ?? there, value)) continue;
    found = true;
    // What is empty then goes as well.
    for (let at = [...path]; at.length > 0; at = at.slice(0, -1)) {
      const node = document.getIn(at);
      if (at.length < path.length && !(isMap(node) && node.items.length === 0)) break;
      document.deleteIn(at);
    }
  }
  if (!found) return before;
  return isMap(document.contents) && document.contents.items.length > 0 ? document.toString({ lineWidth: 0 }) : '';
}

function parsed(text: string) {
  const document = parseDocument(text);
  const problem = document.errors[0]?.message.split('\n')[0];
  if (problem !== undefined || !(document.contents === null || isMap(document.contents)))
    throw new OperatorError(`it is no YAML map${problem === undefined ? '' : `: ${problem}`}`, {
      fix: 'mend it, and run this again',
    });
  return document;
}

function leaves(tree: Tree, path: readonly string[] = []): Array<[path: string[], value: unknown]> {
  return Object.entries(tree).flatMap(([key, value]) =>
    typeof value === 'string' || Array.isArray(value)
      ? [[[...path, key], value] as [string[], unknown]]
      : leaves(value as Tree, [...path, key]),
  );
}

function withBlock(before: string, host: string, text: string): string {
  const block = `${tomlBlock(host, text)}\n`;
  if (before.includes(block)) return before;
  const rest = withoutBlock(before, host);
  // Twice the same table is an error of the whole file.
  if (rest.split('\n').some(line => line.replaceAll(/\s/g, '').startsWith(`[registry."${host}"]`)))
    throw new OperatorError(`it has a table [registry."${host}"] already`, {
      fix: `put this there: ${text.split('\n')[1]}`,
    });
  return `${rest}${rest === '' || rest.endsWith('\n') ? '' : '\n'}${block}`;
}

function withoutBlock(before: string, host: string): string {
  const [first, last] = tomlMarks(host);
  const [start, end] = [before.indexOf(`${first}\n`), before.indexOf(last)];
  if (start < 0 || end < start) return before;
  return before.slice(0, start) + before.slice(end + last.length).replace(/^\n/, '');
}
