import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { type Inspected, inspectConfig, type LoadOptions, loadConfig } from '../../src/config/load.js';

/** Of the section auth, where nothing but the defaults and a file of passwords is configured. */
const BY_PASSWORD = { htpasswd: { realm: 'Registry Realm', path: '', legacyhashes: [] as string[] }, realms: [] };

let folder: string;
before(() => {
  folder = mkdtempSync(join(tmpdir(), 'config-load-'));
});
after(() => rmSync(folder, { recursive: true }));

function inspect(options: Partial<LoadOptions>): Inspected {
  return inspectConfig({ dir: join(folder, 'dir'), env: {}, standardFiles: false, ...options });
}

/** The same with a configuration file of this text. */
function inspectFile(text: string, options: Partial<LoadOptions> = {}): Inspected & { file: string } {
  const file = join(folder, 'config.yml');
  writeFileSync(file, text);
  return { ...inspect({ ...options, file }), file };
}

/** The messages without the folder, one line each, as the command line words them. */
function said({ problems, warnings }: Pick<Inspected, 'problems' | 'warnings'>): string[] {
  const all = [...warnings, ...problems.map(({ what, fix }) => `${what}; ${fix}`)];
  return all.map(line => line.replaceAll(`${folder}/`, ''));
}

describe('the variables of the old recipes, as they are written', () => {
  test('TLS on port 443', () => {
    const { config, problems, warnings, sources } = inspect({
      env: {
        REGISTRY_HTTP_ADDR: '0.0.0.0:443',
        REGISTRY_HTTP_TLS_CERTIFICATE: '/certs/domain.crt',
        REGISTRY_HTTP_TLS_KEY: '/certs/domain.key',
      },
    });
    assert.deepEqual([problems, warnings], [[], []]);
    assert.equal(config!.http.addr, '0.0.0.0:443');
    assert.equal(config!.http.tls.certificate, '/certs/domain.crt');
    assert.equal(config!.http.tls.key, '/certs/domain.key');
    assert.equal(sources.get('http.tls.key'), 'REGISTRY_HTTP_TLS_KEY');
  });

  test('htpasswd, without a path', () => {
    const { config, problems, warnings, sources } = inspect({
      env: {
        REGISTRY_AUTH: 'htpasswd',
        REGISTRY_AUTH_HTPASSWD_REALM: 'Registry Realm',
        REGISTRY_HTTP_TLS_CERTIFICATE: '/certs/domain.crt',
        REGISTRY_HTTP_TLS_KEY: '/certs/domain.key',
      },
    });
    assert.deepEqual([problems, warnings], [[], []]);
    assert.deepEqual(config!.auth, {
      ...BY_PASSWORD,
      htpasswd: { ...BY_PASSWORD.htpasswd, realm: 'Registry Realm', path: '/auth/htpasswd' },
    });
    assert.equal(sources.get('auth.htpasswd.realm'), 'REGISTRY_AUTH_HTPASSWD_REALM');
    assert.equal(sources.get('auth.htpasswd.path'), 'default');
  });

  test('htpasswd, with a path', () => {
    const { config } = inspect({
      env: {
        REGISTRY_AUTH: 'htpasswd',
        REGISTRY_AUTH_HTPASSWD_REALM: 'Registry Realm',
        REGISTRY_AUTH_HTPASSWD_PATH: '/auth/htpasswd',
      },
    });
    assert.deepEqual(config!.auth, {
      ...BY_PASSWORD,
      htpasswd: { ...BY_PASSWORD.htpasswd, realm: 'Registry Realm', path: '/auth/htpasswd' },
    });
  });

  test('secrets of a Swarm service', () => {
    const { config, problems } = inspect({
      env: {
        REGISTRY_HTTP_ADDR: '0.0.0.0:443',
        REGISTRY_HTTP_TLS_CERTIFICATE: '/run/secrets/domain.crt',
        REGISTRY_HTTP_TLS_KEY: '/run/secrets/key.crt',
      },
    });
    assert.deepEqual(problems, []);
    assert.equal(config!.http.tls.key, '/run/secrets/key.crt');
  });

  test('the data folder', () => {
    const { config } = inspect({ env: { REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY: '/mnt/registry' } });
    assert.equal(config!.storage.filesystem.rootdirectory, '/mnt/registry');
  });
});

