import { createHmac } from 'node:crypto';
import { FORMAT_FILE } from '../format.js';
import { ServiceError } from '../object/requests.js';
import type { Signer } from '../object/store.js';
import type { Span } from '../redirect.js';
import type { SwiftClient } from './client.js';
import type { SwiftOptions } from './options.js';

/** The better first. Clusters of before 2018, and older ones of Ceph, know the second alone. */
const DIGESTS = ['sha256', 'sha1'] as const;

const KEY = 'x-container-meta-temp-url-key';

/**
 * Signs temporary URLs (https://docs.openstack.org/swift/latest/api/temporary_url_middleware.html) by a key that the container, or
 * its account, has too. What the service takes is tried out, since it need not tell.
 */
export class SwiftSigner implements Signer {
  #digest: (typeof DIGESTS)[number] = DIGESTS[0];

  /** @param name of an object in the container */
  constructor(
    private readonly client: SwiftClient,
    private readonly options: SwiftOptions,
    private readonly name: (key: string) => string,
  ) {}

  get endpoint(): string {
    return this.client.storage;
  }

  get isInside(): boolean {
    return this.options.interface !== 'public';
  }

  async prepare({ readOnly }: { readOnly: boolean }): Promise<string | undefined> {
    const { temporaryUrlKey } = this.options;
    if (!temporaryUrlKey) return 'there is no key for temporary URLs (storage.swift.secretkey)';
    try {
      if (await this.#isTaken(temporaryUrlKey)) return undefined;
      if (readOnly) return 'the service takes no temporary URL that is signed by storage.swift.secretkey';
      const headers = { [KEY]: temporaryUrlKey };
      await this.client.requests.send('POST container', signal => this.client.ask('POST', signal, '', { headers }));
      if (await this.#isTaken(temporaryUrlKey)) return undefined;
      return 'the service takes no temporary URLs';
    } catch (error) {
      if (!(error instanceof ServiceError)) throw error;
      const { status, code } = error;
      return `the service refuses storage.swift.secretkey (${status === undefined ? code : `HTTP ${status}`})`;
    }
  }

  async sign(key: string, { until }: Span): Promise<string | undefined> {
    const { temporaryUrlKey } = this.options;
    return temporaryUrlKey && temporaryUrl(this.#url(key), { key: temporaryUrlKey, digest: this.#digest, until });
  }

  async #isTaken(key: string): Promise<boolean> {
    for (const digest of DIGESTS) {
      const until = new Date(Date.now() + this.client.requests.ahead + 60_000);
      const url = temporaryUrl(this.#url(FORMAT_FILE.key), { key, digest, until });
      const status = await this.client.requests.send('GET by URL', signal =>
        this.client.statusOf(new URL(url), signal),
      );
      this.#digest = digest;
      // There may be no such object; but that is told only to who may know it.
      if (status < 300 || status === 404) return true;
    }
    return false;
  }

  #url(key: string): URL {
    return this.client.urlOf(this.name(key));
  }
}

/** @param options.until a second by the service's clock */
export function temporaryUrl(url: URL, { key, digest, until }: { key: string; digest: string; until: Date }): string {
  const expires = Math.floor(until.getTime() / 1000);
  const signed = ['GET', expires, decodeURIComponent(url.pathname)].join('\n');
  const signature = createHmac(digest, key).update(signed).digest('hex');
  return `${url.href}?temp_url_sig=${signature}&temp_url_expires=${expires}`;
}
