import { RegistryError } from '../errors.js';
import { type Algorithm, type Digest, isRepositoryName, parseDigest } from '../reference.js';
import type { UploadKey } from '../store/uploads.js';
import type { Exchange } from './exchange.js';

/** POST blobs/uploads/: a mount, a whole blob, or the start of an upload (distribution-spec, "Pushing blobs"). */
export async function startUpload(exchange: Exchange): Promise<void> {
  const { query, store, repository } = exchange;
  const mount = query.get('mount');
  const digest = query.get('digest');
  if (mount !== null && (await mounted(exchange, parseDigest(mount)))) return created(exchange, parseDigest(mount));
  if (digest !== null && mount === null) {
    const wanted = parseDigest(digest);
    await store.uploads.whole(repository, wanted, exchange.body, exchange.contentLength);
    return created(exchange, wanted);
  }
  const uuid = await store.uploads.start(repository, exchange.principal, announced(query.get('digest-algorithm')));
  progress(exchange, 202, uuid, 0);
}

/** A repository that the caller may not read is the same as one without the blob. Without `from`, any that has it will do. */
async function mounted(exchange: Exchange, digest: Digest): Promise<boolean> {
  const { query, store, repository } = exchange;
  const readable = (name: string) => isRepositoryName(name) && exchange.may('pull', name);
  const named = query.get('from');
  const from = named === null ? await store.blobs.sourceOf(digest, readable) : named;
  return from !== undefined && readable(from) && store.blobs.mount(repository, digest, from);
}

/** GET of an upload: how far it has come. */
export async function uploadStatus(exchange: Exchange): Promise<void> {
  const upload = keyOf(exchange);
  progress(exchange, 204, upload.uuid, await exchange.store.uploads.offset(upload));
}

/** PATCH of an upload: the next bytes, with or without Content-Range. */
export async function appendUpload(exchange: Exchange): Promise<void> {
  const upload = keyOf(exchange);
  const { uploads } = exchange.store;
  const offset = await taking(exchange, upload, (...sent) => uploads.append(upload, exchange.body, ...sent));
  progress(exchange, 202, upload.uuid, offset);
}

/** PUT of an upload: the last bytes, if any, and the digest of all of them. */
export async function finishUpload(exchange: Exchange): Promise<void> {
  const upload = keyOf(exchange);
  const digest = parseDigest(exchange.query.get('digest') ?? '');
  const { uploads } = exchange.store;
  if (exchange.contentLength === 0) await uploads.finish(upload, digest);
  else await taking(exchange, upload, (...sent) => uploads.finishWith(upload, digest, exchange.body, ...sent));
  created(exchange, digest);
}

/** DELETE of an upload. */
export async function cancelUpload(exchange: Exchange): Promise<void> {
  await exchange.store.uploads.cancel(keyOf(exchange));
  exchange.empty(204);
}

/** @param take what is done with the bytes, by where they belong and how many they are, as far as the client says it */
async function taking<T>(
  exchange: Exchange,
  upload: UploadKey,
  take: (start?: number, length?: number) => Promise<T>,
): Promise<T> {
  const range = contentRange(exchange.header('content-range'));
  const declared = exchange.contentLength;
  if (range && declared !== undefined && declared !== range.length)
    throw new RegistryError('SIZE_INVALID', { message: 'Content-Range and Content-Length disagree' });
  try {
    return await take(range?.start, range?.length ?? declared);
  } catch (error) {
    // The client is told where to go on (distribution-spec, "Pushing a blob in chunks").
    if (error instanceof RegistryError && error.status === 416)
      throw new RegistryError(error.code, {
        status: 416,
        message: error.message,
        detail: error.detail,
        headers: position(exchange, upload.uuid, (error.detail as { offset: number }).offset),
      });
    throw error;
  }
}

/** `start-end`, as the specification has it, or with RFC 9110's unit and size around it. */
function contentRange(header: string | undefined): { start: number; length: number } | undefined {
  if (header === undefined) return undefined;
  const match = /^(?:bytes[ =])?(\d{1,15})-(\d{1,15})(?:\/(?:\d+|\*))?$/.exec(header.trim());
  const [start, end] = [Number(match?.[1]), Number(match?.[2])];
  if (!match || end < start)
    throw new RegistryError('BLOB_UPLOAD_INVALID', { message: 'Content-Range is not START-END' });
  return { start, length: end - start + 1 };
}

function announced(algorithm: string | null): Algorithm | undefined {
  if (algorithm === null || algorithm === 'sha256' || algorithm === 'sha512') return algorithm ?? undefined;
  throw new RegistryError('DIGEST_INVALID', { message: 'digest-algorithm is neither sha256 nor sha512' });
}

function keyOf({ repository, reference, principal }: Exchange): UploadKey {
  return { repository, uuid: reference, owner: principal };
}

function position(exchange: Exchange, uuid: string, offset: number): Record<string, string> {
  return {
    Location: exchange.path(`blobs/uploads/${uuid}`),
    // Without `bytes=`: docker fails on it. Nothing at all is `0-0`, as in the original.
    Range: `0-${Math.max(0, offset - 1)}`,
    'Docker-Upload-UUID': uuid,
  };
}

function progress(exchange: Exchange, status: number, uuid: string, offset: number): void {
  exchange.empty(status, position(exchange, uuid, offset));
}

function created(exchange: Exchange, digest: Digest): void {
  exchange.empty(201, { Location: exchange.path(`blobs/${digest}`), 'Docker-Content-Digest': digest });
}