describe('files of the original', () => {
  test("a Debian package's, at every key", () => {
    const { config, file, sources, ...rest } = inspectFile(`version: 0.1
log: {fields: {service: registry}}
storage:
  cache: {blobdescriptor: inmemory}
  filesystem: {rootdirectory: /var/lib/docker-registry}
  delete: {enabled: true}
http:
  addr: :5000
  headers:
    X-Content-Type-Options: [nosniff]
auth:
  htpasswd: {realm: basic-realm, path: /etc/docker/registry}
health:
  storagedriver: {enabled: true, interval: 10s, threshold: 3}
`);
    assert.deepEqual(said(rest), []);
    assert.equal(config!.storage.delete.enabled, true);
    assert.equal(config!.version, '0.1');
    assert.deepEqual(config!.log.fields, { service: 'registry' });
    assert.equal(config!.storage.filesystem.rootdirectory, '/var/lib/docker-registry');
    assert.equal(config!.http.addr, ':5000');
    assert.deepEqual(config!.http.headers, { 'X-Content-Type-Options': ['nosniff'] });
    assert.deepEqual(config!.auth, {
      ...BY_PASSWORD,
      htpasswd: { ...BY_PASSWORD.htpasswd, realm: 'basic-realm', path: '/etc/docker/registry' },
    });
    assert.deepEqual(config!.health.storagedriver, { enabled: true, interval: 10_000, threshold: 3 });
    assert.equal(sources.get('http.addr'), `file ${file}`);
    assert.equal(sources.get('log.level'), 'default');
  });

  test("an image's, without authentication, asks for it here", () => {
    const { config } = inspectFile('version: 0.1\nstorage: {filesystem: {rootdirectory: /var/lib/registry}}\n');
    assert.deepEqual(config!.auth, {
      ...BY_PASSWORD,
      htpasswd: { ...BY_PASSWORD.htpasswd, path: join(folder, 'dir', 'auth', 'htpasswd') },
    });
  });

  test('old names', () => {
    const found = inspectFile('loglevel: debug\nstorage: {cache: {layerinfo: inmemory}}\n');
    assert.equal(found.config!.log.level, 'debug');
    assert.equal(found.sources.get('log.level'), `file ${found.file}`);
    assert.deepEqual(said(found), ['config.yml:1:1: loglevel is an old name; write log.level']);
    assert.equal(inspectFile('loglevel: debug\nlog: {level: error}\n').config!.log.level, 'error');
  });

  test('YAML in all its dress', () => {
    const { config, problems } = inspectFile(`\uFEFFversion: "0.1"
health: {storagedriver: {<<: &quiet {enabled: off}, threshold: 5}}
storage:
  redirect: {disable: Yes}
  delete:
  cache: ~
log:
  level: DEBUG
  fields: {id: 007, empty: }
`);
    assert.deepEqual(problems, []);
    assert.equal(config!.storage.redirect.disable, true);
    assert.deepEqual(config!.health.storagedriver, { enabled: false, interval: 10_000, threshold: 5 });
    assert.equal(config!.log.level, 'debug');
    assert.deepEqual(config!.log.fields, { id: '007', empty: '' });
  });

  test('nothing in it', () => {
    for (const text of ['', '\n', '# nothing\n', '---\n', '~\n'])
      assert.deepEqual(inspectFile(text).problems, [], JSON.stringify(text));
  });
});

