import { createPrivateKey, type KeyObject } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { SignJWT } from 'jose';

/**
 * A token server as distribution's specification has it, for tests: who asks by GET with a password, or without one, is
 * given a token for what the table grants of the scope. As a program it takes the path of its `ServerConfig` in JSON.
 */
export interface TokenServerOptions {
  readonly issuer: string;
  readonly service: string;
  readonly key: KeyObject;
  /** How the key is called: `kid`, `x5c`. */
  readonly header: object;
  /** Passwords by user. */
  readonly users: Readonly<Record<string, string>>;
  /** Actions by user (empty: nobody) and `type:name`. */
  readonly grants: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>>;
}

interface Access {
  readonly type: string;
  readonly name: string;
  readonly actions: readonly string[];
}

export async function mintToken(options: TokenServerOptions, sub: string, access: readonly Access[]): Promise<string> {
  const now = Math.floor(Date.now() / 1000);
  return new SignJWT({ access, sub })
    .setProtectedHeader({ alg: 'ES256', typ: 'JWT', ...options.header })
    .setIssuer(options.issuer)
    .setAudience(options.service)
    .setIssuedAt(now)
    .setNotBefore(now)
    .setExpirationTime(now + 300)
    .sign(options.key);
}

export function answerTokens(options: TokenServerOptions) {
  return async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const url = new URL(request.url!, 'http://a');
    const user = userOf(request.headers.authorization, options.users);
    if (request.method !== 'GET' || url.pathname !== '/token' || user === undefined)
      return void response.writeHead(user === undefined ? 401 : 404).end('{}');
    const scopes = url.searchParams.getAll('scope').flatMap(scope => scope.split(' '));
    const access = scopes.flatMap((scope): Access[] => {
      const [, type, name, actions] = /^([a-z]+):(.+):([a-z*,]+)$/.exec(scope) ?? [];
      if (type === undefined || name === undefined || actions === undefined) return [];
      const granted = options.grants[user]?.[`${type}:${name}`] ?? [];
      return [{ type, name, actions: actions.split(',').filter(action => granted.includes(action)) }];
    });
    const token = await mintToken(options, user, access);
    response.writeHead(200, { 'Content-Type': 'application/json' });
    response.end(JSON.stringify({ token, expires_in: 300, issued_at: new Date().toISOString() }));
  };
}

/** Undefined for a wrong password. */
function userOf(authorization: string | undefined, users: Readonly<Record<string, string>>): string | undefined {
  if (authorization === undefined) return '';
  const [, user = '', password] = /^([^:]*):(.*)$/.exec(
    Buffer.from(authorization.replace(/^Basic /, ''), 'base64').toString(),
  )!;
  return users[user] === password ? user : undefined;
}

interface ServerConfig extends Omit<TokenServerOptions, 'key'> {
  /** The signing key (PEM). */
  readonly keyFile: string;
  readonly port: number;
  readonly host: string;
  /** For HTTPS. */
  readonly tls: { readonly certificate: string; readonly key: string };
}

const [, script, file] = process.argv;
if (script?.endsWith('token-server.js') && file !== undefined) {
  const { keyFile, port, host, tls, ...rest } = JSON.parse(readFileSync(file, 'utf8')) as ServerConfig;
  const options = { ...rest, key: createPrivateKey(readFileSync(keyFile)) };
  const pair = { cert: readFileSync(tls.certificate), key: readFileSync(tls.key) };
  createTlsServer(pair, answerTokens(options)).listen(port, host);
}

/** The same inside the test process, over HTTP on loopback. */
export async function startTokenServer(options: TokenServerOptions): Promise<{ url: string; close(): void }> {
  const server = createServer(answerTokens(options));
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  return { url: `http://127.0.0.1:${port}/token`, close: () => server.close() };
}
