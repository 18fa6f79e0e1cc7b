import { algorithmOf, type Digest, hexOf, isDigest, isRepositoryName, isTag } from '../reference.js';

/**
 * Every key of the store, and so the whole tree. It is the layout of `registry:2`, byte for byte; what is marked * is
 * ours, and is ignored by it because it begins with `_` or lies inside of an upload.
 *
 *     docker/registry/v2/
 *       blobs/sha256/<first two hex>/<hex>/data                  bytes of layers, configs and manifests
 *       repositories/<name>/
 *         _layers/<algorithm>/<hex>/link                         `sha256:<hex>`, no newline: the repository has the blob
 *         _manifests/revisions/<algorithm>/<hex>/link            `sha256:<hex>`: the repository has the manifest
 *         _manifests/tags/<tag>/current/link                     `sha256:<hex>`: what the tag points at
 *         _manifests/tags/<tag>/index/<algorithm>/<hex>/link     what it ever pointed at
 *         _uploads/<uuid>/<number>                             * how far the upload has come (store/uploads.ts)
 *         _uploads/<uuid>/segments/<name>                      * the bytes of one step, where they are many
 *         _uploads/<uuid>/startedat                              RFC 3339 time, likewise; `registry:2` purges by it
 *         _records/<algorithm>/<hex>                           * what we know of one manifest (store/records.ts)
 *         _immutable/<tag>/<1 or 2>                            * what an immutable tag became, and who made it so
 *         _referrers/<algorithm>/<hex>/<algorithm>/<hex>       * descriptor of a manifest whose subject is the first digest
 *
 *     registry-secure/                                            * what belongs to no repository, for this program only
 *       maintenance                                              * there while nothing may be changed (store/maintenance.ts)
 *       backup                                                   * there in the folder of a backup (store/copy.ts)
 *       tmp/<name>                                               * what has no name of its own yet; gone after a day
 *       spare/<name>/                                            * empty folders, for a full disk (storage/filesystem)
 *       quarantine/<hex>-<name>                                  * corrupt bytes of that digest (store/scrub-blobs.ts)
 *       collector                                                * lease of the collector that is running
 *       collected                                                * when one has run last, and what it found
 *       token-keys/<time>-<random>                               * 32 bytes that tokens are signed with (store/token-keys.ts)
 *       machine-tokens/<id>                                      * one token of a machine (store/machine-tokens.ts)
 *       machine-token-uses/<id>                                  * when it was used last, to the hour
 *       accounts/<SHA-256 of the user's name>                    * one that is disabled or ends (store/accounts.ts)
 *       audit/key                                                * 32 bytes that the two below are signed with (audit/seals.ts)
 *       audit/heads/<chain>                                      * how far a chain of the audit log has been written
 *       audit/retired/<file>                                     * a file of the audit log that was let go
 *       oidc-accounts/<SHA-256 of the user's name>               * whose name it is at the provider (store/oidc-accounts.ts)
 *       ended-sessions/<end>-<random>                            * a session that was ended (store/ended-sessions.ts)
 *
 * For a digest of another algorithm a link is kept under that algorithm and holds the canonical SHA-256. Only a tag that
 * was pushed together with such a digest holds that digest, as the revision link's name: the client is to hear it again.
 */
const ROOT = 'docker/registry/v2';

/**
 * Of what belongs to no repository, the folders that go along where the data move: the rest is of the place and the moment, such
 * as leases, temporaries and marks, or the driver's own.
 */
export const LASTING = [
  'registry-secure/token-keys',
  'registry-secure/machine-tokens',
  'registry-secure/machine-token-uses',
  'registry-secure/accounts',
  'registry-secure/audit',
  'registry-secure/oidc-accounts',
  'registry-secure/ended-sessions',
] as const;

const path = (digest: Digest): string => `${algorithmOf(digest)}/${hexOf(digest)}`;

const repository = (name: string): string => `${ROOT}/repositories/${name}`;

const tag = (name: string, tag: string): string => `${repository(name)}/_manifests/tags/${tag}`;

const upload = (name: string, uuid: string): string => `${repository(name)}/_uploads/${uuid}`;

