import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { Engine } from '../copy/engine.js';
import { EngineSource, EngineTarget } from '../copy/engine-place.js';
import { FolderFiles } from '../copy/files.js';
import { LayoutIndex, MARK } from '../copy/layout-index.js';
import { LayoutSource } from '../copy/layout-source.js';
import { LayoutTarget } from '../copy/layout-target.js';
import { repositoryOf } from '../copy/names.js';
import type { ImageSource, ImageTarget } from '../copy/place.js';
import { RegistryClient, type RegistryLogin } from '../copy/registry-client.js';
import { RegistryPlace } from '../copy/registry-place.js';
import { StorePlace } from '../copy/store-place.js';
import { TarFiles } from '../copy/tar-files.js';
import { openArchive } from '../copy/tar-source.js';
import { TarTarget } from '../copy/tar-target.js';
import { readCertificates } from '../doctor/stores.js';
import { OperatorError } from '../errors.js';
import { parseImageHost } from '../pki/names.js';
import { isDigest, isRepositoryName, isTag } from '../reference.js';
import { becomeVolumeOwner, wantsVolumeOwner } from '../server/privileges.js';
import type { StorageDriver } from '../storage/driver.js';
import { placeOf, type StorageSettings, storageOf } from '../storage/open.js';
import { releaseBackup } from '../store/backup.js';
import { Store } from '../store/store.js';
import { bucketSetting, bucketSettings, checkBucket, isBucketScheme } from './bucket.js';
import { usage } from './options.js';
import { beforeSignal } from './signals.js';

