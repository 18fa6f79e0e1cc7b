import assert from 'node:assert/strict';
import { type ChildProcess, fork } from 'node:child_process';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import type { IncomingHttpHeaders, OutgoingHttpHeaders } from 'node:http';
import { request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { checkServerIdentity } from 'node:tls';
import { fileURLToPath } from 'node:url';
import { addUser, removeUser } from '../../src/auth/htpasswd-edit.js';
import { DocumentedApi } from '../support/api-document.js';
import { LocalRegistry } from '../support/local-registry.js';
import { selfSigned } from '../support/pair.js';

const POLICY = `rules:
  - {who: [user:admin], may: [admin], on: ["**"]}
  - {who: [group:staff], may: [push], on: ["staff/**"]}
`;
const SECRET = 'canary-secret-of-the-client';

interface Reply {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

/** Keeps cookies by host and path as a browser does, follows nothing by itself, and trusts what the test trusts. */
class Browser {
  readonly cookies = new Map<string, string>();

  constructor(
    private readonly ca: string,
    private readonly onAnswer: (method: string, url: string, reply: Reply) => void,
  ) {}

  async send(
    method: string,
    url: string,
    { form, json, headers = {} }: { form?: Record<string, string>; json?: unknown; headers?: OutgoingHttpHeaders } = {},
  ): Promise<Reply> {
    const { origin } = new URL(url);
    const mine = [...this.cookies].filter(([name]) => name.startsWith(`${origin} `));
    const cookie = mine.map(([name, value]) => `${name.slice(origin.length + 1)}=${value}`).join('; ');
    const body = form ? String(new URLSearchParams(form)) : json === undefined ? undefined : JSON.stringify(json);
    const type = form ? 'application/x-www-form-urlencoded' : 'application/json';
    return new Promise((resolve, reject) => {
      const asked = request(url, {
        method,
        ca: this.ca,
        agent: false,
        servername: '',
        checkServerIdentity: (_host, peer) => checkServerIdentity('127.0.0.1', peer),
        headers: { ...(cookie && { cookie }), ...(body !== undefined && { 'content-type': type }), ...headers },
      });
      asked.once('error', reject);
      asked.once('response', response => {
        let text = '';
        response.setEncoding('utf8').on('data', chunk => (text += chunk));
        for (const line of response.headers['set-cookie'] ?? []) {
          const [, name = '', value = ''] = /^([^=]+)=([^;]*)/.exec(line)!;
          if (value === '' || /; *(max-age=0|expires=Thu, 01 Jan 1970)/i.test(line))
            this.cookies.delete(`${origin} ${name}`);
          else this.cookies.set(`${origin} ${name}`, value);
        }
        response.once('end', () => {
          const reply = { status: response.statusCode!, headers: response.headers, body: text };
          try {
            this.onAnswer(method, url, reply);
            resolve(reply);
          } catch (error) {
            reject(error);
          }
        });
      });
      asked.end(body);
    });
  }
}

describe('logins at a real OpenID Connect provider', () => {
  let dir: string;
  let provider: ChildProcess;
  let registry: LocalRegistry;
  let trusted: string;
  let api: DocumentedApi;
  const newBrowser = () =>
    new Browser(trusted, (method, url, { status, body }) => {
      const path = url.startsWith(at('/api/v1/')) ? new URL(url).pathname.slice('/api/v1'.length) : undefined;
      if (path !== undefined) api.check(method, path, status, Buffer.from(body));
    });
  const at = (path: string) => `https://127.0.0.1:${registry.port}${path}`;
  const heard = <T>() => new Promise<T>(resolve => provider.once('message', message => resolve(message as T)));

  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'registry-secure-oidc-'));
    const pair = selfSigned();
    provider = fork(fileURLToPath(new URL('../support/oidc-provider-process.js', import.meta.url)), {
      stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
    });
    provider.send(pair);
    const { port } = await heard<{ port: number }>();
    await writeFile(join(dir, 'policy.yml'), POLICY);
    await writeFile(join(dir, 'secret'), `${SECRET}\n`, { mode: 0o600 });
    await writeFile(join(dir, 'provider.crt'), pair.certificate);
    registry = await LocalRegistry.start(dir, ['up', '--ip', '127.0.0.1'], {
      env: {
        REGISTRY_ACCESS_POLICY: join(dir, 'policy.yml'),
        REGISTRY_AUTH_OIDC_ISSUER: `https://127.0.0.1:${port}`,
        REGISTRY_AUTH_OIDC_CLIENTID: 'registry',
        REGISTRY_AUTH_OIDC_CLIENTSECRETFILE: join(dir, 'secret'),
        REGISTRY_AUTH_OIDC_ROOTCERTBUNDLE: join(dir, 'provider.crt'),
      },
    });
    const ready = heard();
    provider.send({ id: 'registry', secret: SECRET, callback: at('/api/v1/session/callback') });
    await ready;
    api = new DocumentedApi(JSON.parse(String((await registry.call('GET', '/api/v1/openapi.json')).body)));
    trusted = `${pair.certificate}${(await registry.call('GET', '/ca.crt')).body}`;
  });
  after(async () => {
    provider.kill();
    await registry.stop('SIGKILL');
    await rm(dir, { recursive: true });
  });

  /** What a person does: begins here, logs in and agrees there, and has the address to come back with. */
  async function atProvider(browser: Browser, name: string, begin = '/api/v1/session/login'): Promise<string> {
    const begun = await browser.send('GET', at(begin));
    assert.equal(begun.status, 303, begun.body);
    let url = begun.headers.location!;
    for (let step = 0; step < 12 && !url.startsWith(at('/')); step++) {
      const shown = await browser.send('GET', url);
      if (shown.headers.location !== undefined) {
        url = new URL(shown.headers.location, url).href;
        continue;
      }
      const action = /<form[^>]* action="([^"]+)"/.exec(shown.body)?.[1];
      const prompt = /name="prompt" value="(\w+)"/.exec(shown.body)?.[1];
      assert.ok(action && prompt, shown.body);
      const form: Record<string, string> = { prompt, ...(prompt === 'login' && { login: name, password: 'any' }) };
      const sent = await browser.send('POST', new URL(action, url).href, { form });
      url = new URL(sent.headers.location!, url).href;
    }
    return url;
  }

  async function loggedIn(name: string): Promise<Browser> {
    const browser = newBrowser();
    const back = await browser.send('GET', await atProvider(browser, name));
    assert.equal(back.status, 200, back.body);
    return browser;
  }
  const whoAmI = async (browser: Browser) => {
    const { status, body } = await browser.send('GET', at('/api/v1/whoami'));
    return status === 200 ? JSON.parse(body) : status;
  };
  const basic = (user: string, password: string) => ({
    authorization: `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`,
  });
  const asAdmin = () => basic('admin', registry.password);
  const messageOf = ({ status, body }: Reply) => [status, JSON.parse(body).errors[0].message];

  test('a login begins a session, with the groups of the provider, in a cookie that no script and no other site has', async () => {
    const browser = newBrowser();
    const url = await atProvider(browser, 'dora', '/api/v1/session/login?next=/trust');
    const sent = new URL(url);
    assert.ok(sent.searchParams.get('code') && sent.searchParams.get('state'));
    const back = await browser.send('GET', url);
    assert.deepEqual([back.status, back.headers.refresh], [200, '0; url=/trust']);
    const cookies = back.headers['set-cookie']!;
    assert.match(
      cookies[0]!,
      /^__Host-registry-session=[\w.-]+; Path=\/; Max-Age=3600; Secure; HttpOnly; SameSite=Strict$/,
    );
    assert.match(cookies[1]!, /^__Host-registry-login=; Path=\/; Max-Age=0; /);
    assert.deepEqual(await whoAmI(browser), {
      user: 'dora',
      via: 'session',
      groups: ['staff', 'group of dora'],
      administrator: false,
    });
    const rights = await browser.send('GET', at('/api/v1/rights?repository=staff/app'));
    const allowed = JSON.parse(rights.body).actions.filter((action: { allowed: boolean }) => action.allowed);
    assert.deepEqual(
      allowed.map(({ action }: { action: string }) => action),
      ['pull', 'push', 'overwrite'],
    );
    // The registry itself is not for cookies: a page could have a browser push with them.
    assert.equal((await browser.send('GET', at('/v2/'))).status, 401);
    // Nor is the API, from another site.
    const foreign = { headers: { 'sec-fetch-site': 'cross-site' }, json: { allow: ['pull:**'] } };
    assert.equal((await browser.send('POST', at('/api/v1/tokens'), foreign)).status, 403);
  });

  test('its user makes a token for docker, which ends with the account; an administrator disables both', async () => {
    const browser = await loggedIn('frank');
    const made = await browser.send('POST', at('/api/v1/tokens'), { json: { allow: ['push:staff/**'] } });
    assert.equal(made.status, 201, made.body);
    const { secret, id } = JSON.parse(made.body);
    const docker = async () => (await browser.send('GET', at('/v2/'), { headers: basic('frank', secret) })).status;
    assert.equal(await docker(), 200);
    assert.deepEqual(
      JSON.parse((await browser.send('GET', at('/api/v1/tokens'))).body).tokens.map(
        (token: { id: string }) => token.id,
      ),
      [id],
    );
    // A token cannot beget another.
    const again = { headers: basic('frank', secret), json: { allow: ['push:**'] } };
    assert.equal((await newBrowser().send('POST', at('/api/v1/tokens'), again)).status, 403);

    const account = at('/api/v1/accounts/frank');
    const change = (json: unknown) => browser.send('PATCH', account, { headers: asAdmin(), json });
    const shown = JSON.parse((await browser.send('GET', account, { headers: asAdmin() })).body);
    assert.deepEqual(shown, { name: 'frank', source: 'oidc' });
    const begun = Date.now();
    assert.ok(JSON.parse((await change({ disabled: true })).body).disabled);
    // Who goes on asking for long is put off.
    const isGone = async () => [401, 429].includes(await docker()) && (await whoAmI(browser)) === 401;
    await registry.until(isGone);
    assert.ok(Date.now() - begun < 60_000);
    const back = await newBrowser().send('GET', await atProvider(browser, 'frank'));
    assert.equal(back.status, 403);
    assert.equal((await change({ disabled: false })).status, 200);
    await registry.until(async () => (await docker()) === 200 && (await whoAmI(browser)).user === 'frank');
    // A new user of the file who has the name by chance has nothing of it.
    const password = 'of another frank';
    await addUser(join(dir, 'auth/htpasswd'), 'frank', password);
    const byPassword = async () =>
      (await browser.send('GET', at('/v2/'), { headers: basic('frank', password) })).status;
    await registry.until(async () => (await whoAmI(browser)) === 401);
    assert.deepEqual([await byPassword(), await docker()], [200, 401]);
    await removeUser(join(dir, 'auth/htpasswd'), 'frank');
    await registry.until(async () => (await whoAmI(browser)).user === 'frank');
    assert.equal(await docker(), 200);
    assert.equal((await browser.send('DELETE', account, { headers: asAdmin() })).status, 204);
    await registry.until(isGone);
  });

  test('a logout ends the session everywhere, also for who has kept the cookie', async () => {
    const browser = await loggedIn('gina');
    const kept = newBrowser();
    for (const [name, value] of browser.cookies) kept.cookies.set(name, value);
    assert.equal((await whoAmI(kept)).user, 'gina');
    const foreign = { headers: { 'sec-fetch-site': 'cross-site' } };
    assert.equal((await browser.send('DELETE', at('/api/v1/session'), foreign)).status, 403);
    const ended = await browser.send('DELETE', at('/api/v1/session'));
    assert.deepEqual([ended.status, await whoAmI(browser), await whoAmI(kept)], [204, 401, 401]);
    assert.equal((await readdir(join(dir, 'data/registry-secure/ended-sessions'))).length, 1);
  });

  test('nobody becomes a user who is there already, whoever they are at the provider', async () => {
    const browser = newBrowser();
    const asOurs = await browser.send('GET', await atProvider(browser, 'admin'));
    assert.deepEqual(messageOf(asOurs), [403, 'there is a user of this name who has a password here']);
    assert.equal(await whoAmI(browser), 401);
    assert.equal((await whoAmI(await loggedIn('erin'))).user, 'erin');
    const twin = newBrowser();
    assert.equal((await twin.send('GET', await atProvider(twin, 'twin'))).status, 403);
    assert.equal((await whoAmI(await loggedIn('erin'))).user, 'erin');
    // Nor the other way round.
    const added = { headers: asAdmin(), json: { name: 'erin' } };
    assert.equal((await browser.send('POST', at('/api/v1/accounts'), added)).status, 409);
    // Who has the name next is not who has a session from before.
    const before = await loggedIn('erin');
    const removed = await browser.send('DELETE', at('/api/v1/accounts/erin'), { headers: asAdmin() });
    assert.equal(removed.status, 204);
    assert.equal((await whoAmI(await loggedIn('twin'))).user, 'erin');
    assert.equal(await whoAmI(before), 401);
  });

  test('what comes back is believed once, in the browser that has begun, and as it was sent', async () => {
    const browser = newBrowser();
    const url = await atProvider(browser, 'hugo');
    const other = newBrowser();
    assert.equal((await other.send('GET', url)).status, 403, 'a login that another browser has begun');
    await other.send('GET', at('/api/v1/session/login'));
    assert.equal((await other.send('GET', url)).status, 403, 'another state than this browser has sent');
    const cookies = new Map(browser.cookies);
    const changed = (name: string, value: string) => {
      const next = new URL(url);
      next.searchParams.set(name, value);
      return next.href;
    };
    for (const wrong of [
      changed('state', 'x'),
      changed('code', 'x'),
      changed('iss', 'https://evil.example'),
      changed('error', 'access_denied'),
      at('/api/v1/session/callback'),
      at('/api/v1/session/callback?state=x&state=y'),
    ]) {
      const answer = await browser.send('GET', wrong);
      assert.ok([400, 403].includes(answer.status), `${wrong}: ${answer.status} ${answer.body}`);
      assert.equal(answer.headers['set-cookie'], undefined);
    }
    assert.equal((await browser.send('GET', url)).status, 200);
    const replayed = newBrowser();
    for (const [name, value] of cookies) replayed.cookies.set(name, value);
    assert.equal((await replayed.send('GET', url)).status, 403, 'a code that was used');
    for (const next of ['//evil.example', '/\\evil.example', 'https://evil.example', 'javascript:alert(1)', '/a b'])
      assert.equal(
        (await browser.send('GET', at(`/api/v1/session/login?next=${encodeURIComponent(next)}`))).status,
        400,
        next,
      );
    // By a host that the certificate is not good for, nobody is sent anywhere.
    const strange = await browser.send('GET', at('/api/v1/session/login'), { headers: { host: 'evil.example' } });
    assert.equal(strange.status, 400);
  });

  test('a session is none that was changed, is over, or is of another kind', async () => {
    const browser = await loggedIn('ines');
    const name = `${at('')} __Host-registry-session`;
    const good = browser.cookies.get(name)!;
    const [head, payload, signature] = good.split('.') as [string, string, string];
    const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const claims = JSON.parse(Buffer.from(payload, 'base64url').toString());
    const { kid } = JSON.parse(Buffer.from(head, 'base64url').toString());
    const none = encode({ alg: 'none', typ: 'registry-session+jwt', kid });
    for (const forged of [
      `${head}.${encode({ ...claims, sub: 'admin' })}.${signature}`,
      `${none}.${encode({ ...claims, sub: 'admin' })}.`,
      `${none}.${payload}.${signature}`,
      'x',
      '..',
      '',
      good.slice(0, -1),
    ]) {
      browser.cookies.set(name, forged);
      assert.equal(await whoAmI(browser), 401, forged);
    }
    // What /token gives is signed by the same key, and is no session; and the other way round.
    const { token } = JSON.parse((await browser.send('GET', at('/token'), { headers: asAdmin() })).body) as {
      token: string;
    };
    browser.cookies.set(name, token);
    assert.equal(await whoAmI(browser), 401);
    browser.cookies.delete(name);
    const bearer = { headers: { authorization: `Bearer ${good}` } };
    assert.equal((await browser.send('GET', at('/api/v1/whoami'), bearer)).status, 401);
    browser.cookies.set(name, good);
    assert.equal((await whoAmI(browser)).user, 'ines');
  });

  test('no secret is in what the registry says, and without its provider it says so and goes on', async () => {
    const browser = await loggedIn('jack');
    provider.kill('SIGKILL');
    await new Promise(resolve => provider.once('exit', resolve));
    const url = new URL(at('/api/v1/session/callback'));
    const fresh = newBrowser();
    // What the provider says of itself is known for a while: it is its absence at the end that shows.
    const begun = await fresh.send('GET', at('/api/v1/session/login'));
    const { searchParams } = new URL(begun.headers.location!);
    url.searchParams.set('state', searchParams.get('state')!);
    url.searchParams.set('code', 'any');
    url.searchParams.set('iss', new URL(begun.headers.location!).origin);
    const down = await fresh.send('GET', url.href);
    assert.deepEqual(
      [...messageOf(down), down.headers['retry-after']],
      [503, 'the provider of logins does not answer', '10'],
    );
    assert.equal((await whoAmI(browser)).user, 'jack');
    assert.equal((await browser.send('GET', at('/v2/'), { headers: asAdmin() })).status, 200);
    await registry.until(() => /session\/callback\?/.test(registry.stdout));
    const said = registry.stdout + registry.stderr;
    const session = [...browser.cookies.values()].at(-1)!;
    for (const secret of [SECRET, session, searchParams.get('state')!, searchParams.get('code_challenge')!])
      assert.ok(!said.includes(secret));
  });

  test('each answer of the API to a browser was as the document says', () => {
    for (const answered of ['beginLogin 303', 'finishLogin 200', 'endSession 204', 'createToken 201'])
      assert.ok(api.seen.has(answered), answered);
  });
});
