import { json } from 'node:stream/consumers';
import { OperatorError } from '../../errors.js';
import type { HttpClient } from '../object/http.js';
import { MAY_PASS, noToken } from '../object/requests.js';
import type { SwiftOptions } from './options.js';

/** A token, and the account that it is for. */
export interface Session {
  readonly token: string;
  /** The URL of the account. */
  readonly storage: string;
  /** Until when it is good (ms). */
  readonly until: number;
}

/** A token that is to end sooner than this (ms) is replaced. */
const MARGIN = 60_000;

interface Issued {
  readonly token?: {
    readonly expires_at?: string;
    readonly catalog?: ReadonlyArray<{
      readonly type: string;
      readonly endpoints: ReadonlyArray<{
        readonly interface: string;
        readonly region?: string;
        readonly region_id?: string;
        readonly url: string;
      }>;
    }>;
  };
}

/** Logs in at Keystone, version 3, or as Swift's own TempAuth has it, version 1, and keeps the token while it is good. */
export class SwiftLogin {
  #session: Promise<Session> | undefined;

  constructor(
    private readonly http: HttpClient,
    private readonly options: SwiftOptions,
  ) {}

  /** @param refused a session that the service does not take any more */
  async session(signal: AbortSignal, refused?: Session): Promise<Session> {
    const asked = this.#session;
    const known = await asked?.catch(() => undefined);
    const isGood = known && known !== refused && known.until - Date.now() > MARGIN;
    if (!isGood && this.#session === asked)
      this.#session = this.options.authVersion === 1 ? this.#first(signal) : this.#third(signal);
    return this.#session!;
  }

  async #first(signal: AbortSignal): Promise<Session> {
    const { login, authUrl } = this.options;
    if (!('user' in login)) throw new TypeError('application credentials are of version 3');
    const headers = { 'x-auth-user': login.user, 'x-auth-key': login.password };
    const answer = await this.http.send({ method: 'GET', url: new URL(authUrl), headers, signal });
    answer.resume();
    const { 'x-auth-token': token, 'x-storage-url': storage, 'x-auth-token-expires': seconds } = answer.headers;
    if (typeof token !== 'string' || typeof storage !== 'string') throw this.#refusal(answer.statusCode!);
    return { token, storage, until: Date.now() + Number(seconds ?? 3600) * 1000 };
  }

  /** https://docs.openstack.org/api-ref/identity/v3/#authentication-and-token-management */
  async #third(signal: AbortSignal): Promise<Session> {
    const url = new URL(`${this.options.authUrl.replace(/\/+$/, '').replace(/\/auth(?:\/tokens)?$/, '')}/auth/tokens`);
    const body = [JSON.stringify({ auth: this.#identity() })];
    const headers = { 'content-type': 'application/json' };
    const answer = await this.http.send({ method: 'POST', url, headers, body, signal });
    const token = answer.headers['x-subject-token'];
    if (answer.statusCode! >= 300 || typeof token !== 'string') {
      answer.resume();
      throw this.#refusal(answer.statusCode!);
    }
    const issued = (await json(answer)) as Issued;
    const { expires_at: end = '', catalog = [] } = issued.token ?? {};
    const until = Date.parse(end);
    return { token, storage: this.#endpoint(catalog), until: Number.isNaN(until) ? Date.now() + 3_600_000 : until };
  }

  #identity(): object {
    const { login } = this.options;
    if ('credential' in login) {
      const application_credential = { id: login.credential, secret: login.secret };
      return { identity: { methods: ['application_credential'], application_credential } };
    }
    const { user, password, domain = { name: 'Default' }, project, projectDomain = domain, trust } = login;
    const identity = { methods: ['password'], password: { user: { name: user, password, domain } } };
    if (trust !== undefined) return { identity, scope: { 'OS-TRUST:trust': { id: trust } } };
    if (!project) return { identity };
    return { identity, scope: { project: 'id' in project ? project : { ...project, domain: projectDomain } } };
  }

  #endpoint(catalog: NonNullable<NonNullable<Issued['token']>['catalog']>): string {
    const { region, interface: kind } = this.options;
    const found = catalog
      .filter(({ type }) => type === 'object-store')
      .flatMap(({ endpoints }) => endpoints)
      .find(
        endpoint =>
          endpoint.interface === kind &&
          (region === undefined || [endpoint.region, endpoint.region_id].includes(region)),
      );
    if (found) return found.url.replace(/\/+$/, '');
    throw new OperatorError(
      `${this.options.authUrl} names no ${kind} endpoint of an object store${region === undefined ? '' : ` in the region ${region}`}`,
      { fix: 'check storage.swift.region, endpointtype, and tenant, without which a token is for no project' },
    );
  }

  #refusal(status: number): Error {
    if (status >= 500 || MAY_PASS.includes(status))
      return noToken('NoToken', `${this.options.authUrl} gives no token (HTTP ${status})`);
    return new OperatorError(`${this.options.authUrl} refuses the login (HTTP ${status})`, {
      fix: 'check storage.swift.username, password, domain and tenant, and authurl',
    });
  }
}