/** What one end of a copy names: a place, and perhaps what is in it. */
export interface Named {
  readonly kind: 'registry' | 'folder' | 'bucket' | 'archive' | 'layout' | 'engine';
  /** HOST[:PORT] as clients write it, a path, a URL, or of an Engine the host that stands before its names. */
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
 * A place as docs/copying.md lists them: `HOST[:PORT][/IMAGE]`, `PATH[#IMAGE]` where the path begins with `/`, `./` or `../`,
 * `oci:PATH[#IMAGE]`, `s3://BUCKET[/ROOT][?KEY=VALUE&…][#IMAGE]` and the like of other stores, `docker-daemon:[IMAGE]`.
 * @throws OperatorError
 */
export function parseNamed(text: string): Named {
  const plain = text.replace(/^docker:\/\//, '');
  const [, scheme, rest = ''] = /^([a-z][a-z0-9-]*):(.*)$/s.exec(plain) ?? [];
  if (scheme === 'docker-daemon') return parseLocal(rest, text);
  if (scheme !== undefined && rest.startsWith('//')) {
    if (isBucketScheme(scheme))
      return cutAt('#', plain, place => {
        checkBucket(place);
        return { kind: 'bucket', place };
      });
    throw usage(
      `${JSON.stringify(text)} is no place that images can be copied from or to`,
      'write HOST[:PORT]/REPOSITORY:TAG, ./FOLDER#REPOSITORY:TAG, or s3://, azure://, gs:// or swift://BUCKET#REPOSITORY:TAG',
    );
  }
  const isLayout = scheme === 'oci';
  if (isLayout || /^\.{0,2}\//.test(plain) || plain === '.' || plain === '..')
    return cutAt('#', isLayout ? rest : plain, path => {
      if (path === '') throw usage(`${JSON.stringify(text)} names no folder`, 'write oci:FOLDER');
      const kind = /\.(?:tar|tar\.gz|tgz)$/.test(path) ? 'archive' : isLayout ? 'layout' : 'folder';
      return { kind, place: resolve(path) };
    });
  return cutAt('/', plain, host => {
    // As docker tells a host from the first part of a name.
    if (!/[.:]/.test(host) && host !== 'localhost' && !/^\[/.test(host))
      throw usage(
        `${JSON.stringify(text)} names no registry`,
        'write the host before it, as in registry.example.com/team/app:v1, or ./ before a folder',
      );
    parseImageHost(host);
    return { kind: 'registry', place: host };
  });

  function cutAt(mark: string, whole: string, placed: (place: string) => Named): Named {
    const cut = whole.indexOf(mark);
    const named = placed(cut < 0 ? whole : whole.slice(0, cut));
    return { ...named, ...parseImage(cut < 0 ? '' : whole.slice(cut + 1), text) };
  }
}

/** An image as `docker images` has it, perhaps with the host that it was pulled from. */
export function parseLocal(image: string, text = image): Named {
  const [, host, rest = image] = /^([^/]*[.:][^/]*|localhost)\/(.*)$/.exec(image) ?? [];
  const { repository, reference } = parseImage(rest, text);
  return {
    kind: 'engine',
    place: host ?? '',
    ...(repository !== undefined && { repository, reference: reference ?? 'latest' }),
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
  const { kind, place } = named;
  switch (isLayout(named) ? 'layout' : kind) {
    case 'registry':
      return openRegistry(named, opening);
    case 'engine':
      return EngineSource.open(Engine.find(process.env), place === '' ? undefined : place);
    case 'archive':
      return openArchive(await TarFiles.open(place), ownOf(named));
    case 'layout': {
      const files = new FolderFiles(place);
      const index = await LayoutIndex.read(files, ownOf(named));
      if (index) return new LayoutSource(files, index);
      throw new OperatorError(`${place} is no image layout: it has no index.json`, {
        fix: 'name the folder that has oci-layout in it',
      });
    }
    default:
      return openStore(named, { readOnly: true });
  }
}

/** @param dryRun nothing is made */
export async function openTarget(
  named: Named,
  opening: Opening,
  { dryRun }: { dryRun: boolean },
): Promise<ImageTarget> {
  const { kind, place } = named;
  switch (isLayout(named) ? 'layout' : kind) {
    case 'registry':
      return openRegistry(named, opening);
    case 'engine':
      return EngineTarget.open(Engine.find(process.env), place === '' ? undefined : place);
    case 'archive':
      return tidied(await openTar(named));
    case 'layout':
      return tidied(await LayoutTarget.open(place, ownOf(named)));
    default:
      if (kind === 'folder' && !dryRun) await makeVolume(place);
      return openStore(named, { readOnly: dryRun });
  }
}

/** A folder that is an image layout need not be called one. */
function isLayout({ kind, place }: Named): boolean {
  return kind === 'layout' || (kind === 'folder' && existsSync(join(place, MARK)));
}

/** The repository of what has a mere tag in a file or folder. */
function ownOf({ place }: Named): string {
  return repositoryOf(basename(place));
}

/** A signal leaves nothing that is not finished. */
function tidied<T extends { discard(): void }>(target: T): T {
  beforeSignal(() => target.discard());
  return target;
}

function openTar(named: Named): Promise<TarTarget> {
  const { place } = named;
  if (!place.endsWith('.tar'))
    throw usage(`archives are not compressed here: ${place}`, 'name a file that ends in .tar, and compress it then');
  return TarTarget.open(place, ownOf(named));
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

async function openStore(named: Named, { readOnly }: { readOnly: boolean }): Promise<StorePlace> {
  const driver = await openDriver(named, { readOnly });
  // What is copied here from now on no backup takes away again.
  if (!readOnly) await releaseBackup(driver);
  const store = new Store(driver, {
    // Of any registry whose data this may be.
    largestManifest: 32 * 1024 * 1024,
    validation: { urls: undefined, indexes: 'none', images: 'all' },
    verify: 'always',
  });
  return new StorePlace(driver, store, placeOf(settingsOf(named)));
}

/** The data of a registry as they lie there. @param named a folder or a bucket */
export async function openDriver(named: Named, { readOnly }: { readOnly: boolean }): Promise<StorageDriver> {
  const onNotice = (message: string) => process.stderr.write(`registry-secure: warning: ${message}\n`);
  const driver = await storageOf(settingsOf(named), { readOnly, onNotice });
  await driver.open();
  return driver;
}

/** Makes a folder for the data of a registry where there is none, and becomes its owner. */
export async function makeVolume(folder: string): Promise<void> {
  // Images may be private: nobody else is to look into a new folder.
  await mkdir(folder, { recursive: true, mode: 0o700 });
  await becomeVolumeOwner(folder, { fresh: wantsVolumeOwner(process.env.REGISTRY_SECURE_USER) });
}

/** What the configuration is to say of where the data are. */
export function settingOf({ kind, place }: Named): string {
  return kind === 'bucket' ? bucketSetting(place) : `storage.filesystem.rootdirectory: ${place}`;
}

function settingsOf({ kind, place }: Named): StorageSettings {
  return kind === 'bucket' ? bucketSettings(place) : { filesystem: { rootdirectory: place } };
}
