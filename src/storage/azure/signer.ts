import {
  BlobSASPermissions,
  type BlobSASSignatureValues,
  generateBlobSASQueryParameters,
  SASProtocol,
  type StorageSharedKeyCredential,
} from '@azure/storage-blob';
import type { Signer } from '../object/store.js';
import type { Span } from '../redirect.js';
import type { DelegatedKey } from './delegation.js';
import type { AzureOptions } from './options.js';

/** Of the signatures: one that every service knows. */
const VERSION = '2020-12-06';

/** A blob as the service names it, and as requests do. */
interface Addressed {
  readonly name: string;
  readonly url: string;
}

/**
 * Signs for one blob and for reading it (a service SAS, or where the login is an identity, a user delegation SAS):
 * https://learn.microsoft.com/rest/api/storageservices/delegate-access-with-shared-access-signature
 */
export class AzureSigner implements Signer {
  readonly endpoint: string;

  constructor(
    private readonly options: AzureOptions,
    private readonly credential: StorageSharedKeyCredential | DelegatedKey,
    private readonly find: (key: string) => Addressed,
  ) {
    this.endpoint = options.serviceUrl;
  }

  async prepare(): Promise<string | undefined> {
    return 'refusal' in this.credential ? this.credential.refusal() : undefined;
  }

  async sign(key: string, { from, until }: Span): Promise<string | undefined> {
    const { name, url } = this.find(key);
    const values: BlobSASSignatureValues = {
      containerName: this.options.container,
      blobName: name,
      permissions: BlobSASPermissions.parse('r'),
      startsOn: from,
      expiresOn: until,
      version: VERSION,
      ...(this.endpoint.startsWith('https:') && { protocol: SASProtocol.Https }),
    };
    const query = await this.#query(values, until);
    return query && `${url}?${query}`;
  }

  async #query(values: BlobSASSignatureValues, until: Date): Promise<string | undefined> {
    if (!('refusal' in this.credential)) return generateBlobSASQueryParameters(values, this.credential).toString();
    const key = await this.credential.goodUntil(until);
    return key && generateBlobSASQueryParameters(values, key, this.options.account).toString();
  }
}