describe('defaults', () => {
  test('without a file everything lies in the folder', () => {
    const { config, file } = inspect({});
    assert.equal(file, undefined);
    assert.equal(config!.http.addr, '0.0.0.0:5000');
    assert.equal(config!.http.draintimeout, 8000);
    assert.deepEqual(config!.http.tls.certificate, undefined);
    assert.equal(config!.storage.filesystem.rootdirectory, join(folder, 'dir', 'data'));
    assert.equal(config!.auth.htpasswd!.path, join(folder, 'dir', 'auth', 'htpasswd'));
    assert.equal(config!.auth.none, undefined);
  });

  test('with a file the data lies where the original keeps it', () => {
    assert.equal(inspectFile('version: 0.1\n').config!.storage.filesystem.rootdirectory, '/var/lib/registry');
  });

  test('a file in a standard place counts, unless the operator names a folder', () => {
    const usual = inspectFile('version: 0.1\n').file;
    const loaded = (options: Partial<LoadOptions>) =>
      inspect({ standardFiles: [join(folder, 'none.yml'), usual], ...options }).file;
    assert.equal(loaded({}), usual);
    assert.equal(loaded({ dirGiven: true }), undefined);
    assert.equal(loaded({ dirGiven: true, env: { REGISTRY_CONFIGURATION_PATH: usual } }), usual);
    assert.equal(loaded({ dirGiven: true, file: usual }), usual);
  });

  test('a kind without a path: the own folder where it is named or has one, else the place in the image', () => {
    const env = { REGISTRY_AUTH: 'htpasswd' };
    const path = (options: Partial<LoadOptions>) => inspect({ env, ...options }).config!.auth.htpasswd!.path;
    assert.equal(path({}), '/auth/htpasswd');
    assert.equal(path({ dirGiven: true }), join(folder, 'dir', 'auth', 'htpasswd'));
    mkdirSync(join(folder, 'own', 'auth'), { recursive: true });
    writeFileSync(join(folder, 'own', 'auth', 'htpasswd'), '');
    assert.equal(path({ dir: join(folder, 'own') }), join(folder, 'own', 'auth', 'htpasswd'));
  });

  test('zero means the default where it does in the original', () => {
    const { config } = inspectFile(`catalog: {maxentries: 0}
tags: {maxtags: 0}
health: {storagedriver: {interval: 0, threshold: 0}}
storage: {maintenance: {uploadpurging: {age: 0s, interval: 0}}}
http: {draintimeout: 0}
`);
    assert.deepEqual([config!.catalog.maxentries, config!.tags.maxtags], [1000, 1000]);
    assert.deepEqual(config!.health.storagedriver, { enabled: true, interval: 10_000, threshold: 1 });
    assert.equal(config!.storage.maintenance.uploadpurging.age, 604_800_000);
    assert.equal(config!.http.draintimeout, 0);
  });

  test('paths become absolute', () => {
    const { config } = inspect({ env: { REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY: 'somewhere' } });
    assert.equal(config!.storage.filesystem.rootdirectory, join(process.cwd(), 'somewhere'));
  });
});

test('flags win over variables, variables over the file, the file over the defaults', () => {
  const flags = [{ flag: '--log-level', key: 'log.level', value: 'error' }];
  const env = { REGISTRY_LOG_LEVEL: 'warn', REGISTRY_HTTP_ADDR: ':2' };
  const text = 'log: {level: debug}\nhttp: {addr: ":1", host: "https://a.example"}\n';
  const { config, sources, file } = inspectFile(text, { flags, env });
  assert.equal(config!.log.level, 'error');
  assert.equal(config!.http.addr, ':2');
  assert.equal(config!.http.host, 'https://a.example');
  assert.equal(sources.get('log.level'), '--log-level');
  assert.equal(sources.get('http.addr'), 'REGISTRY_HTTP_ADDR');
  assert.equal(sources.get('http.host'), `file ${file}`);
  assert.equal(sources.get('http.prefix'), 'default');
});

