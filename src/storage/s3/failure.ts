import { OperatorError, systemCode } from '../../errors.js';
import { StorageError } from '../driver.js';

/** What services call it when they take no more bytes. */
const FULL = /^(?:QuotaExceeded|XMinio\w*(?:Full|Quota\w*)|InsufficientStorage|InsufficientCapacity|StorageFull)$/;

/** The last is versitygw's, of a folder that is just being removed. */
const CONFLICTS = ['ConditionalRequestConflict', 'OperationAborted', 'ExistingObjectIsDirectory'];

/** The last is versitygw's. */
const UNKNOWN_KEY = ['InvalidAccessKeyId', 'InvalidClientTokenId', 'XAdminUserNotFound'];

interface Answer {
  readonly name?: string;
  readonly message?: string;
  readonly Region?: string;
  readonly $metadata?: { readonly httpStatusCode?: number; readonly attempts?: number };
  readonly $response?: { readonly headers?: Readonly<Record<string, string>> };
}

const statusOf = (error: unknown): number | undefined => (error as Answer | undefined)?.$metadata?.httpStatusCode;

/** The code of the service's answer, such as `NoSuchBucket`; where it had no body, a word of the SDK's. */
const nameOf = (error: unknown): string => (error as Answer | undefined)?.name ?? '';

/** The object is not there. An answer to HEAD has no body, and so could mean the bucket, too. */
export function isAbsent(error: unknown): boolean {
  return ['NoSuchKey', 'NotFound'].includes(nameOf(error)) && statusOf(error) === 404;
}

export function isUploadGone(error: unknown): boolean {
  return nameOf(error) === 'NoSuchUpload';
}

/** The condition of a request did not hold. */
export function isUnmet(error: unknown): boolean {
  return statusOf(error) === 412;
}

/** Nothing was sent. */
const NOT_REACHED: ReadonlySet<string | undefined> = new Set([
  'ECONNREFUSED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
]);

/** The service has done with a request, or never had it: it does nothing any more. A gateway knows of no such thing. */
export function isAnswered(error: unknown): boolean {
  const status = statusOf(error);
  if (status === undefined) return NOT_REACHED.has(systemCode(error));
  return status !== 502 && status !== 504 && status < 520;
}

/** Another request for the same key, or for one near it, was being served: it is worth a second try. */
export function isConflict(error: unknown): boolean {
  return statusOf(error) === 409 && CONFLICTS.includes(nameOf(error));
}

/** The service does not know what it was asked to do. */
export function isUnknown(error: unknown): boolean {
  return statusOf(error) === 501 || nameOf(error) === 'NotImplemented';
}

/** What to throw when a request has failed for good. The message is for the log. */
export function s3Failure(action: string, error: unknown): unknown {
  if (error instanceof StorageError || error instanceof TypeError || error instanceof OperatorError) return error;
  const full = FULL.test(nameOf(error)) || statusOf(error) === 507;
  return new StorageError(full ? 'full' : 'unavailable', `${action}: ${describe(error)}`, error);
}

/** In one line, without the request, whose headers hold credentials. */
function describe(error: unknown): string {
  const { message = '', name = '' } = (error ?? {}) as Answer;
  const status = statusOf(error);
  const code = systemCode(error);
  const words = [code && code !== name ? code : undefined, name, message].filter(word => word && word !== 'Error');
  return `${[...new Set(words)].join(': ')}${status ? ` (HTTP ${status})` : ''}`.replaceAll(/\s+/g, ' ');
}

interface Place {
  readonly bucket: string;
  readonly endpoint: string;
  readonly region: string;
}

/** What to throw when a bucket cannot be opened: one line that says why, and how to mend it. */
export function s3Refusal({ bucket, endpoint, region }: Place, thrown: unknown): unknown {
  if (thrown instanceof OperatorError) return thrown;
  const error = thrown instanceof StorageError ? thrown.cause : thrown;
  const refuse = (what: string, fix: string) => new OperatorError(what, { fix, cause: thrown });
  const name = nameOf(error);
  const status = statusOf(error);
  const code = systemCode(error) ?? '';
  const { Region, $response } = (error ?? {}) as Answer;
  const other = Region ?? $response?.headers?.['x-amz-bucket-region'];
  if (name === 'CredentialsProviderError')
    return refuse(
      'there are no credentials for the object store',
      'set storage.s3.accesskey and secretkey (REGISTRY_STORAGE_S3_ACCESSKEY, …_SECRETKEY), or give the machine a role',
    );
  if (UNKNOWN_KEY.includes(name))
    return refuse(`the object store at ${endpoint} does not know the access key`, 'check storage.s3.accesskey');
  if (name === 'SignatureDoesNotMatch')
    return refuse(`the object store at ${endpoint} says that the secret key is wrong`, 'check storage.s3.secretkey');
  if (['ExpiredToken', 'InvalidToken', 'TokenRefreshRequired'].includes(name))
    return refuse(
      `the object store at ${endpoint} says that the credentials have expired`,
      'renew them, or give the machine a role',
    );
  if (name === 'RequestTimeTooSkewed')
    return refuse(
      `the object store at ${endpoint} says that this machine's clock is wrong`,
      'set the clock, best by NTP: timedatectl set-ntp true',
    );
  if (name === 'NoSuchBucket' || (name === 'NotFound' && status === 404))
    return refuse(
      `there is no bucket ${bucket} at ${endpoint}`,
      'make it, or check storage.s3.bucket, region and regionendpoint',
    );
  if (
    ['PermanentRedirect', 'AuthorizationHeaderMalformed', 'IllegalLocationConstraintException'].includes(name) ||
    status === 301 ||
    (other !== undefined && other !== region)
  )
    return refuse(
      `the bucket ${bucket} is not in the region ${region}`,
      other ? `set storage.s3.region to ${other}` : 'set storage.s3.region to where it is',
    );
  if (name === 'AccessDenied' || status === 403)
    return refuse(
      `the object store at ${endpoint} refuses access to the bucket ${bucket} (${name || 'HTTP 403'})`,
      'allow this key to list the bucket and to get, put and delete its objects; where it is to read only: REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED=true',
    );
  if (/^(?:DEPTH_ZERO_SELF_SIGNED_CERT|SELF_SIGNED_CERT_IN_CHAIN|UNABLE_TO_\w+|CERT_\w+|ERR_TLS_CERT_\w+)$/.test(code))
    return refuse(
      `the certificate of the object store at ${endpoint} is not trusted (${code})`,
      'name its authority: NODE_EXTRA_CA_CERTS=FILE',
    );
  if (code === 'EPROTO')
    return refuse(`the object store at ${endpoint} does not speak TLS`, 'set storage.s3.secure to false');
  if (/^E[A-Z_]+$/.test(code) || name === 'TimeoutError')
    return refuse(
      `the object store at ${endpoint} cannot be reached (${code || name})`,
      'check storage.s3.regionendpoint and the network',
    );
  if (status === undefined && !(thrown instanceof StorageError)) return thrown;
  // Without one it is an answer that calls itself a success.
  const words = error === undefined ? (thrown as Error).message : describe(error);
  return refuse(`the bucket ${bucket} at ${endpoint} cannot be used: ${words}`, 'check storage.s3.* and the service');
}
