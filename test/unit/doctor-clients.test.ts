import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, before, beforeEach, test } from 'node:test';
import { type Diagnosis, examine } from '../../src/doctor/check.js';
import { clientChecks } from '../../src/doctor/clients.js';
import { proxyFor, proxySettings } from '../../src/doctor/proxies.js';
import { Registry } from '../../src/doctor/registry.js';
import type { Surroundings } from '../../src/trust/places.js';
import { type Forged, forge } from '../support/forge.js';

const H = 'reg.lan:5000';
const DOCKER = `/etc/docker/certs.d/${H}`;
const PODMAN = `/etc/containers/certs.d/${H}`;
const HOME_PODMAN = `/home/alice/.config/containers/certs.d/${H}`;
const CONTAINERD = `/etc/containerd/certs.d/${H}`;

let machine: Surroundings;
let ca: Forged;
let leaf: Forged;

before(() => {
  ca = forge({ authority: 1, commonName: 'test CA' });
  leaf = forge({ issuer: ca, names: ['reg.lan'] });
});
beforeEach(() => {
  const root = mkdtempSync(join(tmpdir(), 'doctor-clients-'));
  machine = { root, env: { HOME: '/home/alice' }, platform: 'linux' };
});
afterEach(() => rmSync(machine.root, { recursive: true }));