export const layout = {
  maintenance: 'registry-secure/maintenance',
  backup: 'registry-secure/backup',
  part: (name: string): string => `registry-secure/tmp/${name}`,
  quarantine: (hex: string, name: string): string => `registry-secure/quarantine/${hex}-${name}`,
  collectorLease: 'registry-secure/collector',
  collected: 'registry-secure/collected',
  tokenKeys: 'registry-secure/token-keys',
  tokenKey: (id: string): string => `registry-secure/token-keys/${id}`,
  machineTokens: 'registry-secure/machine-tokens',
  machineToken: (id: string): string => `registry-secure/machine-tokens/${id}`,
  machineTokenUses: 'registry-secure/machine-token-uses',
  machineTokenUse: (id: string): string => `registry-secure/machine-token-uses/${id}`,
  oidcAccounts: 'registry-secure/oidc-accounts',
  oidcAccount: (hash: string): string => `registry-secure/oidc-accounts/${hash}`,
  endedSessions: 'registry-secure/ended-sessions',
  endedSession: (id: string): string => `registry-secure/ended-sessions/${id}`,
  accounts: 'registry-secure/accounts',
  account: (hash: string): string => `registry-secure/accounts/${hash}`,
  auditKey: 'registry-secure/audit/key',
  auditHeads: 'registry-secure/audit/heads',
  auditHead: (chain: string): string => `registry-secure/audit/heads/${chain}`,
  auditRetireds: 'registry-secure/audit/retired',
  auditRetired: (file: string): string => `registry-secure/audit/retired/${file}`,
  repositories: `${ROOT}/repositories`,
  repository,
  blobs: `${ROOT}/blobs/sha256`,
  blob: (canonical: Digest): string => `${ROOT}/blobs/sha256/${hexOf(canonical).slice(0, 2)}/${hexOf(canonical)}/data`,
  layers: (name: string): string => `${repository(name)}/_layers`,
  layer: (name: string, digest: Digest): string => `${repository(name)}/_layers/${path(digest)}`,
  layerLink: (name: string, digest: Digest): string => `${repository(name)}/_layers/${path(digest)}/link`,
  manifests: (name: string): string => `${repository(name)}/_manifests`,
  revisions: (name: string): string => `${repository(name)}/_manifests/revisions`,
  revision: (name: string, digest: Digest): string => `${repository(name)}/_manifests/revisions/${path(digest)}`,
  revisionLink: (name: string, digest: Digest): string =>
    `${repository(name)}/_manifests/revisions/${path(digest)}/link`,
  tags: (name: string): string => `${repository(name)}/_manifests/tags`,
  tag,
  tagLink: (name: string, ofTag: string): string => `${tag(name, ofTag)}/current/link`,
  tagIndex: (name: string, ofTag: string): string => `${tag(name, ofTag)}/index`,
  tagIndexEntry: (name: string, ofTag: string, digest: Digest): string => `${tag(name, ofTag)}/index/${path(digest)}`,
  tagIndexLink: (name: string, ofTag: string, digest: Digest): string =>
    `${tag(name, ofTag)}/index/${path(digest)}/link`,
  immutables: (name: string): string => `${repository(name)}/_immutable`,
  immutable: (name: string, ofTag: string, step: 1 | 2): string => `${repository(name)}/_immutable/${ofTag}/${step}`,
  records: (name: string): string => `${repository(name)}/_records`,
  record: (name: string, digest: Digest): string => `${repository(name)}/_records/${path(digest)}`,
  subjects: (name: string): string => `${repository(name)}/_referrers`,
  referrers: (name: string, subject: Digest): string => `${repository(name)}/_referrers/${path(subject)}`,
  referrer: (name: string, subject: Digest, digest: Digest): string =>
    `${repository(name)}/_referrers/${path(subject)}/${path(digest)}`,
  uploads: (name: string): string => `${repository(name)}/_uploads`,
  upload,
  uploadStartedAt: (name: string, uuid: string): string => `${upload(name, uuid)}/startedat`,
  uploadStep: (name: string, uuid: string, step: number): string =>
    `${upload(name, uuid)}/${String(step).padStart(8, '0')}`,
  uploadSegment: (name: string, uuid: string, segment: string): string => `${upload(name, uuid)}/segments/${segment}`,
};

/** What a key names, of that which makes up images. */
export type Place =
  | { readonly kind: 'blob'; readonly digest: Digest }
  | { readonly kind: 'layer'; readonly repository: string; readonly digest: Digest }
  | { readonly kind: 'revision'; readonly repository: string; readonly digest: Digest }
  | { readonly kind: 'record'; readonly repository: string; readonly digest: Digest }
  | { readonly kind: 'referrer'; readonly repository: string; readonly subject: Digest; readonly digest: Digest }
  | { readonly kind: 'tag'; readonly repository: string; readonly tag: string };

/** The opposite of the functions above; undefined for any other key, and for whatever fails a grammar. */
export function placeOf(key: string): Place | undefined {
  if (!key.startsWith(`${ROOT}/`) || key.length > 4096) return undefined;
  const [area, ...parts] = key.slice(ROOT.length + 1).split('/');
  if (area === 'blobs') {
    const digest = `sha256:${parts[2]}`;
    return isDigest(digest) && layout.blob(digest) === key ? { kind: 'blob', digest } : undefined;
  }
  const at = parts.findIndex(part => part.startsWith('_'));
  const repository = parts.slice(0, Math.max(0, at)).join('/');
  if (area !== 'repositories' || !isRepositoryName(repository)) return undefined;
  const [part, one = '', two, three = '', four] = parts.slice(at);
  if (part === '_manifests' && one === 'tags')
    return two !== undefined && isTag(two) && layout.tagLink(repository, two) === key
      ? { kind: 'tag', repository, tag: two }
      : undefined;
  const digest = `${part === '_manifests' ? two : one}:${part === '_manifests' ? three : two}`;
  if (!isDigest(digest)) return undefined;
  const places: Place[] = [
    { kind: 'layer', repository, digest },
    { kind: 'revision', repository, digest },
    { kind: 'record', repository, digest },
  ];
  const referrer = `${three}:${four}`;
  if (isDigest(referrer)) places.push({ kind: 'referrer', repository, subject: digest, digest: referrer });
  return places.find(place => keyOf(place) === key);
}

function keyOf(place: Place): string | undefined {
  switch (place.kind) {
    case 'layer':
      return layout.layerLink(place.repository, place.digest);
    case 'revision':
      return layout.revisionLink(place.repository, place.digest);
    case 'record':
      return layout.record(place.repository, place.digest);
    case 'referrer':
      return layout.referrer(place.repository, place.subject, place.digest);
    default:
      return undefined;
  }
}
