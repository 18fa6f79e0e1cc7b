import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { loadConfig } from '../config/load.js';
import { nodeAt } from '../config/tree.js';
import type { ImageSource, ImageTarget } from '../copy/place.js';
import { RegistryClient, type RegistryLogin } from '../copy/registry-client.js';
import { RegistryPlace } from '../copy/registry-place.js';
import { StorePlace } from '../copy/store-place.js';
import { readCertificates } from '../doctor/stores.js';
import { parseImageHost } from '../pki/names.js';
import { isDigest, isRepositoryName, isTag } from '../reference.js';
import { becomeVolumeOwner, wantsVolumeOwner } from '../server/privileges.js';
import { placeOf, type StorageSettings, storageOf } from '../storage/open.js';
import { Store } from '../store/store.js';
import { usage } from './options.js';

/** What one end of a copy names: a place, and perhaps what is in it. */
export interface Named {
  readonly kind: 'registry' | 'folder' | 'bucket';
  /** HOST[:PORT] as clients write it, a path, or `s3://…`. */
  readonly place: string;
  readonly repository?: string;
  /** A tag or a digest. */
  readonly reference?: string;
}

/** Where Docker Hub really is, which image references call by another name. */
const HUB = {
  names: ['docker.io', 'index.docker.io'],
  host: 'registry-1.docker.io',
  login: 'https://index.docker.io/v1/',
};

/**
 * `HOST[:PORT][/REPOSITORY[:TAG|@DIGEST]]`, or where the data of a registry are, and after a `#` what is in it: a folder, by
 * a path that begins with `/`, `./` or `../`, or a bucket, `s3://BUCKET[/ROOT][?KEY=VALUE&…]`. @throws OperatorError
 */
export function parseNamed(text: string): Named {
  const plain = text.replace(/^docker:\/\//, '');
  const isBucket = plain.startsWith('s3://');
  if (!isBucket && /^[a-z0-9]+:\/\//i.test(plain))
    throw usage(
      `${JSON.stringify(text)} is no place that images can be copied from or to`,
      'write HOST[:PORT]/REPOSITORY:TAG, ./FOLDER#REPOSITORY:TAG, or s3://BUCKET?region=REGION#REPOSITORY:TAG',
    );
  const isFolder = /^\.{0,2}\//.test(plain) || plain === '.' || plain === '..';
  const cut = plain.indexOf(isFolder || isBucket ? '#' : '/');
  const place = cut < 0 ? plain : plain.slice(0, cut);
  const image = cut < 0 ? '' : plain.slice(cut + 1);
  if (!isFolder && !isBucket) {
    // As docker tells a host from the first part of a name.
    if (!/[.:]/.test(place) && place !== 'localhost' && !/^\[/.test(place))
      throw usage(
        `${JSON.stringify(text)} names no registry`,
        'write the host before it, as in registry.example.com/team/app:v1, or ./ before a folder',
      );
    parseImageHost(place);
  }
  return {
    kind: isFolder ? 'folder' : isBucket ? 'bucket' : 'registry',
    place: isFolder ? resolve(place) : place,
    ...parseImage(image, text),
  };
}

function parseImage(image: string, text: string): Pick<Named, 'repository' | 'reference'> {
  if (image === '') return {};
  const [, repository = '', joint, reference] = /^([^:@]+)(?:([:@])(.+))?$/.exec(image) ?? [];
  if (!isRepositoryName(repository))
    throw usage(`${JSON.stringify(text)}: ${JSON.stringify(repository || image)} is no name of a repository`);
  if (reference === undefined) return { repository };
  if (joint === '@' ? isDigest(reference) : isTag(reference)) return { repository, reference };
  throw usage(`${JSON.stringify(text)}: ${JSON.stringify(reference)} is no ${joint === '@' ? 'digest' : 'tag'}`);
}

export interface Opening {
  readonly ca: readonly (string | Buffer)[];
  /** Whom to log in as at a registry, by the name that logins are kept under; undefined: nobody. */
  readonly loginAt: (host: string) => Promise<RegistryLogin | undefined>;
  readonly plain: boolean;
}

export async function openSource(named: Named, opening: Opening): Promise<ImageSource> {
  if (named.kind === 'registry') return openRegistry(named, opening);
  return openStore(named, { readOnly: true });
}

/** @param dryRun nothing is made */
export async function openTarget(
  named: Named,
  opening: Opening,
  { dryRun }: { dryRun: boolean },
): Promise<ImageTarget> {
  if (named.kind === 'registry') return openRegistry(named, opening);
  const { kind, place } = named;
  if (kind === 'folder' && !dryRun) {
    // Images may be private: nobody else is to look into a new folder.
    await mkdir(place, { recursive: true, mode: 0o700 });
    await becomeVolumeOwner(place, { fresh: wantsVolumeOwner(process.env.REGISTRY_SECURE_USER) });
  }
  return openStore(named, { readOnly: dryRun });
}

async function openRegistry({ place }: Named, { ca, loginAt, plain }: Opening): Promise<RegistryPlace> {
  const isHub = HUB.names.includes(place);
  const login = await loginAt(isHub ? HUB.login : place);
  const own = certsOf(place);
  return new RegistryPlace(new RegistryClient({ host: isHub ? HUB.host : place, ca: [...ca, ...own], login, plain }));
}

/** What docker and podman have been told to trust for this host. */
function certsOf(host: string): string[] {
  return ['/etc/docker/certs.d', '/etc/containers/certs.d']
    .map(folder => join(folder, host, 'ca.crt'))
    .filter(file => existsSync(file))
    .flatMap(file => readCertificates(file).map(String));
}

async function openStore({ kind, place }: Named, { readOnly }: { readOnly: boolean }): Promise<StorePlace> {
  const settings = kind === 'bucket' ? bucketSettings(place) : { filesystem: { rootdirectory: place } };
  const onNotice = (message: string) => process.stderr.write(`registry-secure: warning: ${message}\n`);
  const driver = await storageOf(settings, { readOnly, onNotice });
  await driver.open();
  const store = new Store(driver, {
    // Of any registry whose data this may be.
    largestManifest: 32 * 1024 * 1024,
    validation: { urls: undefined, indexes: 'none', images: 'all' },
    verify: 'always',
  });
  return new StorePlace(driver, store, placeOf(settings));
}

/**
 * What stands behind the `?` are keys of `storage.s3`; what does not stand there is in the variables REGISTRY_STORAGE_S3_….
 * @throws OperatorError for a key that there is not, or that others could see in the list of processes
 */
function bucketSettings(place: string): StorageSettings {
  const { hostname, pathname, searchParams } = new URL(place);
  const flags = [...searchParams].map(([name, value]) => {
    const key = `storage.s3.${name}`;
    const node = nodeAt(key);
    if (!node) throw usage(`${name} is no key of storage.s3`, 'see docs/configuration.md');
    if (node.secret)
      throw usage(`${name} is a secret, which the list of processes would show`, `set ${node.environment}`);
    return { flag: name, key, value };
  });
  const env = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => name.startsWith('REGISTRY_STORAGE_S3_')),
  );
  const named = [
    { flag: place, key: 'storage.s3.bucket', value: hostname },
    ...(pathname.length > 1 ? [{ flag: place, key: 'storage.s3.rootdirectory', value: decodeURI(pathname) }] : []),
  ];
  return loadConfig({ dir: process.cwd(), standardFiles: false, env, flags: [...flags, ...named] }).config.storage;
}
