import type { AzureOptions } from './azure/options.js';
import type { StorageDriver } from './driver.js';
import { FilesystemDriver } from './filesystem.js';
import type { GcsOptions } from './gcs/options.js';
import { redirectsOf } from './redirect.js';
import type { S3Options } from './s3/options.js';
import type { SwiftOptions } from './swift/options.js';

/** What the configuration says of where the data is (`storage.*`). */
export interface StorageSettings {
  readonly filesystem: { readonly rootdirectory: string };
  /** One of these is used in place of the folder where it is there. */
  readonly s3?: S3Settings | undefined;
  readonly azure?: AzureSettings | undefined;
  readonly gcs?: GcsSettings | undefined;
  readonly swift?: SwiftSettings | undefined;
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

/** `storage.azure.*`, in Distribution's names. */
interface AzureSettings {
  readonly accountname?: string | undefined;
  readonly accountkey?: string | undefined;
  readonly container?: string | undefined;
  readonly credentials: {
    readonly type?: string | undefined;
    readonly clientid?: string | undefined;
    readonly tenantid?: string | undefined;
    readonly secret?: string | undefined;
  };
  readonly realm: string;
  readonly serviceurl?: string | undefined;
  readonly rootdirectory: string;
  readonly skipverify: boolean;
}

/** `storage.gcs.*`, in Distribution's names; sizes in bytes. */
interface GcsSettings {
  readonly bucket?: string | undefined;
  readonly keyfile?: string | undefined;
  readonly credentials?: Readonly<Record<string, string>> | undefined;
  readonly rootdirectory: string;
  readonly chunksize: number;
  readonly useragent?: string | undefined;
}

/** `storage.swift.*`, in Distribution's names; sizes in bytes. */
interface SwiftSettings {
  readonly authurl?: string | undefined;
  readonly authversion?: number | undefined;
  readonly username?: string | undefined;
  readonly password?: string | undefined;
  readonly domain?: string | undefined;
  readonly domainid?: string | undefined;
  readonly tenant?: string | undefined;
  readonly tenantid?: string | undefined;
  readonly tenantdomain?: string | undefined;
  readonly tenantdomainid?: string | undefined;
  readonly trustid?: string | undefined;
  readonly applicationcredentialid?: string | undefined;
  readonly applicationcredentialsecret?: string | undefined;
  readonly region?: string | undefined;
  readonly endpointtype: 'public' | 'internal' | 'admin';
  readonly container?: string | undefined;
  readonly prefix: string;
  readonly chunksize: number;
  readonly insecureskipverify: boolean;
  readonly secretkey?: string | undefined;
}

/** Of the parts of uploads, where no key says it (bytes). */
const PART = 10 * 1024 * 1024;

/** The folder that holds the data; undefined where an object store does. */
export function dataFolderOf({ filesystem, s3, azure, gcs, swift }: StorageSettings): string | undefined {
  return s3 || azure || gcs || swift ? undefined : filesystem.rootdirectory;
}

/** Where the data is, in a word: a path, or such as `s3://BUCKET/ROOT`, as `copy` takes it. */
export function placeOf({ filesystem, s3, azure, gcs, swift }: StorageSettings): string {
  const url = (...parts: Array<string | undefined>) => parts.filter(Boolean).join('/');
  if (s3) return url('s3:/', s3.bucket, rootOf(s3));
  if (azure) return `${url('azure:/', azure.container, rootOf(azure))}?accountname=${azure.accountname}`;
  if (gcs) return url('gs:/', gcs.bucket, rootOf(gcs));
  if (swift) return url('swift:/', swift.container, rootOf({ rootdirectory: swift.prefix }));
  return filesystem.rootdirectory;
}

/**
 * The driver of the data, not yet opened. What an object store needs is loaded only here.
 * @param options.onRedirects told what speaks against sending clients to the object store, where that was asked for; without it
 *   none is sent there
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
  const { filesystem, s3, azure, gcs, swift } = settings;
  const redirect = onRedirects && { disable: settings.redirect?.disable, onWarning: onRedirects };
  const common = { readOnly, onNotice, redirect };
  if (s3) {
    const { S3Driver } = await import('./s3.js');
    const reached = s3Options(s3);
    const redirects = redirectsOf(
      settings.redirect?.disable,
      reached.endpoint ?? `${s3.secure ? 'https' : 'http'}://s3.amazonaws.com`,
    );
    if (redirects.warning) onRedirects?.(redirects.warning);
    return new S3Driver({
      ...reached,
      redirects: redirect !== undefined && redirects.on,
      readOnly,
      ...(onNotice && { onNotice }),
    });
  }
  if (azure) {
    const [{ ObjectDriver }, { AzureStore }] = await Promise.all([import('./object.js'), import('./azure.js')]);
    return new ObjectDriver(new AzureStore(azureOptions(azure)), { chunkSize: PART, ...common });
  }
  if (gcs) {
    const [{ ObjectDriver }, { GcsStore }] = await Promise.all([import('./object.js'), import('./gcs.js')]);
    return new ObjectDriver(new GcsStore(gcsOptions(gcs)), { chunkSize: gcs.chunksize, ...common });
  }
  if (swift) {
    const [{ ObjectDriver }, { SwiftStore }] = await Promise.all([import('./object.js'), import('./swift.js')]);
    return new ObjectDriver(new SwiftStore(swiftOptions(swift)), { chunkSize: swift.chunksize, ...common });
  }
  return new FilesystemDriver({ root: filesystem.rootdirectory, readOnly, ...(onFault && { onFault }) });
}

function azureOptions(azure: AzureSettings): AzureOptions {
  const { accountname: account, accountkey, container, credentials, realm, serviceurl, skipverify } = azure;
  const { type = accountkey ? 'shared_key' : 'default', clientid, tenantid, secret } = credentials;
  const identity = (): AzureOptions['login'] => {
    if (type === 'shared_key') return { key: accountkey! };
    if (type === 'client_secret') return { type, tenant: tenantid!, client: clientid!, secret: secret! };
    return { type: 'default', env: process.env };
  };
  return {
    serviceUrl: (serviceurl ?? `https://${account}.blob.${realm}`).replace(/\/+$/, ''),
    account: account!,
    container: container!,
    login: identity(),
    root: rootOf(azure),
    skipVerify: skipverify,
  };
}

function gcsOptions(gcs: GcsSettings): GcsOptions {
  const { bucket, keyfile, credentials, useragent } = gcs;
  // As all clients of Google's have it.
  const { STORAGE_EMULATOR_HOST: emulator } = process.env;
  return {
    bucket: bucket!,
    keyFile: keyfile,
    credentials,
    root: rootOf(gcs),
    userAgent: useragent,
    endpoint: emulator && urlOf(emulator, false),
  };
}

function swiftOptions(swift: SwiftSettings): SwiftOptions {
  const { username, password, applicationcredentialid, applicationcredentialsecret, trustid } = swift;
  const authUrl = swift.authurl!;
  const isFirst = swift.authversion === undefined ? /\/v1(?:\.\d+)?\/?$/.test(authUrl) : swift.authversion === 1;
  const named = (name: string | undefined, id: string | undefined) => (id ? { id } : name ? { name } : undefined);
  return {
    authUrl,
    authVersion: isFirst ? 1 : 3,
    login: applicationcredentialid
      ? { credential: applicationcredentialid, secret: applicationcredentialsecret! }
      : {
          user: username!,
          password: password!,
          domain: named(swift.domain, swift.domainid),
          project: named(swift.tenant, swift.tenantid),
          projectDomain: named(swift.tenantdomain, swift.tenantdomainid),
          trust: trustid,
        },
    region: swift.region,
    interface: swift.endpointtype,
    container: swift.container!,
    root: rootOf({ rootdirectory: swift.prefix }),
    skipVerify: swift.insecureskipverify,
    temporaryUrlKey: swift.secretkey,
  };
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
function rootOf({ rootdirectory }: { readonly rootdirectory: string }): string {
  return rootdirectory.replace(/^\/+|\/+$/g, '');
}

function urlOf(endpoint: string, secure: boolean): string {
  return endpoint.includes('://') ? endpoint : `${secure ? 'https' : 'http'}://${endpoint}`;
}
