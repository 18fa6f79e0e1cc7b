import { Document } from 'yaml';
import type { Loaded } from './load.js';
import { type Node, TREE } from './tree.js';

/** How a configuration is shown: as a file would write it, with secrets masked and the source of each value. */

const MASK = '***';
/** Names of the operator's choice (log fields, headers) that tell of a secret. */
const SECRET_NAME =
  /pass(?:word|wd|phrase)?|secret|token|authorization|cookie|credential|(?:api|access)[-_]?key|private/i;
/** Where a secret is kept is none. */
const FILE_NAME = /file$/;
const PRIVATE_KEY = /-----BEGIN [A-Z ]*PRIVATE KEY-----/;

export interface Shown {
  readonly value: unknown;
  readonly source: string;
}

/** Each value by its dotted path, in the order of the schema. */
export function shown({ config, sources }: Loaded): Map<string, Shown> {
  const values = new Map<string, Shown>();
  collect(TREE, config, sources, values);
  // One kind of storage alone is in force, and may be named.
  const { s3, azure, gcs, swift } = config.storage;
  if (s3 || azure || gcs || swift)
    for (const path of values.keys()) if (path.startsWith('storage.filesystem.')) values.delete(path);
  return values;
}

/** The whole configuration as YAML, which can be used as a configuration file; each value's source follows it as a comment. */
export function toYaml(loaded: Loaded): string {
  const document = new Document({});
  for (const [path, { value, source }] of shown(loaded)) {
    const node = document.createNode(value, { flow: true });
    node.comment = ` ${source.replaceAll(/\s/g, ' ')}`;
    document.setIn(path.split('.'), node);
  }
  return document.toString({ lineWidth: 0, flowCollectionPadding: false });
}

function collect(node: Node, value: unknown, sources: ReadonlyMap<string, string>, values: Map<string, Shown>): void {
  if (value === undefined) return;
  if (node.shape === 'section' && node.children.size > 0) {
    for (const [name, child] of node.children)
      collect(child, (value as Record<string, unknown>)[name], sources, values);
    return;
  }
  const written = node.write ? node.write(value as never) : value;
  values.set(node.path, { value: node.secret ? MASK : masked(written), source: sourceOf(node.path, sources) });
}

/** The source of a value, or of each part of it where they differ. */
function sourceOf(path: string, sources: ReadonlyMap<string, string>): string {
  const all = [...sources].filter(([key]) => key === path || key.startsWith(`${path}.`)).map(([, source]) => source);
  return [...new Set(all)].join(', ') || 'default';
}

function masked(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(masked);
  if (typeof value === 'object' && value !== null)
    return Object.fromEntries(
      Object.entries(value).map(([name, child]) => [
        name,
        SECRET_NAME.test(name) && !FILE_NAME.test(name) ? MASK : masked(child),
      ]),
    );
  if (typeof value !== 'string') return value;
  if (PRIVATE_KEY.test(value)) return MASK;
  return value.replace(/([a-z][a-z0-9+.-]*:\/\/)[^/\s@]+@/gi, `$1${MASK}@`);
}
