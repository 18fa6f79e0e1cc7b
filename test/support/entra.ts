import http from 'node:http';
import type { AddressInfo } from 'node:net';
import type { AzureIdentity } from '../../src/storage/azure/identity.js';

/** What gives an application its tokens, as Microsoft Entra does, on loopback. Whoever believes them does not look who signed. */
export class Entra {
  /** What it was asked for. */
  readonly asked: URLSearchParams[] = [];

  private constructor(private readonly server: http.Server) {}

  static async start(): Promise<Entra> {
    const server = http.createServer(async (request, response) => {
      let body = '';
      for await (const chunk of request) body += chunk;
      const form = new URLSearchParams(body);
      entra.asked.push(form);
      if (request.url !== '/our-tenant/oauth2/v2.0/token' || form.get('client_secret') !== 'our-secret') {
        response.writeHead(401, { 'content-type': 'application/json' });
        response.end(
          '{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret.\\r\\nTrace ID: 1"}',
        );
        return;
      }
      response.end(JSON.stringify({ access_token: tokenOf('our-tenant'), expires_in: 3600 }));
    });
    const entra = new Entra(server);
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
    return entra;
  }

  /** What reaches a container by its tokens. */
  login(secret = 'our-secret'): { login: AzureIdentity; authority: string } {
    const { port } = this.server.address() as AddressInfo;
    return {
      login: { type: 'client_secret', tenant: 'our-tenant', client: 'our-client', secret },
      authority: `http://127.0.0.1:${port}`,
    };
  }

  stop(): void {
    this.server.closeAllConnections();
    this.server.close();
  }
}

function tokenOf(tenant: string): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const now = Math.floor(Date.now() / 1000);
  const claims = {
    iss: `https://sts.windows.net/${tenant}/`,
    aud: 'https://storage.azure.com',
    oid: 'our-object',
    tid: tenant,
    nbf: now,
    iat: now,
    exp: now + 3600,
  };
  return [part({ alg: 'RS256', typ: 'JWT' }), part(claims), 'unsigned'].join('.');
}
