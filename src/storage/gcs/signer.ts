import { createHash, createPrivateKey, type KeyObject, sign } from 'node:crypto';
import { promisify } from 'node:util';
import type { Signer } from '../object/store.js';
import type { Span } from '../redirect.js';

const ALGORITHM = 'GOOG4-RSA-SHA256';

const signAsync = promisify<string, Buffer, KeyObject, Buffer>(sign);

/** What signs, of a service account. */
export interface SigningAccount {
  readonly email: string;
  /** RSA, in PEM. */
  readonly key: string;
}

/** Signs for reading one object, version 4: https://cloud.google.com/storage/docs/authentication/signatures */
export class GcsSigner implements Signer {
  #email = '';
  #key: KeyObject | undefined;

  /**
   * @param account undefined where the login has no key of its own
   * @param path of the object at the service, such as `/BUCKET/NAME`, not encoded
   */
  constructor(
    readonly endpoint: string,
    private readonly account: () => Promise<SigningAccount | undefined>,
    private readonly path: (key: string) => string,
  ) {}

  async prepare(): Promise<string | undefined> {
    const account = await this.account();
    if (!account) return 'the login has no key of a service account to sign with (storage.gcs.keyfile)';
    this.#email = account.email;
    this.#key = createPrivateKey(account.key);
    return undefined;
  }

  async sign(key: string, { from, until }: Span): Promise<string | undefined> {
    if (!this.#key) return undefined;
    const { origin, host } = new URL(this.endpoint);
    const path = this.path(key).split('/').map(encode).join('/');
    const time = from.toISOString().replaceAll(/[-:]|\.\d+/g, '');
    const scope = `${time.slice(0, 8)}/auto/storage/goog4_request`;
    // In the order of their names.
    const query = Object.entries({
      'X-Goog-Algorithm': ALGORITHM,
      'X-Goog-Credential': `${this.#email}/${scope}`,
      'X-Goog-Date': time,
      'X-Goog-Expires': String((until.getTime() - from.getTime()) / 1000),
      'X-Goog-SignedHeaders': 'host',
    })
      .map(([name, value]) => `${name}=${encode(value)}`)
      .join('&');
    const request = ['GET', path, query, `host:${host}`, '', 'host', 'UNSIGNED-PAYLOAD'].join('\n');
    const hash = createHash('sha256').update(request).digest('hex');
    const signature = await signAsync('RSA-SHA256', Buffer.from([ALGORITHM, time, scope, hash].join('\n')), this.#key);
    return `${origin}${path}?${query}&X-Goog-Signature=${signature.toString('hex')}`;
  }
}

/** All but what RFC 3986 calls unreserved. */
function encode(text: string): string {
  return encodeURIComponent(text).replaceAll(/[!'()*]/g, char => `%${char.charCodeAt(0).toString(16).toUpperCase()}`);
}
