import { anyText, key, map, optionalKey, optionalSection, path, size, text, wholeFrom } from './keys.js';

const KIB = 1024;
const MIB = 1024 * KIB;

/** `storage.gcs`: a bucket of Google Cloud Storage. */
export const gcs = optionalSection(
  {
    bucket: optionalKey(text, 'The bucket. It must be there.'),
    keyfile: optionalKey(
      path,
      'The JSON key of a service account. Without one, the credentials of the environment (`GOOGLE_APPLICATION_CREDENTIALS`) or of the machine are used.',
    ),
    credentials: optionalKey(map('text', anyText, /^[a-z0-9_]+$/), 'What is in such a file, in place of it.', {
      secret: true,
    }),
    rootdirectory: key(text, '', 'What the names of all objects begin with; nothing unless told.'),
    chunksize: key(
      size(256 * KIB, 1024 * MIB),
      16 * MIB,
      'The size of the parts in which blobs are uploaded, at least 5 MiB: each running upload takes memory for up to two.',
    ),
    maxconcurrency: key(wholeFrom(0, 100_000), 50, 'Requests need no bound.', { status: 'accepted' }),
    useragent: optionalKey(text, 'The User-Agent of requests to the service.'),
  },
  'A bucket of Google Cloud Storage: see [Storage](storage.md).',
).superRefine((gcs, context) => {
  if (!gcs) return;
  const wrong = (name: string, message: string, fix: string) =>
    context.addIssue({ code: 'custom', path: [name], message, params: { fix } });
  if (!gcs.bucket) wrong('bucket', 'is not set', 'name the bucket (REGISTRY_STORAGE_GCS_BUCKET)');
  if (gcs.keyfile && gcs.credentials) wrong('credentials', 'is set beside storage.gcs.keyfile', 'keep one of them');
});