describe('what is not supported', () => {
  const refused: ReadonlyArray<[NodeJS.ProcessEnv, string]> = [
    [
      { REGISTRY_STORAGE: 'oss' },
      'REGISTRY_STORAGE: storage.oss is not supported; use storage.filesystem, or storage.s3 where it speaks that API',
    ],
    [
      { REGISTRY_STORAGE_OSS_BUCKET: 'b' },
      'REGISTRY_STORAGE_OSS_BUCKET: storage.oss is not supported; use storage.filesystem, or storage.s3 where it speaks that API',
    ],
    ...['glance', 'elliptics'].map((kind): [NodeJS.ProcessEnv, string] => [
      { REGISTRY_STORAGE: kind },
      `REGISTRY_STORAGE: storage.${kind} is not supported; use one of the kinds of docs/storage.md, and push the images anew`,
    ]),
    [
      { REGISTRY_STORAGE: 'inmemory' },
      'REGISTRY_STORAGE: storage.inmemory is not supported; use storage.filesystem on a tmpfs',
    ],
    [
      { REGISTRY_AUTH: 'silly' },
      'REGISTRY_AUTH: auth.silly is not supported; use auth.htpasswd, or auth.none for an open registry',
    ],
    [
      { REGISTRY_AUTH: 'htpaswd' },
      'REGISTRY_AUTH: auth.htpaswd is no known kind of authentication; did you mean auth.htpasswd?',
    ],
    [
      { REGISTRY_STORAGE_FILESYTEM_ROOTDIRECTORY: '/x' },
      'REGISTRY_STORAGE_FILESYTEM_ROOTDIRECTORY: storage.filesytem is no known kind of storage; did you mean storage.filesystem?',
    ],
    [
      { REGISTRY_PROXY_REMOTEURL: 'https://registry-1.docker.io' },
      'REGISTRY_PROXY_REMOTEURL: proxy is not supported; remove it: pull-through is not served',
    ],
    [
      { REGISTRY_HTTP_TLS_CLIENTCRLS_0: '/crl.pem' },
      'REGISTRY_HTTP_TLS_CLIENTCRLS_0: http.tls.clientcrls is set, but http.tls.clientcas is not; set http.tls.clientcas to the authorities of these lists; the list of the own one counts by itself',
    ],
    [
      { REGISTRY_HTTP_TLS_CLIENTAUTH: 'no-client-cert' },
      'REGISTRY_HTTP_TLS_CLIENTAUTH: http.tls.clientauth "no-client-cert" is not known here; write one of: require-and-verify-client-cert, verify-client-cert-if-given, require-any-client-cert, request-client-cert',
    ],
  ];
  test('client certificates: the modes of Distribution, and what each gives up', () => {
    const { config } = inspect({ env: { REGISTRY_HTTP_TLS_CLIENTCAS: '[/ca.pem, /other.pem]' } });
    assert.deepEqual(config?.http.tls.clientcas, ['/ca.pem', '/other.pem']);
    assert.equal(config?.http.tls.clientauth, undefined);
    for (const [mode, warning] of [
      ['require-and-verify-client-cert', undefined],
      ['verify-client-cert-if-given', 'lets clients in without a certificate as well'],
      ['require-any-client-cert', 'verifies nothing: anybody can make the certificate that it wants'],
      ['Request-Client-Cert', 'only asks: clients without a certificate, or with one of anybody, are let in'],
    ] as const) {
      const found = inspect({ env: { REGISTRY_HTTP_TLS_CLIENTAUTH: mode } });
      assert.equal(found.config?.http.tls.clientauth, mode.toLowerCase());
      assert.deepEqual(said(found), warning ? [`REGISTRY_HTTP_TLS_CLIENTAUTH: http.tls.clientauth ${warning}`] : []);
    }
    const plain = inspect({
      env: { REGISTRY_HTTP_TLS_CLIENTAUTH: 'request-client-cert', REGISTRY_HTTP_INSECUREPLAINHTTP: 'true' },
    });
    assert.match(said(plain).join(), /insecureplainhttp is set beside http.tls.clientcas or http.tls.clientauth/);
    assert.equal(plain.config, undefined);
  });

  test('logins at a provider: beside the users of the own folder, and with all that they need', () => {
    const oidc = (more: object = {}) =>
      inspect({
        env: {
          REGISTRY_AUTH_OIDC_ISSUER: 'https://login.example.com/realms/main',
          REGISTRY_AUTH_OIDC_CLIENTID: 'registry',
          ...more,
        },
      });
    const { config, problems, warnings } = oidc();
    assert.deepEqual([problems, warnings], [[], []]);
    assert.equal(config!.auth.htpasswd!.path, join(folder, 'dir/auth/htpasswd'));
    assert.deepEqual([config!.auth.oidc!.scopes, config!.auth.oidc!.sessionlife], [['profile'], 3_600_000]);
    for (const [more, problem] of [
      [{ REGISTRY_AUTH_OIDC_ISSUER: 'http://login.example.com' }, /auth.oidc.issuer.*is no URL of https/],
      [{ REGISTRY_AUTH_OIDC_CLIENTID: '' }, /auth.oidc.clientid.*is not set/],
      [{ REGISTRY_AUTH_OIDC_SESSIONLIFE: '48h' }, /auth.oidc.sessionlife.*is not from 1m to 24h/],
      [{ REGISTRY_AUTH: 'none' }, /auth.none.*is set beside auth.oidc/],
    ] as const)
      assert.match(said(oidc(more)).join('\n'), problem);
  });

  test('an outside token server: as Distribution has it, and with algorithms of public keys only', () => {
    const env = {
      REGISTRY_AUTH: 'token',
      REGISTRY_AUTH_TOKEN_REALM: 'https://auth.example.com/token',
      REGISTRY_AUTH_TOKEN_SERVICE: 'registry',
      REGISTRY_AUTH_TOKEN_ISSUER: 'auth',
      REGISTRY_AUTH_TOKEN_ROOTCERTBUNDLE: '/root.crt',
    };
    const { config } = inspect({ env });
    assert.deepEqual(config?.auth.htpasswd, undefined, 'no second way in');
    assert.equal(config?.auth.token?.rootcertbundle, '/root.crt');
    assert.equal(config?.auth.token?.autoredirectpath, '/auth/token');
    assert.ok(config?.auth.token?.signingalgorithms.includes('ES256'));
    const refusals = (more: NodeJS.ProcessEnv) => {
      const found = inspect({ env: { ...env, ...more } });
      assert.equal(found.config, undefined);
      return said(found).join('\n');
    };
    for (const [more, message] of [
      [{ REGISTRY_AUTH_TOKEN_SIGNINGALGORITHMS: '[HS256]' }, /HS256 signs with a secret that both sides share/],
      [{ REGISTRY_AUTH_TOKEN_SIGNINGALGORITHMS: '[none]' }, /"none" is no algorithm that signs tokens/],
      [{ REGISTRY_AUTH_TOKEN_REALM: 'auth.example.com/token' }, /auth.token.realm is no URL of http or https/],
      [{ REGISTRY_AUTH_TOKEN_REALM: '' }, /auth.token.realm is not set/],
      [{ REGISTRY_AUTH_TOKEN_ISSUER: '' }, /auth.token.issuer is not set/],
      [{ REGISTRY_AUTH_TOKEN_ROOTCERTBUNDLE: '' }, /auth.token.rootcertbundle is not set; .* auth.token.jwks/],
      [{ REGISTRY_AUTH_HTPASSWD_PATH: '/htpasswd' }, /auth.token is set beside auth.htpasswd; keep one of them/],
    ] as const)
      assert.match(refusals(more), message);
  });

  for (const [env, message] of refused)
    test(`refuses ${Object.entries(env)[0]!.join('=')}`, () => {
      const found = inspect({ env });
      assert.deepEqual(said(found), [message]);
      assert.equal(found.config, undefined);
    });

  test('refuses by name and place in a file, and says all of it at once', () => {
    const found = inspectFile(`version: 0.1
storage:
  oss:
    bucket: b
auth: silly
http:
  addr: 5000
  tls:
    letsencrypt: {email: a@example.com}
proxy: {remoteurl: "https://example.com"}
`);
    assert.deepEqual(said(found), [
      'config.yml:3:3: storage.oss is not supported; use storage.filesystem, or storage.s3 where it speaks that API',
      'config.yml:5:1: auth.silly is not supported; use auth.htpasswd, or auth.none for an open registry',
      'config.yml:9:5: http.tls.letsencrypt is not supported; remove it, and give http.tls.certificate and http.tls.key, or neither for a certificate of the own authority',
      'config.yml:10:1: proxy is not supported; remove it: pull-through is not served',
      'config.yml:7:3: http.addr "5000" has no colon before the port; write :5000 or 0.0.0.0:5000',
    ]);
  });

  test('warns of the rest', () => {
    const found = inspectFile(
      `http: {debug: {addr: ":5001"}, secret: hunter2}
notifications: {endpoints: [{name: a, url: "http://example.com"}]}
storage: {filesystem: {maxthreads: 200}}
`,
      { env: { REGISTRY_REDIS_ADDR: 'redis:6379', REGISTRY_HEALTH_FILECHECKERS_0_FILE: '/x' } },
    );
    assert.deepEqual(said(found), [
      'config.yml:1:8: http.debug has no effect; remove it',
      'config.yml:1:32: http.secret has no effect; remove it: the state of uploads is kept in the storage, so nothing needs it',
      'config.yml:2:1: notifications has no effect; remove it',
      'config.yml:3:24: storage.filesystem.maxthreads has no effect; remove it',
      'REGISTRY_HEALTH_FILECHECKERS_0_FILE: health.file has no effect; remove it',
      'REGISTRY_REDIS_ADDR: redis has no effect; remove it: nothing needs it',
    ]);
    assert.ok(found.config);
  });

  test('is told all at once, with its place', () => {
    const found = inspectFile('storage: {maintenance: {uploadpurging: {age: 1x, agee: 1h}}}\n');
    assert.deepEqual(said(found).sort(), [
      'config.yml:1:41: storage.maintenance.uploadpurging.age "1x" is not a duration; write a number with a unit (h, m, s, ms), such as 168h, 1h30m or 30s',
      'config.yml:1:50: storage.maintenance.uploadpurging.agee is no known key and is ignored; did you mean storage.maintenance.uploadpurging.age?',
    ]);
  });

  test('is no trouble where it is switched off', () => {
    const found = inspectFile(`proxy: {remoteurl: ""}
redis: {}
http: {h2c: {enabled: false}, tls: {clientcas: [], letsencrypt: {}}, debug: {addr: , prometheus: {enabled: false}}}
health: {file: []}
`);
    assert.deepEqual(said(found), []);
  });

  test('an unknown key is left out, however odd its name', () => {
    for (const name of ['a.b', '"http.addr"', '""', '__proto__', 'constructor', '"a b"', '? [x]\n'])
      assert.match(said(inspectFile(`${name}: 1\n`)).join('|'), /^config\.yml:.*is no known key[^|]*$/, name);
  });

  test('an unknown key warns and is left out', () => {
    const found = inspectFile('http: {adr: ":1", tls: {certficate: /a}}\nfoo: 1\nlogs: {}\n');
    assert.deepEqual(said(found), [
      'config.yml:1:8: http.adr is no known key and is ignored; did you mean http.addr?',
      'config.yml:1:25: http.tls.certficate is no known key and is ignored; did you mean http.tls.certificate?',
      'config.yml:2:1: foo is no known key and is ignored',
      'config.yml:3:1: logs is no known key and is ignored; did you mean log?',
    ]);
    assert.ok(found.config);
  });
});

