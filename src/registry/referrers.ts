import { parseDigest } from '../reference.js';
import { type Exchange, nextPage } from './exchange.js';

const OCI_INDEX = 'application/vnd.oci.image.index.v1+json';

/** Clients that do not follow Link see no more than one page: so it is a large one. */
const MOST_ENTRIES = 1000;

/** GET referrers (distribution-spec, "Listing Referrers"). Empty where nothing is known; never 404. */
export async function listReferrers(exchange: Exchange): Promise<void> {
  const subject = parseDigest(exchange.reference);
  const { limit, after } = exchange.page(MOST_ENTRIES, MOST_ENTRIES);
  const artifactType = exchange.query.get('artifactType') ?? undefined;
  const { descriptors, more } = await exchange.store.referrers.list(exchange.repository, subject, {
    limit,
    after,
    artifactType,
  });
  const filter = artifactType === undefined ? {} : { artifactType };
  const last = more ? descriptors.at(-1)?.digest : undefined;
  const index = { schemaVersion: 2, mediaType: OCI_INDEX, manifests: descriptors };
  exchange.json(200, index, {
    'Content-Type': OCI_INDEX,
    ...(artifactType !== undefined && { 'OCI-Filters-Applied': 'artifactType' }),
    ...nextPage(exchange.path(`referrers/${subject}`), limit, last, filter),
  });
}