/** Files of the machine; a path that ends in / is a folder. */
function put(files: Readonly<Record<string, string>>): void {
  for (const [path, text] of Object.entries(files)) {
    const place = join(machine.root, path);
    mkdirSync(path.endsWith('/') ? place : dirname(place), { recursive: true });
    if (!path.endsWith('/')) writeFileSync(place, text, { mode: /s?bin\//.test(path) ? 0o755 : 0o600 });
  }
}

/** What is said of the clients, the wrong things only, with the folder of the machine left out. */
async function look(kinds: string[] | undefined, reference = H, all = false): Promise<Diagnosis[]> {
  const registry = new Registry(reference, reference.replace(/:\d+$/, ''), 5000, machine);
  registry.chain = [leaf.certificate];
  registry.speaksTls = true;
  const found = await examine([clientChecks(kinds)], registry);
  return JSON.parse(
    JSON.stringify(found.filter(({ severity }) => all || severity !== 'ok')).replaceAll(machine.root, ''),
  );
}

const hosts = (lines: readonly string[]) => ({
  [`${CONTAINERD}/hosts.toml`]: lines.join('\n'),
  [`${CONTAINERD}/ca.crt`]: ca.pem,
});
const HOSTS = [`server = "https://${H}"`, `[host."https://${H}"]`, `  ca = "${CONTAINERD}/ca.crt"`];

test('each kind of client, set up right: nothing is said', async () => {
  put({
    [`${DOCKER}/ca.crt`]: ca.pem,
    [`${PODMAN}/ca.crt`]: ca.pem,
    [`/home/alice/.config/docker/certs.d/${H}/ca.crt`]: ca.pem,
    ...hosts(HOSTS),
  });
  assert.deepEqual(await look(['docker', 'docker-rootless', 'podman', 'containerd']), []);
  const said = (await look(['docker'], H, true)).map(({ message }) => message);
  assert.ok(
    said.some(message => message === `Docker Engine on Linux trusts the certificate (${DOCKER})`),
    said.join('\n'),
  );
});

test('a bundle of two authorities, and the store of the system, will do', async () => {
  const other = forge({ authority: 1 });
  put({ [`${DOCKER}/ca.crt`]: other.pem + ca.pem });
  assert.deepEqual(await look(['docker']), []);
  rmSync(join(machine.root, 'etc'), { recursive: true });
  put({
    '/etc/ssl/certs/ca-certificates.crt': `${other.pem}-----BEGIN CERTIFICATE-----\nbroken\n-----END CERTIFICATE-----\n${ca.pem}`,
  });
  assert.deepEqual(await look(['docker', 'podman', 'containerd']), []);
});

/** Each: the files, the kind of client, and what is said, by message and by what mends it. */
const CASES: ReadonlyArray<
  readonly [what: string, kind: string, files: () => Record<string, string>, said: RegExp, mends: RegExp]
> = [
  [
    'nothing is there',
    'docker',
    () => ({}),
    /there is no \/etc\/docker\/certs\.d\/reg\.lan:5000\/ca\.crt/,
    /trust install reg\.lan:5000 --client docker --fingerprint/,
  ],
  ['nothing is there for podman', 'podman', () => ({}), /there is no \/etc\/containers\/certs\.d/, /--client podman/],
  [
    'another case',
    'docker',
    () => ({ '/etc/docker/certs.d/Reg.LAN:5000/ca.crt': ca.pem }),
    /Reg\.LAN:5000 is named otherwise/,
    /^sudo mv \/etc\/docker\/certs\.d\/Reg\.LAN:5000 \/etc\/docker\/certs\.d\/reg\.lan:5000$/,
  ],
  [
    'another port',
    'docker',
    () => ({ '/etc/docker/certs.d/reg.lan:5001/ca.crt': ca.pem }),
    /reg\.lan:5001 is named otherwise/,
    /^sudo mv/,
  ],
  [
    'an old authority in a folder of another name',
    'docker',
    () => ({ '/etc/docker/certs.d/reg.lan/ca.crt': forge({ authority: 1 }).pem }),
    /there is no/,
    /trust install/,
  ],
  [
    'another authority',
    'docker',
    () => ({ [`${DOCKER}/ca.crt`]: forge({ authority: 1 }).pem }),
    /another authority, an old one perhaps.*neither sent nor trusted/,
    /trust install/,
  ],
  [
    'no certificate in it',
    'docker',
    () => ({ [`${DOCKER}/ca.crt`]: 'nothing' }),
    /ca\.crt holds no certificate/,
    /put the ca\.crt/,
  ],
  [
    'the end of the name',
    'docker',
    () => ({ [`${DOCKER}/ca.pem`]: ca.pem }),
    /ca\.pem holds a certificate, and is passed over/,
    /^sudo mv \/etc\/docker\/certs\.d\/reg\.lan:5000\/ca\.pem \/etc\/docker\/certs\.d\/reg\.lan:5000\/ca\.crt$/,
  ],
  [
    'what Windows adds',
    'docker',
    () => ({ [`${DOCKER}/ca.crt.txt`]: ca.pem }),
    /ca\.crt\.txt holds a certificate/,
    /ca\.crt$/,
  ],
  [
    'no key',
    'docker',
    () => ({ [`${DOCKER}/ca.crt`]: ca.pem, [`${DOCKER}/client.cert`]: leaf.pem }),
    /client\.cert has no key .*client\.key beside it/,
    /put the key there/,
  ],
  [
    'no certificate',
    'docker',
    () => ({ [`${DOCKER}/ca.crt`]: ca.pem, [`${DOCKER}/client.key`]: leaf.keyPem }),
    /client\.key has no certificate/,
    /put the certificate there/,
  ],
  [
    'an empty folder of the user',
    'podman',
    () => ({ [`${HOME_PODMAN}/`]: '', [`${PODMAN}/ca.crt`]: ca.pem }),
    /looks into \/home\/alice\/\.config.* alone, which comes before \/etc\/containers/,
    /^rm -r \/home\/alice\/\.config\/containers\/certs\.d\/reg\.lan:5000$/,
  ],
  [
    'an old authority of the user',
    'podman',
    () => ({ [`${HOME_PODMAN}/ca.crt`]: forge({ authority: 1 }).pem, [`/etc/docker/certs.d/${H}/ca.crt`]: ca.pem }),
    /comes before \/etc\/docker/,
    /^cp \/etc\/docker\/certs\.d/,
  ],
  [
    'insecure-registries',
    'docker',
    () => ({ [`${DOCKER}/ca.crt`]: ca.pem, '/etc/docker/daemon.json': JSON.stringify({ 'insecure-registries': [H] }) }),
    /lists reg\.lan:5000 under insecure-registries/,
    /^take it out/,
  ],
  [
    'no table of the host',
    'containerd',
    () => hosts([`server = "https://${H}"`, '[host."https://reg.lan"]', `ca = "${CONTAINERD}/ca.crt"`]),
    /has no \[host\."https:\/\/reg\.lan:5000"\], but https:\/\/reg\.lan$/,
    /--client containerd prints it/,
  ],
  [
    'a file that is not there',
    'containerd',
    () => hosts([...HOSTS.slice(0, 2), 'ca = "/nowhere/ca.crt"']),
    /names \/nowhere\/ca\.crt, which holds no certificate/,
    /put the ca\.crt/,
  ],
  [
    'nobody is verified',
    'containerd',
    () => hosts([...HOSTS, 'skip_verify = true']),
    /skip_verify .* makes it trust anybody/,
    /take that line out/,
  ],
  [
    'plain HTTP',
    'containerd',
    () => hosts([`server = "http://${H}"`, ...HOSTS.slice(1)]),
    /server = "http:.*plain HTTP/,
    /server = "https:/,
  ],
  [
    'no config_path',
    'containerd',
    () => ({ ...hosts(HOSTS), '/etc/containerd/config.toml': 'version = 2\n#config_path = "x"\nconfig_path = ""\n' }),
    /config\.toml has no config_path/,
    /restart containerd/,
  ],
];

for (const [what, kind, files, said, mends] of CASES)
  test(`${kind}: ${what}`, async () => {
    put(files());
    const found = await look([kind]);
    const finding = found.find(({ message }) => said.test(message));
    assert.ok(finding, JSON.stringify(found, undefined, 2));
    assert.match([finding.fix, ...(finding.commands ?? [])].join('\n').trim(), mends);
  });

test('containerd: lists, single quotes, a path beside the file, and no hosts.toml at all', async () => {
  for (const line of [`ca = ["/etc/none.crt", "${CONTAINERD}/ca.crt"] # two`, "ca = 'ca.crt'"]) {
    put({
      ...hosts([`server = "https://${H}"`, `[host.'https://${H}']`, line]),
      '/etc/none.crt': forge({ authority: 1 }).pem,
    });
    assert.deepEqual(await look(['containerd']), [], line);
  }
  rmSync(join(machine.root, CONTAINERD, 'hosts.toml'));
  assert.deepEqual(await look(['containerd']), []);
});

test('without the port that everybody leaves out: reg.lan and reg.lan:443', async () => {
  put({ '/etc/docker/certs.d/reg.lan:443/ca.crt': ca.pem });
  const [finding] = await look(['docker'], 'reg.lan');
  assert.deepEqual(finding?.commands, ['sudo mv /etc/docker/certs.d/reg.lan:443 /etc/docker/certs.d/reg.lan']);
});

test('an authority that came after dockerd started: builds want a restart', async () => {
  put({ [`${DOCKER}/ca.crt`]: ca.pem, '/run/docker.pid': `${process.pid}\n` });
  utimesSync(join(machine.root, DOCKER, 'ca.crt'), new Date(), new Date());
  const [finding] = await look(['docker']);
  assert.match(finding?.message ?? '', /builds with FROM reg\.lan:5000 fail until dockerd has been restarted/);
  assert.deepEqual(finding?.commands, ['sudo systemctl restart docker']);
});

test('of the clients that are there, those that nobody set up count only where none is', async () => {
  put({ '/usr/sbin/dockerd': '', '/usr/bin/podman': '', '/usr/bin/containerd': '' });
  const titles = (found: Diagnosis[]) => found.map(({ message }) => message.split(/:| (?:looks|has)/)[0]);
  assert.deepEqual(titles(await look(undefined)), ['Docker Engine on Linux', 'Podman, Buildah, Skopeo, CRI-O']);
  put({ [`${PODMAN}/ca.crt`]: ca.pem });
  assert.deepEqual(await look(undefined), []);
  assert.deepEqual(titles(await look(['docker'])), ['Docker Engine on Linux']);
});

test('proxies: where requests go, as Go reads the variables', () => {
  const proxy = 'http://proxy:3128';
  const goes = (none: string | undefined, name: string, port = 5000) =>
    proxyFor({ proxy, none }, name, port) !== undefined;
  for (const [none, name] of [
    ['', '127.0.0.1'],
    ['', 'localhost'],
    ['', '::1'],
    ['*', 'reg.lan'],
    ['a.lan, reg.lan', 'reg.lan'],
    ['lan', 'reg.lan'],
    ['.lan', 'reg.lan'],
    ['*.lan', 'reg.lan'],
    ['REG.lan', 'reg.lan'],
    ['reg.lan:5000', 'reg.lan'],
    ['192.168.0.12', '192.168.0.12'],
    ['192.168.0.0/16', '192.168.0.12'],
    ['fd00::/8', 'fd00::1'],
    ['[fd00::1]:5000', 'fd00::1'],
    ['fd00::1', 'fd00::1'],
  ] as const)
    assert.ok(!goes(none, name), `${none}: ${name} goes straight`);
  for (const [none, name] of [
    [undefined, 'reg.lan'],
    ['reg.lan:443', 'reg.lan'],
    ['.reg.lan', 'reg.lan'],
    ['eg.lan', 'reg.lan'],
    ['192.168.1.0/24', '192.168.0.12'],
    ['192.168.*', '192.168.0.12'],
  ] as const)
    assert.ok(goes(none, name), `${none}: ${name} goes through the proxy`);
  assert.equal(proxyFor({ proxy: undefined, none: undefined }, 'reg.lan', 1), undefined);
});

test('proxies of this shell, of daemon.json and of the service', () => {
  machine = { ...machine, env: { https_proxy: 'http://shell', NO_PROXY: 'a' } };
  put({
    '/etc/docker/daemon.json': JSON.stringify({ proxies: { 'https-proxy': 'http://json', 'no-proxy': 'b' } }),
    '/etc/systemd/system/docker.service.d/proxy.conf':
      '[Service]\nEnvironment="HTTPS_PROXY=http://service" NO_PROXY=c,d\n',
  });
  const seen = proxySettings(machine).map(({ proxy, none, isDaemon }) => [proxy, none, isDaemon]);
  assert.deepEqual(seen, [
    ['http://shell', 'a', false],
    ['http://json', 'b', true],
    ['http://service', 'c,d', true],
  ]);
  put({ '/etc/docker/daemon.json': '{' });
  assert.match(proxySettings(machine)[1]?.problem ?? '', /no JSON/);
});