describe('an open registry', () => {
  test('only by name, with a warning', () => {
    const found = inspect({ env: { REGISTRY_AUTH: 'none' } });
    assert.deepEqual(found.config!.auth, { none: {}, realms: [] });
    assert.deepEqual(said(found), [
      'REGISTRY_AUTH: auth.none leaves the registry open: everybody who reaches it may pull and push',
    ]);
    assert.deepEqual(inspectFile('auth:\n  none:\n').config!.auth, { none: {}, realms: [] });
  });

  test('never by an empty section or variable', () => {
    for (const text of ['auth:\n', 'auth: {}\n', 'auth: ""\n', 'auth: {htpasswd: }\n'])
      assert.ok(inspectFile(text).config!.auth.htpasswd, text);
    for (const name of ['REGISTRY_AUTH', 'REGISTRY_AUTH_NONE', 'REGISTRY_AUTH_HTPASSWD'])
      assert.ok(inspect({ env: { [name]: '' } }).config!.auth.htpasswd, name);
  });

  test('not beside users', () => {
    const found = inspectFile('auth: {none: {}}\n', { env: { REGISTRY_AUTH_HTPASSWD_REALM: 'x' } });
    assert.deepEqual(said(found), [
      'config.yml:1:8: auth.none is set beside auth.htpasswd; keep one of them; REGISTRY_AUTH=htpasswd picks that kind over a file',
    ]);
    assert.ok(inspectFile('auth: {none: {}}\n', { env: { REGISTRY_AUTH: 'htpasswd' } }).config!.auth.htpasswd);
  });
});

