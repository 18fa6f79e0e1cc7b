import { OperatorError } from '../errors.js';
import { isBlank, parseYaml, type Raw } from '../yaml.js';
import type { Draft } from './draft.js';
import { chosen, NODES, type Node, nodeAt, TREE } from './tree.js';
import { nearest } from './values.js';

/**
 * `REGISTRY_A_B=value` sets the key `a.b`, as in Distribution: the values are YAML, list items go by index. Beyond it, sections
 * that are not there are made, and names that cannot be exported (`X-Frame-Options`) may be written with `_`.
 */

const PREFIX = 'REGISTRY_';

/** What other programs put into the environment under this prefix, and what is ours but no key. */
const FOREIGN = [
  /^REGISTRY_SECURE_/,
  /^REGISTRY_CONFIGURATION_PATH$/,
  // Podman's, Skopeo's and Buildah's credentials file.
  /^REGISTRY_AUTH_FILE$/,
  // Kubernetes makes these for a service named `registry`, `registry-auth` and so on.
  /^REGISTRY_(?:[A-Z0-9]+_)*SERVICE_(?:HOST|PORT(?:_[A-Z0-9_]+)?)$/,
  /^REGISTRY_(?:[A-Z0-9]+_)*PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?$/,
];
const LINK = /^(?:tcp|udp|sctp):\/\//;

/** Applies the variables to the draft, in lexical order (indexes by number), and answers the warnings. @throws OperatorError */
export function applyEnvironment(draft: Draft, env: NodeJS.ProcessEnv): string[] {
  const warnings: string[] = [];
  const names = Object.keys(env).filter(name => name.startsWith(PREFIX) && env[name] !== undefined);
  for (const name of names.sort(bySegment)) {
    const text = env[name]!;
    if (FOREIGN.some(pattern => pattern.test(name)) || (/_PORT$/.test(name) && LINK.test(text))) continue;
    const found = resolve(draft, name);
    if (!found) {
      const known = nearest(name.slice(PREFIX.length), variables());
      warnings.push(`${name} is no known setting and is ignored${known ? `; did you mean ${PREFIX}${known}?` : ''}`);
      continue;
    }
    const value = read(name, text, found);
    if (value === undefined) draft.remove(found.path);
    else draft.set(found.path, value, name);
  }
  return warnings;
}

function bySegment(a: string, b: string): number {
  const [left, right] = [a.split('_'), b.split('_')];
  for (let i = 0; i < Math.min(left.length, right.length); i++) {
    if (left[i] === right[i]) continue;
    const [x, y] = [left[i]!, right[i]!];
    if (/^\d+$/.test(x) && /^\d+$/.test(y)) return Number(x) - Number(y);
    return x < y ? -1 : 1;
  }
  return left.length - right.length;
}

interface Found {
  readonly path: string[];
  readonly node: Node;
  /** What the place holds; anything else in a variable is meant as text, even where it looks like YAML. */
  readonly holds: 'text' | 'texts' | 'anything';
}

/** The place that a variable names; undefined when the schema has none. */
function resolve(draft: Draft, name: string): Found | undefined {
  const rest = name.toLowerCase().split('_').slice(1);
  const path: string[] = [];
  let node = TREE;
  while (rest.length > 0 && node.shape === 'section') {
    const { children } = node;
    // The names of some keys hold a `_` of their own.
    const names = rest.map((_, index) => rest.slice(0, index + 1).join('_'));
    const child = [...children].find(([key, { variable }]) => names.includes(key) || names.includes(variable ?? key));
    if (!child) {
      // The name of an unknown kind: kept, so that it is refused as such.
      if (node.choice) return { path: [...path, rest[0]!], node, holds: 'anything' };
      return undefined;
    }
    path.push(child[0]);
    node = child[1];
    rest.splice(0, (names.includes(child[0]) ? child[0] : node.variable!).split('_').length);
  }
  if (rest.length === 0) return { path, node, holds: node.shape === 'scalar' ? 'text' : 'anything' };
  switch (node.shape) {
    case 'opaque':
      return { path: [...path, rest.join('_')], node, holds: 'text' };
    case 'map':
      return { ...inMap(draft, path, rest), node };
    case 'list':
      return { ...inList(draft, name, path, rest), node };
    default:
      return undefined;
  }
}

function inMap(draft: Draft, path: string[], rest: string[]): Omit<Found, 'node'> {
  const index = rest.length > 1 && /^\d+$/.test(rest.at(-1)!) ? [rest.pop()!] : [];
  const names = path.at(-1) === 'headers' ? rest.join('-') : rest.join('_');
  const map = draft.get(path);
  const there = typeof map === 'object' ? Object.keys(map).find(name => name.toLowerCase() === names) : undefined;
  return { path: [...path, there ?? names, ...index], holds: index.length > 0 ? 'text' : 'texts' };
}

function inList(draft: Draft, name: string, path: string[], rest: string[]): Omit<Found, 'node'> {
  const list = draft.get(path);
  const length = Array.isArray(list) ? list.length : 0;
  if (!/^\d{1,6}$/.test(rest[0]!))
    throw new OperatorError(`${name}: ${path.join('.')} is a list, and ${rest[0]} is no index`, {
      fix: `write ${environmentOf(path)}_0 or ${environmentOf(path)}='[…]'`,
    });
  if (Number(rest[0]) > length)
    throw new OperatorError(`${name}: ${path.join('.')} has ${length} items before it`, {
      fix: `number the items from 0 without a gap`,
    });
  return { path: [...path, ...rest], holds: 'text' };
}

/** The value of a variable as the draft holds it; undefined for none. */
function read(name: string, text: string, { node, path, holds }: Found): Raw | undefined {
  let value: Raw;
  try {
    value = parseYaml(text).value;
  } catch (error) {
    if (!(error instanceof OperatorError)) throw error;
    // A plain text such as [::]:443 or @secret need not be YAML.
    if (holds !== 'anything') return text;
    throw new OperatorError(`${name}: ${path.join('.')}: the value is not valid YAML`, {
      fix: 'write such as [a, b] for a list, {a: b} for further keys',
      cause: error,
    });
  }
  if (isBlank(value)) return undefined;
  if (typeof value === 'string') return path.join('.') === node.path ? chosen(node, value) : value;
  return holds === 'anything' || (holds === 'texts' && Array.isArray(value)) ? value : text;
}

const environmentOf = (path: readonly string[]) => nodeAt(path.join('.'))?.environment;

const variables = () => NODES.map(node => node.environment.slice(PREFIX.length));
