import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { toYaml } from '../../src/config/display.js';
import { inspectConfig, loadConfig } from '../../src/config/load.js';

import { namesakesOf } from '../../src/server/oidc.js';

const BIND_FILE = '/run/secrets/bind';

function inspect(realms: string, env: Record<string, string> = {}) {
  return inspectConfig({
    dir: '/srv',
    standardFiles: false,
    env: { ...(realms && { REGISTRY_AUTH_REALMS: realms }), ...env },
  });
}
const realm = (source: string, name = 'staff') => `{name: ${name}, repositories: ["**"], sources: [${source}]}`;
const LDAP = 'url: ldaps://ldap.lan, userbase: "ou=people,dc=lan"';
const CLIENTS = { REGISTRY_HTTP_TLS_CLIENTAUTH: 'verify-client-cert-if-given' };

describe('auth.oidc beside realms', () => {
  const said = (source: string) => {
    const oidc = { REGISTRY_AUTH_OIDC_ISSUER: 'https://login.lan', REGISTRY_AUTH_OIDC_CLIENTID: 'registry' };
    const { config, problems } = inspect(`[${realm(source)}]`, { ...CLIENTS, ...oidc });
    assert.deepEqual(problems, []);
    return namesakesOf(config!);
  };

  test('is warned of where a name of the provider may be that of a user whom nobody can look up', () => {
    for (const source of [
      'certificate: {user: commonname}',
      'proxy: {header: X-User, addresses: [192.0.2.1]}',
      `ldap: {${LDAP}}`,
    ])
      assert.match(said(source)!, /realm "staff" cannot be looked up/, source);
    for (const source of ['htpasswd: {path: /a}', `ldap: {${LDAP}, binddn: "cn=s", bindpasswordfile: ${BIND_FILE}}`])
      assert.equal(said(source), undefined, source);
  });
});