describe('bad values', () => {
  const cases: ReadonlyArray<[string, string]> = [
    ['version: 0.2', 'config.yml:1:1: version "0.2" is not known here; write one of: 0.1'],
    ['http: {net: unix}', 'config.yml:1:8: http.net "unix" is not known here; write one of: tcp'],
    [
      'http: {tls: {minimumtls: tls1.0}}',
      'config.yml:1:14: http.tls.minimumtls "tls1.0" is not known here; write one of: tls1.2, tls1.3',
    ],
    [
      'http: {tls: {certificate: /a}}',
      'config.yml:1:14: http.tls.certificate is set, but http.tls.key is not; set both (REGISTRY_HTTP_TLS_CERTIFICATE and REGISTRY_HTTP_TLS_KEY), or neither',
    ],
    [
      'http: {tls: {key: /a}}',
      'config.yml:1:14: http.tls.key is set, but http.tls.certificate is not; set both (REGISTRY_HTTP_TLS_CERTIFICATE and REGISTRY_HTTP_TLS_KEY), or neither',
    ],
    [
      'http: {tls: {ciphersuites: [TLS_RSA_WITH_AES_128_CBC_SHA]}}',
      'config.yml:1:29: http.tls.ciphersuites.0 TLS_RSA_WITH_AES_128_CBC_SHA lacks forward secrecy or authenticated encryption; remove it from the list',
    ],
    ['http: 5000', 'config.yml:1:1: http expects further keys: addr, net, host, '],
    ['http: {addr: [a]}', 'config.yml:1:8: http.addr expects one value, not a list or further keys'],
    ['http: {headers: {"a b": [x]}}', 'config.yml:1:18: http.headers.a b is not a valid name'],
    ['http: {headers: {a: ["x\\r\\ny"]}}', 'config.yml:1:22: http.headers.a.0 is not a valid header value'],
    ['http: {prefix: "a b"}', 'config.yml:1:8: http.prefix "a b" is no path of a URL; write /NAME/'],
    ['http: {host: registry.example.com}', 'config.yml:1:8: http.host is no URL of http or https'],
    ['http: {host: "https://u:hunter2@a"}', 'config.yml:1:8: http.host is no URL of http or https'],
    [
      'log: {accesslog: {disabled: maybe}}',
      'config.yml:1:19: log.accesslog.disabled "maybe" is neither true nor false',
    ],
    ['workers: 0', 'config.yml:1:1: workers "0" is not a whole number from 1 to 64'],
    ['workers: 65', 'config.yml:1:1: workers "65" is not a whole number from 1 to 64'],
    ['tags: {maxtags: many}', 'config.yml:1:8: tags.maxtags "many" is not a whole number'],
    [
      'health: {storagedriver: {interval: 1d}}',
      'config.yml:1:26: health.storagedriver.interval "1d" is not a duration',
    ],
    [
      'validation: {manifests: {urls: {allow: ["("]}}}',
      'config.yml:1:41: validation.manifests.urls.allow.0 "(" is no regular expression of JavaScript',
    ],
    [
      'validation: {manifests: {indexes: {platformlist: [amd64]}}}',
      'config.yml:1:51: validation.manifests.indexes.platformlist.0 expects the keys architecture and os',
    ],
    ['http: {tls: {certificate: /a, key: "-----BEGIN\\nhunter2"}}', 'config.yml:1:31: http.tls.key is not a path'],
  ];
  for (const [text, message] of cases)
    test(text, () => {
      const found = inspectFile(text);
      const all = said({ ...found, warnings: [] });
      assert.equal(all.length, 1, all.join('\n'));
      assert.ok(all[0]!.startsWith(message), all[0]);
      assert.ok(!all[0]!.includes('hunter2'));
    });

  test('a bare duration is read as the original does, with a warning', () => {
    const found = inspectFile('http: {draintimeout: 60}\n');
    assert.deepEqual(said(found), ['config.yml:1:8: http.draintimeout 60 means 60 nanoseconds; write 60s for seconds']);
    assert.equal(found.config!.http.draintimeout, 1);
  });
});

