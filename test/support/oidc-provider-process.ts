import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import Provider from 'oidc-provider';

/**
 * An OpenID Connect provider (npm's oidc-provider) over TLS on loopback, where everybody logs in by the name that they say:
 *
 *     fork('oidc-provider-process.js'), then send { certificate, key }, hear { port }, send { client }, hear 'ready'
 *
 * It ends with the process that it has come from.
 */
interface Start {
  readonly certificate: string;
  readonly key: string;
}

interface Client {
  readonly id: string;
  readonly secret: string;
  readonly callback: string;
}

const said = <T>(): Promise<T> => new Promise(resolve => process.once('message', message => resolve(message as T)));

process.once('disconnect', () => process.exit());
const { certificate, key } = await said<Start>();
const server = createServer({ cert: certificate, key });
await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
const { port } = server.address() as AddressInfo;
const client = said<Client>();
process.send!({ port });
const { id, secret, callback } = await client;
const signing = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' });
const provider = new Provider(`https://127.0.0.1:${port}`, {
  clients: [{ client_id: id, client_secret: secret, redirect_uris: [callback] }],
  jwks: { keys: [{ ...signing, use: 'sig', alg: 'RS256' }] } as never,
  cookies: { keys: ['the cookies of a test'] },
  claims: { openid: ['sub'], profile: ['preferred_username', 'groups'] },
  pkce: { required: () => true },
  findAccount: async (_context, name) => ({
    accountId: name,
    claims: async () => ({
      // `twin` is called as `erin` is, and is somebody else.
      sub: `subject of ${name}`,
      preferred_username: name === 'twin' ? 'erin' : name,
      groups: ['staff', `group of ${name}`],
    }),
  }),
});
server.on('request', provider.callback());
process.send!('ready');
