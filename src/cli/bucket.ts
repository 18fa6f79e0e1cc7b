import { loadConfig } from '../config/load.js';
import { nodeAt } from '../config/tree.js';
import type { StorageSettings } from '../storage/open.js';
import { usage } from './options.js';

/**
 * URLs of object stores: `s3://BUCKET[/ROOT][?KEY=VALUE&…]` and the like. The keys are those of the store's section in the
 * configuration; what the URL does not say is in the variables of that section, and secrets are nowhere else.
 */

/** Where the configuration has what such a URL says. */
interface ObjectStore {
  readonly section: string;
  readonly bucket: string;
  readonly root: string;
}

/** By the scheme of their URLs, as the services' own tools write them where they do. */
const STORES: Readonly<Record<string, ObjectStore>> = {
  s3: { section: 'storage.s3', bucket: 'bucket', root: 'rootdirectory' },
  azure: { section: 'storage.azure', bucket: 'container', root: 'rootdirectory' },
  gs: { section: 'storage.gcs', bucket: 'bucket', root: 'rootdirectory' },
  swift: { section: 'storage.swift', bucket: 'container', root: 'prefix' },
};

export function isBucketScheme(scheme: string): boolean {
  return Object.hasOwn(STORES, scheme);
}

/** @throws OperatorError where the URL names no bucket, or a key that there is not, or that others could see in the list of processes */
export function checkBucket(url: string): void {
  parse(url);
}

/** What the configuration is to say, in a line. */
export function bucketSetting(url: string): string {
  const { store, bucket, root, keys } = parse(url);
  const values = [[store.bucket, bucket], ...(root === undefined ? [] : [[store.root, root]]), ...keys];
  return `${store.section} with ${values.map(([name, value]) => `${name}: ${value}`).join(', ')}`;
}

/** @throws OperatorError as `checkBucket`, and for values that cannot be */
export function bucketSettings(url: string, env: NodeJS.ProcessEnv = process.env): StorageSettings {
  const { store, bucket, root, keys } = parse(url);
  const { section } = store;
  const flags = keys.map(([name, value]) => ({ flag: name, key: `${section}.${name}`, value }));
  const named = [
    { flag: url, key: `${section}.${store.bucket}`, value: bucket },
    ...(root === undefined ? [] : [{ flag: url, key: `${section}.${store.root}`, value: root }]),
  ];
  const variables = `${nodeAt(section)!.environment}_`;
  const own = Object.fromEntries(Object.entries(env).filter(([name]) => name.startsWith(variables)));
  return loadConfig({ dir: process.cwd(), standardFiles: false, env: own, flags: [...flags, ...named] }).config.storage;
}

/** Not by `new URL`, to which `minio:9000` and `alice@images` would be other names, and `..` in a root another root. */
function parse(url: string): {
  readonly store: ObjectStore;
  readonly bucket: string;
  /** With the slash before it; undefined where there is none. */
  readonly root: string | undefined;
  readonly keys: ReadonlyArray<readonly [name: string, value: string]>;
} {
  const [, scheme = '', bucket = '', root = '', query = ''] =
    /^([^:]*):\/\/([^/?]*)(\/[^?]*)?(?:\?(.*))?$/s.exec(url) ?? [];
  const store = STORES[scheme]!;
  // Before anything repeats the URL.
  const keys = keysOf(store, query);
  if (bucket === '')
    throw usage(`${JSON.stringify(url)} names no ${store.bucket}`, `write ${scheme}://${store.bucket.toUpperCase()}`);
  // What stands there may be a secret, and is not repeated.
  if (/[@:]/.test(bucket))
    throw usage(
      `what follows ${scheme}:// is the name of a ${store.bucket}, with no user, host or port`,
      `write keys of ${store.section} after a ?, secrets in its variables, and @ and : of a name as %40 and %3A`,
    );
  return {
    store,
    bucket: decoded(bucket, url),
    root: /[^/]/.test(root) ? decoded(root, url) : undefined,
    keys,
  };
}

function keysOf({ section, bucket, root }: ObjectStore, query: string): Array<[name: string, value: string]> {
  // A plus is itself, as in the names.
  const keys = [...new URLSearchParams(query.replaceAll('+', '%2B'))];
  for (const [name] of keys) {
    const node = nodeAt(`${section}.${name}`);
    if (!node) throw usage(`${name} is no key of ${section}`, 'see docs/configuration.md');
    if (node.secret)
      throw usage(`${name} is a secret, which the list of processes would show`, `set ${node.environment}`);
    if (name === bucket || name === root) throw usage(`the ${name} stands before the ?`);
  }
  return keys;
}

function decoded(text: string, url: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw usage(`${JSON.stringify(url)} has a % that no two hexadecimal digits follow`, 'write % itself as %25');
  }
}
