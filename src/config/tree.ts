import { z } from 'zod';
import { isBlank, type Raw } from '../yaml.js';
import { KEYS, type KeyInfo } from './keys.js';
import { schema } from './schema.js';

/** One key or section of the schema, with its place in the tree. The whole configuration has the empty path. */
export interface Node extends KeyInfo {
  /** Dotted, such as `http.tls.key`. */
  readonly path: string;
  /** `REGISTRY_HTTP_TLS_KEY`. */
  readonly environment: string;
  readonly children: ReadonlyMap<string, Node>;
}

/** The schema as a tree of nodes, which the loader, the reference and the display walk. */
export const TREE: Node = node(schema, '', 'REGISTRY');

/** Every key and section but the root, in the order of the schema. */
export const NODES: readonly Node[] = [...below(TREE)];

function node(type: z.ZodType, path: string, environment: string): Node {
  const info = KEYS.get(type);
  if (!info) throw new Error(`the configuration key ${path} is not described`);
  const children = new Map<string, Node>();
  if (info.shape === 'section')
    for (const [name, child] of Object.entries(objectOf(type).shape)) {
      const variable = KEYS.get(child as z.ZodType)?.variable ?? name;
      children.set(
        name,
        node(child as z.ZodType, path ? `${path}.${name}` : name, `${environment}_${variable.toUpperCase()}`),
      );
    }
  return { ...info, path, environment, children };
}

/** The object below zod's wrappers for defaults and absence. */
function objectOf(type: z.ZodType): z.ZodObject {
  let inner: unknown = type;
  while (inner instanceof z.ZodPrefault || inner instanceof z.ZodOptional) inner = inner.def.innerType;
  return inner as z.ZodObject;
}

function* below(parent: Node): Generator<Node> {
  for (const child of parent.children.values()) {
    yield child;
    yield* below(child);
  }
}

/** The node that holds a dotted path: the key or section itself, or the list, map or opaque key it lies in. */
export function nodeAt(path: string): Node | undefined {
  let current: Node | undefined = TREE;
  for (const name of path === '' ? [] : path.split('.')) {
    if (current.shape !== 'section') return current;
    current = current.children.get(name);
    if (!current) return undefined;
  }
  return current;
}

/** A kind that is named alone, as in `auth: htpasswd`, as the section it stands for. */
export function chosen(node: Node, value: Raw): Raw {
  return node.choice && typeof value === 'string' && !isBlank(value) ? { [value]: {} } : value;
}