describe('a file that cannot be used', () => {
  for (const [text, message] of [
    ['http:\n\taddr: :1\n', 'config.yml:2:1: a tab indents this line; indent with spaces'],
    ['a: 1\na: 2\n', 'config.yml:2:1: this key stands twice; remove one of them'],
    ['a: "hunter2\n', 'config.yml:2:1: a quote or bracket is not closed; close it'],
    ['http:\n  addr: [::]:443\n', 'config.yml:2:13: this is not valid YAML; check the'],
    ['a: *nope\n', 'config.yml:1:1: the aliases cannot be resolved; write'],
    ['a: &a {b: *a}\n', 'config.yml:1:1: the values are nested too deeply; remove'],
    ['a: 1\n---\nb: 1\n', 'config.yml:2:1: a second document begins; remove'],
    ['just text', 'config.yml:1:1: this is no configuration; write keys'],
    ['- a\n', 'config.yml:1:1: this is no configuration; write keys'],
  ] as const)
    test(JSON.stringify(text), () => {
      const all = said(inspectFile(text));
      assert.equal(all.length, 1);
      assert.ok(all[0]!.startsWith(message), all[0]);
      assert.ok(!all[0]!.includes('hunter2'));
    });

  test('is missing, or a folder', () => {
    assert.match(
      said(inspect({ file: join(folder, 'none.yml') })).join(),
      /^none\.yml: there is no such .*; check the path/,
    );
    mkdirSync(join(folder, 'folder.yml'));
    assert.match(
      said(inspect({ file: join(folder, 'folder.yml') })).join(),
      /is a folder; name the file; docker makes/,
    );
  });
});

