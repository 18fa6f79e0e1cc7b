import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { ImageSource, ImageTarget } from '../copy/place.js';
import { RegistryClient, type RegistryLogin } from '../copy/registry-client.js';
import { RegistryPlace } from '../copy/registry-place.js';
import { StorePlace } from '../copy/store-place.js';
import { readCertificates } from '../doctor/stores.js';
import type { OperatorError } from '../errors.js';
import { parseImageHost } from '../pki/names.js';
import { isDigest, isRepositoryName, isTag } from '../reference.js';
import { becomeVolumeOwner, wantsVolumeOwner } from '../server/privileges.js';
import { FilesystemDriver } from '../storage/filesystem.js';
import { Store } from '../store/store.js';
import { usage } from './options.js';

/** What one end of a copy names: a place, and perhaps what is in it. */
export interface Named {
  readonly kind: 'registry' | 'folder';
  /** HOST[:PORT] as clients write it, or a path. */
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
 * `HOST[:PORT][/REPOSITORY[:TAG|@DIGEST]]`, or a folder with the data of a registry: a path that begins with `/`, `./` or
 * `../`, and after a `#` what is in it. @throws OperatorError
 */
export function parseNamed(text: string): Named {
  const plain = text.replace(/^docker:\/\//, '');
  if (/^[a-z0-9]+:\/\//i.test(plain))
    throw usage(
      `${JSON.stringify(text)} is no place that images can be copied from or to`,
      'write HOST[:PORT]/REPOSITORY:TAG, or ./FOLDER#REPOSITORY:TAG',
    );
  const isFolder = /^\.{0,2}\//.test(plain) || plain === '.' || plain === '..';
  const cut = isFolder ? plain.indexOf('#') : plain.indexOf('/');
  const place = cut < 0 ? plain : plain.slice(0, cut);
  const image = cut < 0 ? '' : plain.slice(cut + 1);
  if (!isFolder) {
    // As docker tells a host from the first part of a name.
    if (!/[.:]/.test(place) && place !== 'localhost' && !/^\[/.test(place))
      throw usage(
        `${JSON.stringify(text)} names no registry`,
        'write the host before it, as in registry.example.com/team/app:v1, or ./ before a folder',
      );
    parseImageHost(place);
  }
  return {
    kind: isFolder ? 'folder' : 'registry',
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
  return openFolder(named.place, { readOnly: true });
}

/** @param dryRun nothing is made @returns undefined for a folder that is not there, and is not to be made */
export async function openTarget(
  named: Named,
  opening: Opening,
  { dryRun }: { dryRun: boolean },
): Promise<ImageTarget> {
  if (named.kind === 'registry') return openRegistry(named, opening);
  const { place } = named;
  if (dryRun) return openFolder(place, { readOnly: true });
  // Images may be private: nobody else is to look into a new folder.
  await mkdir(place, { recursive: true, mode: 0o700 });
  await becomeVolumeOwner(place, { fresh: wantsVolumeOwner(process.env.REGISTRY_SECURE_USER) });
  return openFolder(place, { readOnly: false });
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

async function openFolder(root: string, { readOnly }: { readOnly: boolean }): Promise<StorePlace> {
  const driver = new FilesystemDriver({ root, readOnly });
  await driver.open();
  const store = new Store(driver, {
    // Of any registry whose data this may be.
    largestManifest: 32 * 1024 * 1024,
    validation: { urls: undefined, indexes: 'none', images: 'all' },
    verify: 'always',
  });
  return new StorePlace(driver, store, root);
}

/** Both ends are one place, so that a copy could only name what is there already. */
export function isSamePlace(a: Named, b: Named): boolean {
  return a.kind === b.kind && a.place === b.place;
}

export function refuseLatest(named: Named, text: string): OperatorError {
  return usage(
    `${JSON.stringify(text)} names ${named.repository === undefined ? 'no image' : 'no tag'}`,
    'add REPOSITORY:TAG, or copy all of it with --all',
  );
}