describe('auth.realms', () => {
  test('beside nothing, are all; beside auth.htpasswd, that is the realm of the rest', () => {
    const alone = inspect(`[${realm('htpasswd: {path: /a}')}]`);
    assert.deepEqual([alone.problems, alone.config?.auth.htpasswd], [[], undefined]);
    const both = inspect('[{name: staff, repositories: team/**, sources: [{htpasswd: {path: /a}}]}]', {
      REGISTRY_AUTH_HTPASSWD_REALM: 'rest',
    });
    assert.equal(both.config?.auth.htpasswd?.realm, 'rest');
    assert.deepEqual(both.config?.auth.realms, [
      { name: 'staff', repositories: ['team/**'], sources: [{ htpasswd: { path: '/a', legacyhashes: [] } }] },
    ]);
  });

  test('by variables, one for each value', () => {
    const found = inspect('', {
      REGISTRY_AUTH_REALMS_0_NAME: 'staff',
      REGISTRY_AUTH_REALMS_0_REPOSITORIES_0: 'team/**',
      REGISTRY_AUTH_REALMS_0_SOURCES_0_LDAP_URL: 'ldaps://ldap.lan:1636',
      REGISTRY_AUTH_REALMS_0_SOURCES_0_LDAP_USERBASE: 'ou=people,dc=lan',
      REGISTRY_AUTH_REALMS_1_NAME: 'others',
      REGISTRY_AUTH_REALMS_1_REPOSITORIES: '**',
      REGISTRY_AUTH_REALMS_1_SOURCES_0_HTPASSWD_PATH: '/a',
    });
    assert.deepEqual(found.problems, []);
    const [staff, others] = found.config!.auth.realms;
    assert.deepEqual(
      [staff!.name, staff!.sources[0]!.ldap!.url, others!.repositories],
      ['staff', 'ldaps://ldap.lan:1636', ['**']],
    );
  });

  test('what a source may leave out', () => {
    const found = inspect(`[${realm(`{ldap: {${LDAP}}}, {certificate: }, {proxy: {addresses: 10.0.0.7}}`)}]`, CLIENTS);
    assert.deepEqual(found.problems, []);
    const [{ ldap }, { certificate }, { proxy }] = found.config!.auth.realms[0]!.sources as [
      { ldap: object },
      { certificate: object },
      { proxy: object },
    ];
    assert.deepEqual(ldap, {
      url: 'ldaps://ldap.lan',
      starttls: false,
      insecureplain: false,
      userbase: 'ou=people,dc=lan',
      userfilter: '(uid={user})',
      userattribute: 'uid',
      groupattribute: 'cn',
      timeout: 5000,
      cache: 60_000,
    });
    assert.deepEqual(certificate, { user: 'commonname', groups: 'none' });
    assert.deepEqual(proxy, { header: 'remote-user', addresses: ['10.0.0.7'], certificates: [] });
  });

  const bad: ReadonlyArray<[what: string, realms: string, message: RegExp, env?: Record<string, string>]> = [
    [
      'repositories of nobody',
      '[{name: a, repositories: [x/*], sources: [{htpasswd: {path: /a}}]}]',
      /leaves out .* end with a realm for "\*\*", or set auth\.htpasswd/,
    ],
    [
      'a realm behind all',
      `[${realm('{htpasswd: {path: /a}}')}, {name: b, repositories: [x], sources: [{htpasswd: {path: /a}}]}]`,
      /auth\.realms\.1 has no repository left/,
    ],
    [
      'all beside auth.htpasswd',
      `[${realm('{htpasswd: {path: /a}}')}]`,
      /leaves none to auth\.htpasswd/,
      { REGISTRY_AUTH_HTPASSWD_REALM: 'x' },
    ],
    [
      'a name twice',
      `[{name: a, repositories: [x], sources: [{htpasswd: {path: /a}}]}, ${realm('{htpasswd: {path: /a}}', 'a')}]`,
      /auth\.realms\.1\.name is the name of another realm too/,
    ],
    [
      'beside auth.none',
      `[${realm('{htpasswd: {path: /a}}')}]`,
      /auth\.none is set beside auth\.realms/,
      { REGISTRY_AUTH_NONE: '{}' },
    ],
    ['no source', '[{name: a, repositories: ["**"], sources: []}]', /sources is empty/],
    [
      'two sources in one',
      `[${realm(`{htpasswd: {path: /a}, ldap: {${LDAP}}}`)}]`,
      /sources\.0 is not one source; give each source its own item/,
    ],
    [
      'an unknown source',
      `[${realm('{kerberos: {}}')}]`,
      /expects one of htpasswd, ldap, certificate, proxy, and not kerberos/,
    ],
    ['a key that is missing', `[${realm('{ldap: {}}')}]`, /sources\.0\.ldap\.url is missing/],
    [
      'an unknown key',
      `[${realm(`{ldap: {${LDAP}, userbas: x}}`)}]`,
      /sources\.0\.ldap expects the keys of a directory, .*, and not userbas/,
    ],
    [
      'a pattern that is none',
      '[{name: a, repositories: ["a b"], sources: [{htpasswd: {path: /a}}]}]',
      /is no pattern for names/,
    ],
    [
      'passwords in the clear',
      `[${realm('{ldap: {url: "ldap://ldap.lan", userbase: x}}')}]`,
      /url sends passwords in the clear; write ldaps:\/\/, or set starttls: true/,
    ],
    [
      'a user in the URL',
      `[${realm('{ldap: {url: "ldaps://a:b@ldap.lan", userbase: x}}')}]`,
      /url is no URL of a directory/,
    ],
    ['both ways to TLS', `[${realm(`{ldap: {${LDAP}, starttls: true}}`)}]`, /starttls is set beside ldaps/],
    ['no place of users', `[${realm('{ldap: {url: "ldaps://a"}}')}]`, /userbase is missing/],
    [
      'two places of users',
      `[${realm(`{ldap: {${LDAP}, userdn: "uid={user},dc=lan"}}`)}]`,
      /userdn is set beside userbase/,
    ],
    [
      'a filter for nobody',
      `[${realm(`{ldap: {${LDAP}, userfilter: "(uid=alice)"}}`)}]`,
      /userfilter holds no \{user\}/,
    ],
    [
      'a filter for somebody else',
      `[${realm(`{ldap: {${LDAP}, userfilter: "(uid={name})"}}`)}]`,
      /userfilter holds \{name\}, which is not known/,
    ],
    [
      'a filter that is none',
      `[${realm(`{ldap: {${LDAP}, userfilter: "(uid={user}"}}`)}]`,
      /userfilter has a parenthesis without its other half/,
    ],
    ['half an account', `[${realm(`{ldap: {${LDAP}, binddn: x}}`)}]`, /bindpasswordfile is missing/],
    [
      'a cache of hours',
      `[${realm(`{ldap: {${LDAP}, cache: 1h}}`)}]`,
      /cache is too long, or nothing; write at most 60s/,
    ],
    [
      'certificates that nobody verifies',
      `[${realm('{certificate: {}}')}]`,
      /certificate needs client certificates that are verified; set http\.tls\.clientauth/,
    ],
    [
      'certificates of proxies that nobody verifies',
      `[${realm('{proxy: {certificates: nginx}}')}]`,
      /proxy\.certificates needs client certificates/,
    ],
    ['a proxy that is anybody', `[${realm('{proxy: {}}')}]`, /proxy names no proxy that could be believed/],
    ['a proxy that is everybody', `[${realm('{proxy: {addresses: "0.0.0.0/0"}}')}]`, /is every address/],
    ['a network that is none', `[${realm('{proxy: {addresses: "10.0.0.0/33"}}')}]`, /is no address and no network/],
    [
      'the header of passwords',
      `[${realm('{proxy: {addresses: 10.0.0.1, header: Authorization}}')}]`,
      /is no name of a header/,
    ],
    [
      'an unknown hash',
      `[${realm('{htpasswd: {path: /a, legacyhashes: plain}}')}]`,
      /write some of: apr1, sha1, crypt, sha2-crypt/,
    ],
  ];
  for (const [what, realms, message, env] of bad)
    test(`refused: ${what}`, () => {
      const { problems } = inspect(realms, env);
      assert.match(problems.map(({ what, fix }) => `${what}; ${fix}`).join('\n'), message);
    });

  test('plain LDAP only to this machine, or by name', () => {
    for (const url of ['ldap://127.0.0.1:389', 'ldap://[::1]', 'ldap://localhost'])
      assert.deepEqual(inspect(`[${realm(`{ldap: {url: "${url}", userbase: x}}`)}]`).problems, [], url);
    for (const url of ['ldap://127.0.0.1.lan', 'ldap://localhost.lan'])
      assert.equal(inspect(`[${realm(`{ldap: {url: "${url}", userbase: x}}`)}]`).problems.length, 1, url);
    const named = inspect(`[${realm('{ldap: {url: "ldap://ldap.lan", userbase: x, insecureplain: true}}')}]`);
    assert.deepEqual(named.problems, []);
    assert.match(named.warnings.join(), /every password goes to ldap:\/\/ldap\.lan in the clear/);
  });

  test('what is shown can be read again, and names the file of a password, never its content', () => {
    const source = `{ldap: {${LDAP}, binddn: "cn=reader,dc=lan", bindpasswordfile: ${BIND_FILE}}}`;
    const loaded = loadConfig({
      dir: '/srv',
      standardFiles: false,
      env: { REGISTRY_AUTH_REALMS: `[${realm(source)}]` },
    });
    const printed = toYaml(loaded);
    assert.ok(printed.includes(BIND_FILE), printed);
    assert.ok(printed.includes('ldaps://ldap.lan'), printed);
  });
});
