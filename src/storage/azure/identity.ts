import { readFile } from 'node:fs/promises';
import { OperatorError } from '../../errors.js';
import { MAY_PASS, noToken, ServiceError, wayError } from '../object/requests.js';

/** How the process logs in at Microsoft Entra, as `storage.azure.credentials` says. */
export type AzureIdentity =
  | { readonly type: 'client_secret'; readonly tenant: string; readonly client: string; readonly secret: string }
  /** As the environment and the machine have it: a secret, a workload identity, or a managed one. */
  | { readonly type: 'default'; readonly env: NodeJS.ProcessEnv };

const AUTHORITY = 'https://login.microsoftonline.com';
const RESOURCE = 'https://storage.azure.com';
const METADATA_SERVICE = 'http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01';

/** How long an answer may take (ms). */
const PATIENCE = 15_000;

interface AccessToken {
  readonly token: string;
  readonly expiresOnTimestamp: number;
}

/** Gets tokens for the storage: what the SDK calls a credential, and keeps as long as it is good. */
export class AzureLogin {
  constructor(
    private readonly identity: AzureIdentity,
    private readonly authority = AUTHORITY,
  ) {}

  async getToken(): Promise<AccessToken> {
    const { identity } = this;
    if (identity.type === 'client_secret')
      return this.#exchange(identity.tenant, { client_id: identity.client, client_secret: identity.secret });
    const { AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET, AZURE_FEDERATED_TOKEN_FILE } = identity.env;
    if (AZURE_TENANT_ID && AZURE_CLIENT_ID && AZURE_CLIENT_SECRET)
      return this.#exchange(AZURE_TENANT_ID, { client_id: AZURE_CLIENT_ID, client_secret: AZURE_CLIENT_SECRET });
    if (AZURE_TENANT_ID && AZURE_CLIENT_ID && AZURE_FEDERATED_TOKEN_FILE)
      return this.#exchange(AZURE_TENANT_ID, {
        client_id: AZURE_CLIENT_ID,
        client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
        // Replaced by the cluster before it ends.
        client_assertion: (await readFile(AZURE_FEDERATED_TOKEN_FILE, 'utf8')).trim(),
      });
    return ofMachine(identity.env);
  }

  #exchange(tenant: string, who: Record<string, string>): Promise<AccessToken> {
    const body = new URLSearchParams({ grant_type: 'client_credentials', scope: `${RESOURCE}/.default`, ...who });
    return ask(`${this.authority}/${encodeURIComponent(tenant)}/oauth2/v2.0/token`, { method: 'POST', body });
  }
}

/** The managed identity of a virtual machine, or of an App Service. */
function ofMachine({ IDENTITY_ENDPOINT, IDENTITY_HEADER, AZURE_CLIENT_ID }: NodeJS.ProcessEnv): Promise<AccessToken> {
  const who = `resource=${encodeURIComponent(`${RESOURCE}/`)}${AZURE_CLIENT_ID ? `&client_id=${encodeURIComponent(AZURE_CLIENT_ID)}` : ''}`;
  if (IDENTITY_ENDPOINT && IDENTITY_HEADER)
    return ask(`${IDENTITY_ENDPOINT}?api-version=2019-08-01&${who}`, {
      headers: { 'x-identity-header': IDENTITY_HEADER },
    });
  return ask(`${METADATA_SERVICE}&${who}`, { headers: { metadata: 'true' } });
}

interface Told {
  readonly access_token?: string;
  readonly expires_in?: number | string;
  readonly error?: string;
  readonly error_description?: string;
}

/** @throws ServiceError where it may go well later, OperatorError where it cannot */
async function ask(url: string, init: RequestInit): Promise<AccessToken> {
  let status: number;
  let told: Told;
  try {
    const response = await fetch(url, { ...init, signal: AbortSignal.timeout(PATIENCE) });
    status = response.status;
    told = (await response.json().catch(() => ({}))) as Told;
  } catch (error) {
    const { code, message } = wayError(error);
    throw new ServiceError({ code, message: `${new URL(url).host} gives no token: ${message}` });
  }
  const { access_token: token, expires_in: seconds, error = '', error_description: description = '' } = told;
  if (status === 200 && token !== undefined)
    return { token, expiresOnTimestamp: Date.now() + Number(seconds ?? 3600) * 1000 };
  const words = [error, description.split(/[\r\n]/)[0]].filter(word => word !== '').join(': ');
  const message = `${new URL(url).host} gives no token${words ? `: ${words}` : ''} (HTTP ${status})`;
  if (status >= 500 || MAY_PASS.includes(status)) throw noToken(error, message);
  throw new OperatorError(message, { fix: 'check storage.azure.credentials, or the identity of this machine' });
}
