import { ADDRESS_ONLY, isMoreThanAddress } from './endpoint.js';
import { key, oneOf, optionalKey, optionalSection, size, text, warnsWhereOn, wholeFrom, yesNo } from './keys.js';

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;

/** `storage.s3`: a bucket of Amazon S3, or of a service that speaks its API. */
export const s3 = optionalSection(
  {
    bucket: optionalKey(text, 'The bucket. It must be there.'),
    region: optionalKey(text, 'The region of the bucket.', { fallback: '`us-east-1` with a regionendpoint' }),
    regionendpoint: optionalKey(
      text,
      "The URL of a service other than Amazon's, such as `https://minio.example.com:9000`.",
    ),
    forcepathstyle: optionalKey(yesNo, 'Whether the bucket stands in the path of a URL, and not in its host.', {
      fallback: '`true` with a regionendpoint, else `false`',
    }),
    accesskey: optionalKey(
      text,
      "The access key. Without the two keys, those of the environment (`AWS_ACCESS_KEY_ID` …) or of the machine's role are used.",
      { secret: true },
    ),
    secretkey: optionalKey(text, 'The secret key.', { secret: true }),
    sessiontoken: optionalKey(text, 'The token of keys that end.', { secret: true }),
    rootdirectory: key(text, '', 'What all keys in the bucket begin with; nothing unless told.'),
    secure: key(yesNo, true, 'Whether to use HTTPS, where regionendpoint does not say.', {
      caution: off('sends images to the object store in the clear'),
    }),
    skipverify: key(yesNo, false, 'Trusts whatever certificate the service has.', {
      caution: warnsWhereOn,
    }),
    v4auth: key(yesNo, true, 'Signatures of version 4. There are no others here.'),
    chunksize: key(
      size(5 * MIB, 5 * GIB),
      10 * MIB,
      'The size of the parts in which blobs are uploaded: each running upload takes memory for up to two.',
    ),
    multipartcopychunksize: key(size(5 * MIB, 5 * GIB), 32 * MIB, 'The size of the parts in which the service copies.'),
    multipartcopymaxconcurrency: key(
      wholeFrom(1, 1000),
      100,
      'How many of them it copies at once, for all uploads of a process.',
    ),
    multipartcopythresholdsize: key(size(0, 5 * GIB), 32 * MIB, 'What is not larger is copied as a whole.'),
    encrypt: key(yesNo, false, 'Asks the service to encrypt what it stores.'),
    keyid: optionalKey(text, "The KMS key for that; the service's own unless told."),
    storageclass: key(
      oneOf(
        'standard',
        'reduced_redundancy',
        'standard_ia',
        'onezone_ia',
        'intelligent_tiering',
        'outposts',
        'glacier_ir',
        'express_onezone',
        'none',
      ),
      'standard',
      'The storage class of what is written.',
    ),
    objectacl: key(
      oneOf(
        'private',
        'public-read',
        'public-read-write',
        'authenticated-read',
        'aws-exec-read',
        'bucket-owner-read',
        'bucket-owner-full-control',
      ),
      'private',
      'The access list of what is written.',
    ),
    accelerate: key(yesNo, false, 'Uses S3 Transfer Acceleration.'),
    usedualstack: key(yesNo, false, 'Uses endpoints that have IPv6 too.'),
    usefipsendpoint: key(yesNo, false, 'Uses endpoints that are validated by FIPS.'),
    useragent: optionalKey(text, 'Added to the User-Agent of requests to the service.'),
    loglevel: key(text, 'off', 'What goes wrong is logged anyway.', { status: 'accepted' }),
  },
  'A bucket of Amazon S3, or of a service that speaks its API: see [Storage](storage.md).',
).superRefine((s3, context) => {
  if (!s3) return;
  const wrong = (name: string, message: string, fix: string) =>
    context.addIssue({ code: 'custom', path: [name], message, params: { fix } });
  if (!s3.bucket) wrong('bucket', 'is not set', 'name the bucket (REGISTRY_STORAGE_S3_BUCKET)');
  if (!s3.region && !s3.regionendpoint)
    wrong('region', 'is not set', 'name the region of the bucket (REGISTRY_STORAGE_S3_REGION), such as eu-central-1');
  if ((s3.accesskey === undefined) !== (s3.secretkey === undefined))
    wrong(
      s3.accesskey === undefined ? 'accesskey' : 'secretkey',
      'is not set, and the other key is',
      'set both, or none where the environment or the machine has them',
    );
  if (!s3.v4auth) wrong('v4auth', 'asks for signatures of version 2, which are not made here', 'remove it');
  if (!s3.regionendpoint) return;
  const endpoint = s3.regionendpoint.includes('://') ? s3.regionendpoint : `https://${s3.regionendpoint}`;
  if (!URL.canParse(endpoint)) wrong('regionendpoint', 'is no URL', 'write such as https://minio.example.com:9000');
  else if (isMoreThanAddress(endpoint)) wrong('regionendpoint', ADDRESS_ONLY.what, ADDRESS_ONLY.fix);
});

function off(words: string): (value: string) => string | undefined {
  return value => (/^(?:false|no|off|n)$/i.test(value) ? words : undefined);
}