test('values in all the forms that mean the same', () => {
  const prefix = (value: string) => inspectFile(`http: {prefix: "${value}"}`).config?.http.prefix;
  assert.deepEqual(['', '/', '/a/b/', '/a/b', 'a', 'a/'].map(prefix), ['', '', '/a/b', '/a/b', '/a', '/a']);
  const { config } = inspectFile('http: {headers: {A: b, C: [d, e]}, tls: {ciphersuites: TLS_AES_128_GCM_SHA256}}');
  assert.deepEqual(config!.http.headers, { A: ['b'], C: ['d', 'e'] });
  assert.deepEqual(config!.http.tls.ciphersuites, ['TLS_AES_128_GCM_SHA256']);
});

test('REGISTRY_CONFIGURATION_PATH names the file, and an argument wins over it', () => {
  writeFileSync(join(folder, 'one.yml'), 'log: {level: debug}');
  writeFileSync(join(folder, 'two.yml'), 'log: {level: error}');
  const env = { REGISTRY_CONFIGURATION_PATH: join(folder, 'one.yml') };
  assert.equal(inspect({ env }).config!.log.level, 'debug');
  assert.equal(inspect({ env, file: join(folder, 'two.yml') }).config!.log.level, 'error');
  assert.equal(inspect({ env: { REGISTRY_CONFIGURATION_PATH: '' } }).file, undefined);
});

test('loadConfig answers the configuration, or throws the first problem and counts the others', () => {
  assert.equal(loadConfig({ dir: folder, env: {}, standardFiles: false }).config.http.addr, '0.0.0.0:5000');
  const load = (env: NodeJS.ProcessEnv) => () => loadConfig({ dir: folder, env, standardFiles: false });
  assert.throws(load({ REGISTRY_HTTP_ADDR: '5000' }), {
    name: 'OperatorError',
    message: 'REGISTRY_HTTP_ADDR: http.addr "5000" has no colon before the port',
    fix: 'write :5000 or 0.0.0.0:5000',
  });
  assert.throws(
    load({ REGISTRY_HTTP_ADDR: '5000', REGISTRY_LOG_LEVEL: 'x' }),
    /and 1 more: see registry-secure config check/,
  );
});
