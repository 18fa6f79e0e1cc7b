import type { StorageDriver } from './driver.js';
import { FilesystemDriver } from './filesystem.js';
import { redirectsOf } from './redirect.js';
import type { S3Options } from './s3/options.js';

/** What the configuration says of where the data is (`storage.*`). */
export interface StorageSettings {
  readonly filesystem: { readonly rootdirectory: string };
  /** Used in place of the folder where it is there. */
  readonly s3?: S3Settings | undefined;
  readonly redirect?: { readonly disable?: boolean | undefined };
}

/** `storage.s3.*`, in Distribution's names; sizes in bytes. */
interface S3Settings {
  readonly bucket?: string | undefined;
  readonly region?: string | undefined;
  readonly regionendpoint?: string | undefined;
  readonly forcepathstyle?: boolean | undefined;
  readonly accesskey?: string | undefined;
  readonly secretkey?: string | undefined;
  readonly sessiontoken?: string | undefined;
  readonly rootdirectory: string;
  readonly secure: boolean;
  readonly skipverify: boolean;
  readonly chunksize: number;
  readonly multipartcopychunksize: number;
  readonly multipartcopymaxconcurrency: number;
  readonly multipartcopythresholdsize: number;
  readonly encrypt: boolean;
  readonly keyid?: string | undefined;
  readonly storageclass: string;
  readonly objectacl: string;
  readonly accelerate: boolean;
  readonly usedualstack: boolean;
  readonly usefipsendpoint: boolean;
  readonly useragent?: string | undefined;
}

/** The folder that holds the data; undefined where a bucket does. */
export function dataFolderOf({ filesystem, s3 }: StorageSettings): string | undefined {
  return s3 ? undefined : filesystem.rootdirectory;
}

/** Where the data is, in a word: a path, or `s3://BUCKET/ROOT`. */
export function placeOf(settings: StorageSettings): string {
  const { s3 } = settings;
  return s3 ? ['s3:/', s3.bucket, rootOf(s3)].filter(Boolean).join('/') : settings.filesystem.rootdirectory;
}

/**
 * The driver of the data, not yet opened. What an object store needs is loaded only here.
 * @param options.onRedirects told what speaks against sending clients to the object store, where that is done all the same
 */
export async function storageOf(
  settings: StorageSettings,
  options: {
    readOnly: boolean;
    onFault?: (message: string) => void;
    onNotice?: (message: string) => void;
    onRedirects?: (warning: string) => void;
  },
): Promise<StorageDriver> {
  const { readOnly, onFault, onNotice, onRedirects } = options;
  const { filesystem, s3 } = settings;
  if (!s3) return new FilesystemDriver({ root: filesystem.rootdirectory, readOnly, ...(onFault && { onFault }) });
  const { S3Driver } = await import('./s3.js');
  const reached = s3Options(s3);
  const redirects = redirectsOf(
    settings.redirect?.disable,
    reached.endpoint ?? `${s3.secure ? 'https' : 'http'}://s3.amazonaws.com`,
  );
  if (redirects.warning) onRedirects?.(redirects.warning);
  return new S3Driver({ ...reached, redirects: redirects.on, readOnly, ...(onNotice && { onNotice }) });
}

function s3Options(s3: S3Settings): S3Options {
  const { accesskey, secretkey, sessiontoken, regionendpoint } = s3;
  return {
    bucket: s3.bucket!,
    region: s3.region ?? 'us-east-1',
    ...(regionendpoint && { endpoint: urlOf(regionendpoint, s3.secure) }),
    pathStyle: s3.forcepathstyle ?? Boolean(regionendpoint),
    ...(accesskey !== undefined &&
      secretkey !== undefined && {
        credentials: {
          accessKeyId: accesskey,
          secretAccessKey: secretkey,
          ...(sessiontoken && { sessionToken: sessiontoken }),
        },
      }),
    root: rootOf(s3),
    secure: s3.secure,
    skipVerify: s3.skipverify,
    accelerate: s3.accelerate,
    dualStack: s3.usedualstack,
    fips: s3.usefipsendpoint,
    userAgent: s3.useragent,
    ...(!['standard', 'none'].includes(s3.storageclass) && { storageClass: s3.storageclass.toUpperCase() }),
    ...(s3.objectacl !== 'private' && { acl: s3.objectacl }),
    encrypt: s3.encrypt,
    keyId: s3.keyid,
    chunkSize: s3.chunksize,
    copy: {
      chunkSize: s3.multipartcopychunksize,
      concurrency: s3.multipartcopymaxconcurrency,
      threshold: s3.multipartcopythresholdsize,
    },
  };
}

/** As Distribution reads it: without slashes at its ends. */
function rootOf({ rootdirectory }: S3Settings): string {
  return rootdirectory.replace(/^\/+|\/+$/g, '');
}

function urlOf(endpoint: string, secure: boolean): string {
  return endpoint.includes('://') ? endpoint : `${secure ? 'https' : 'http'}://${endpoint}`;
}
