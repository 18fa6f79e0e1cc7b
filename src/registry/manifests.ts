import { andThen, type MaybeLater } from '../at-once.js';
import { RegistryError } from '../errors.js';
import { isTag, parseDigest } from '../reference.js';
import type { ManifestReference, StoredManifest } from '../store/manifests.js';
import { matches } from './blobs.js';
import type { Exchange } from './exchange.js';

/** GET and HEAD of a manifest: the stored bytes with the stored type, whatever Accept says. */
export function getManifest(exchange: Exchange): MaybeLater<void> {
  const reference = referenceOf(exchange);
  if (!reference) throw new RegistryError('MANIFEST_UNKNOWN');
  return andThen(find(exchange, reference), found => send(exchange, found));
}

function find({ request, repository, store }: Exchange, reference: ManifestReference): MaybeLater<StoredManifest> {
  const { manifests } = store;
  // What a tag points at stays anyway.
  if (request.method === 'HEAD' && !('tag' in reference)) return manifests.getHeld(repository, reference);
  return manifests.recall(repository, reference) ?? manifests.get(repository, reference);
}

function send(exchange: Exchange, { digest, mediaType, data }: StoredManifest): void {
  const headers = { 'Content-Type': mediaType, 'Docker-Content-Digest': digest, ETag: `"${digest}"` };
  if (matches(exchange.header('if-none-match'), headers.ETag)) exchange.empty(304, { ETag: headers.ETag });
  else exchange.bytes(200, data, headers);
}

/** More tags than this in one push are refused. The specification asks for at least 10. */
const MOST_TAGS = 100;

/** PUT of a manifest (distribution-spec, "Pushing Manifests"). The body may be chunked: docker never says its length. */
export async function putManifest(exchange: Exchange): Promise<void> {
  const reference = referenceOf(exchange);
  if (!reference) throw new RegistryError('MANIFEST_INVALID', { message: 'neither a tag nor a digest' });
  // Tags as parameters belong to a push by digest only.
  const target = 'tag' in reference ? { tags: [reference.tag] } : { ...reference, tags: furtherTags(exchange) };
  const data = await exchange.smallBody(exchange.limits.manifestBytes);
  const { digest, subject, moved } = await exchange.store.manifests.put(exchange.repository, target, data, {
    contentType: exchange.header('content-type'),
    pushedBy: exchange.principal || undefined,
    createOnly: !exchange.may('overwrite', exchange.repository),
  });
  await exchange.changed({ type: 'push', digest, tags: target.tags });
  for (const [tag, before] of moved) await exchange.changed({ type: 'tag.move', digest, tags: [tag], before });
  exchange.empty(201, {
    Location: exchange.path(`manifests/${exchange.reference}`),
    'Docker-Content-Digest': digest,
    ...(subject && { 'OCI-Subject': subject }),
    ...('digest' in reference && target.tags.length > 0 && { 'OCI-Tag': target.tags }),
  });
}

/** DELETE of a tag alone, or of a manifest with every tag on it (distribution-spec, "Content Management"). */
export async function deleteManifest(exchange: Exchange): Promise<void> {
  const reference = referenceOf(exchange);
  if (!reference) throw new RegistryError('MANIFEST_UNKNOWN');
  await exchange.store.manifests.remove(exchange.repository, reference);
  if ('tag' in reference) await exchange.changed({ type: 'delete', kind: 'tag', tags: [reference.tag] });
  else await exchange.changed({ type: 'delete', kind: 'manifest', digest: reference.digest });
  exchange.empty(202);
}

function furtherTags({ query }: Exchange): string[] {
  const tags = [...new Set(query.getAll('tag'))];
  if (tags.length > MOST_TAGS)
    throw new RegistryError('UNSUPPORTED', { status: 414, message: `more than ${MOST_TAGS} tags in one push` });
  const wrong = tags.find(tag => !isTag(tag));
  if (wrong !== undefined)
    throw new RegistryError('MANIFEST_INVALID', {
      message: 'a tag parameter is not a tag',
      detail: { tag: wrong.slice(0, 128) },
    });
  return tags;
}

function referenceOf({ reference }: Exchange): ManifestReference | undefined {
  // No tag can hold a colon, and no digest is without one.
  if (reference.includes(':')) return { digest: parseDigest(reference) };
  return isTag(reference) ? { tag: reference } : undefined;
}
