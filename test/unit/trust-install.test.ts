import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, beforeEach, test } from 'node:test';
import { OperatorError } from '../../src/errors.js';
import { fetchAuthorities } from '../../src/trust/fetch.js';
import { chosenClients, clientsToLeave, install, remove } from '../../src/trust/install.js';
import { filesOf, isPresent, locate, type Surroundings } from '../../src/trust/places.js';
import { TRUST_CLIENTS } from '../../src/trust/table.js';
import { selfSigned } from '../support/pair.js';

const HOST = 'reg.lan:5000';
const [first, second] = [selfSigned().certificate, selfSigned().certificate];
const fingerprint = (pem: string) => new X509Certificate(pem).fingerprint256.replaceAll(':', '').toLowerCase();
const pair = { certificate: Buffer.from('the certificate'), key: Buffer.from('the key') };

let base: string;
let root: string;
let machine: Surroundings;
before(() => {
  base = mkdtempSync(join(tmpdir(), 'trust-install-'));
});
after(() => rmSync(base, { recursive: true }));
beforeEach(() => {
  root = mkdtempSync(join(base, 'root-'));
  machine = { root, platform: 'linux', env: { HOME: '/home/alice', XDG_RUNTIME_DIR: '/run/user/1000' } };
});

function put(path: string, content = '', mode = 0o644): string {
  const file = join(root, path);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, content, { mode });
  return file;
}
const read = (path: string) => readFileSync(join(root, path), 'utf8');
const isThere = (path: string) => existsSync(join(root, path));

async function installed(clients: string[], pem = first, more: { pair?: typeof pair; dryRun?: boolean } = {}) {
  return install(chosenClients({ clients, machine }), { host: HOST, pem, machine, dryRun: false, ...more });
}
async function removed(
  more: { clients?: string[]; fingerprints?: string[]; withPair?: boolean; dryRun?: boolean } = {},
) {
  const { clients, ...rest } = more;
  const wish = { host: HOST, fingerprints: [], withPair: false, machine, dryRun: false, ...rest };
  return remove(clientsToLeave({ clients, machine }), wish);
}
const actions = (reports: Awaited<ReturnType<typeof install>>) =>
  reports.flatMap(({ changes }) => changes.map(({ action }) => action));

/** What makes each client count as present, and what of another one does not. */
const SIGNS: Record<string, { put: string; executable?: true }> = {
  docker: { put: 'usr/bin/dockerd', executable: true },
  'docker-rootless': { put: 'run/user/1000/docker.sock' },
  podman: { put: 'usr/bin/skopeo', executable: true },
  containerd: { put: 'usr/local/bin/containerd', executable: true },
  'containerd-rootless': { put: 'home/alice/.config/systemd/user/containerd.service' },
  k3s: { put: 'usr/local/bin/k3s', executable: true },
  rke2: { put: 'etc/rancher/rke2/config.yaml' },
  minikube: { put: 'home/alice/.minikube/config/config.json' },
  buildkit: { put: 'usr/bin/buildkitd', executable: true },
  colima: { put: 'home/alice/.colima/default/colima.yaml' },
  'rancher-desktop': { put: 'home/alice/.rd/bin/rdctl' },
};

test('each client is seen by its commands, sockets and folders, and no other for them', () => {
  for (const [name, sign] of Object.entries(SIGNS)) {
    rmSync(root, { recursive: true });
    assert.deepEqual(chosenClients({ machine }), []);
    put(sign.put, '', sign.executable ? 0o755 : 0o644);
    assert.deepEqual(
      chosenClients({ machine }).map(client => client.name),
      [name],
    );
  }
  // Not executable, so it is none.
  put('usr/bin/dockerd', '', 0o644);
  assert.ok(!chosenClients({ machine }).some(client => client.name === 'docker'));
});

test('stores of the whole machine are worked on only when they are chosen', () => {
  put('usr/sbin/update-ca-certificates', '', 0o755);
  mkdirSync(join(root, 'usr/share/ca-certificates'), { recursive: true });
  const debian = TRUST_CLIENTS.find(client => client.name === 'system-debian')!;
  assert.ok(isPresent(debian, machine));
  assert.deepEqual(chosenClients({ machine }), []);
  assert.deepEqual(
    chosenClients({ all: true, machine }).map(client => client.name),
    ['system-debian'],
  );
});

test('clients that a person has to set up, of another system or unsafe are refused by name', () => {
  for (const name of ['insecure-registry', 'helm', 'kubernetes', 'podman-machine', 'docker-desktop-macos', 'nothing'])
    assert.throws(() => chosenClients({ clients: [name], machine }), OperatorError, name);
  const windows = chosenClients({ clients: ['docker-windows'], machine: { ...machine, platform: 'win32' } });
  assert.equal(windows.length, 1);
  assert.equal(
    locate('$env:ProgramData\\docker', { root: '/', platform: 'win32', env: { ProgramData: 'C:\\ProgramData' } }),
    'C:\\ProgramData\\docker',
  );
});

test('a place follows the variables of the user', () => {
  const config = `\${XDG_CONFIG_HOME:-$HOME/.config}/docker`;
  assert.equal(locate(config, machine), join(root, 'home/alice/.config/docker'));
  assert.equal(locate(config, { ...machine, env: { XDG_CONFIG_HOME: '/cfg' } }), join(root, 'cfg/docker'));
  assert.equal(locate('$HOME/.rd', { ...machine, env: {} }), undefined);
});

const ALL = ['docker', 'docker-rootless', 'podman', 'containerd', 'k3s', 'rke2', 'buildkit', 'colima', 'minikube'];

test('files come to their places, and a second run changes nothing', async () => {
  const reports = await installed(ALL, first, { pair });
  assert.deepEqual(
    reports.filter(({ problem }) => problem),
    [],
  );
  assert.ok(actions(reports).every(action => action === 'created'));
  for (const folder of [
    'etc/docker',
    'home/alice/.config/docker',
    'etc/containers',
    'etc/containerd',
    'etc/rancher/k3s',
  ]) {
    assert.equal(read(`${folder}/certs.d/${HOST}/ca.crt`), first);
    assert.equal(read(`${folder}/certs.d/${HOST}/client.cert`), 'the certificate');
    assert.equal(statSync(join(root, folder, 'certs.d', HOST, 'client.key')).mode & 0o777, 0o600);
    assert.equal(statSync(join(root, folder, 'certs.d', HOST, 'ca.crt')).mode & 0o777, 0o644);
  }
  assert.match(
    read(`etc/containerd/certs.d/${HOST}/hosts.toml`),
    /ca = "\/etc\/containerd\/certs\.d\/reg\.lan:5000\/ca\.crt"/,
  );
  const again = await installed(ALL, first, { pair });
  assert.ok(actions(again).every(action => action === 'unchanged'));
  assert.ok(again.every(({ restart, commands }) => restart === undefined && commands.length === 0));
  // No draft is left anywhere.
  const files = readdirSync(root, { recursive: true, encoding: 'utf8' });
  assert.deepEqual(
    files.filter(file => file.endsWith('.new')),
    [],
  );
});

test('another authority takes the place of the old one; what has to be restarted is said', async () => {
  await installed(['docker', 'k3s']);
  const reports = await installed(['docker', 'k3s'], second);
  assert.deepEqual(actions(reports), ['updated', 'updated', 'unchanged']);
  assert.match(reports[0]!.restart!, /systemctl restart docker/);
  assert.equal(read(`etc/docker/certs.d/${HOST}/ca.crt`), second);
});

test('a dry run says the same and touches nothing', async () => {
  const reports = await installed(ALL, first, { pair, dryRun: true });
  assert.ok(actions(reports).every(action => action === 'created'));
  assert.deepEqual(readdirSync(root), []);
});

test("registries.yaml keeps what others have in it, comments as well, and gives up only the registry's own part", async () => {
  const before = `# ours
mirrors:
  docker.io:
    endpoint:
      - https://mirror.lan # near
configs:
  mirror.lan:
    auth:
      username: alice
`;
  const file = put('etc/rancher/k3s/registries.yaml', before, 0o600);
  await installed(['k3s']);
  const merged = readFileSync(file, 'utf8');
  assert.match(merged, /^# ours\nmirrors:\n {2}docker\.io:\n {4}endpoint:\n {6}- https:\/\/mirror\.lan # near$/m);
  assert.match(merged, /^ {2}reg\.lan:5000:\n {4}endpoint:\n {6}- https:\/\/reg\.lan:5000$/m);
  assert.match(
    merged,
    /^ {2}reg\.lan:5000:\n {4}tls:\n {6}ca_file: \/etc\/rancher\/k3s\/certs\.d\/reg\.lan:5000\/ca\.crt$/m,
  );
  assert.equal(statSync(file).mode & 0o777, 0o600);
  await removed();
  assert.equal(readFileSync(file, 'utf8'), before);
  assert.ok(!isThere('etc/rancher/k3s/certs.d/reg.lan:5000'));
});

test('a password that stands there for the registry stays when the authority goes', async () => {
  const before = `configs:
  ${HOST}:
    auth:
      username: alice
`;
  put('etc/rancher/rke2/registries.yaml', before);
  await installed(['rke2']);
  assert.match(read('etc/rancher/rke2/registries.yaml'), /ca_file/);
  await removed();
  assert.equal(read('etc/rancher/rke2/registries.yaml'), before);
});

test('a file of settings that cannot be understood is left alone, and the other clients are done', async () => {
  const broken = put('etc/rancher/k3s/registries.yaml', 'mirrors: [\n');
  const table = put('etc/buildkit/buildkitd.toml', `[registry."${HOST}"]\n  http = true\n`);
  const reports = await installed(['k3s', 'buildkit', 'docker']);
  assert.match(reports[0]!.problem!, /registries\.yaml: it is no YAML map/);
  assert.match(
    reports[1]!.problem!,
    /buildkitd\.toml: it has a table \[registry\."reg\.lan:5000"\] already; put this there: {3}ca = /,
  );
  assert.equal(reports[2]!.problem, undefined);
  assert.deepEqual([readFileSync(broken, 'utf8'), readFileSync(table, 'utf8').length], ['mirrors: [\n', 40]);
  put('etc/rancher/k3s/registries.yaml', 'mirrors: none\n');
  assert.match((await installed(['k3s']))[0]!.problem!, /mirrors in it is no map/);
});

test('buildkitd.toml gets a block of its own, behind what it has, and gives it back', async () => {
  const before = 'debug = true\n\n[worker.oci]\n  enabled = true';
  put('etc/buildkit/buildkitd.toml', before);
  await installed(['buildkit']);
  assert.ok(
    read('etc/buildkit/buildkitd.toml').startsWith(`${before}\n# registry-secure: ${HOST}\n[registry."${HOST}"]\n`),
  );
  await installed(['buildkit'], first, { pair });
  const text = read('etc/buildkit/buildkitd.toml');
  assert.equal(text.match(/^\[registry\./gm)!.length, 1);
  assert.match(text, /\[\[registry\."reg\.lan:5000"\.keypair\]\]/);
  await removed({ withPair: true });
  assert.equal(read('etc/buildkit/buildkitd.toml'), `${before}\n`);
});

test('what was installed goes again, folders as well; a second time there is nothing to do', async () => {
  await installed(ALL, first, { pair });
  const dry = await removed({ withPair: true, dryRun: true });
  assert.ok(actions(dry).every(action => action === 'removed'));
  assert.ok(isThere(`etc/docker/certs.d/${HOST}/ca.crt`));
  await removed({ withPair: true });
  const left = readdirSync(root, { recursive: true, encoding: 'utf8', withFileTypes: true }).filter(entry =>
    entry.isFile(),
  );
  assert.deepEqual(left, []);
  assert.deepEqual(readdirSync(join(root, 'etc/docker/certs.d')), []);
  assert.deepEqual(readdirSync(join(root, 'etc/containers/certs.d')), []);
  assert.deepEqual(await removed({ withPair: true }), []);
});

test('what others have put there stays', async () => {
  await installed(['docker', 'containerd', 'podman'], first, { pair });
  put(`etc/docker/certs.d/${HOST}/other.crt`, second);
  put(`etc/containerd/certs.d/${HOST}/hosts.toml`, 'server = "https://mirror.lan"\n');
  put(`etc/docker/certs.d/elsewhere.lan/ca.crt`, first);
  put(`etc/containers/certs.d/${HOST}/ca.crt`, first + second);
  const reports = await removed({ fingerprints: [fingerprint(first)] });
  const kept = reports.flatMap(({ changes }) =>
    changes.filter(({ action }) => action === 'kept').map(({ path }) => path),
  );
  assert.ok(kept.includes(join(root, `etc/containerd/certs.d/${HOST}/hosts.toml`)));
  assert.ok(kept.includes(join(root, `etc/containers/certs.d/${HOST}/ca.crt`)));
  assert.ok(kept.includes(join(root, `etc/docker/certs.d/${HOST}/client.key`)));
  assert.ok(!isThere(`etc/docker/certs.d/${HOST}/ca.crt`));
  for (const path of [`etc/docker/certs.d/${HOST}/other.crt`, 'etc/docker/certs.d/elsewhere.lan/ca.crt'])
    assert.ok(isThere(path), path);
});

test('a folder that is empty goes too: podman would stop at it', async () => {
  mkdirSync(join(root, `etc/containers/certs.d/${HOST}`), { recursive: true });
  await removed();
  assert.ok(!isThere(`etc/containers/certs.d/${HOST}`));
});

test('in a store each authority has a file of its own, which goes with the folders that say whose it is', async () => {
  await installed(['docker', 'system-debian'], first + second);
  const store = 'usr/local/share/ca-certificates';
  assert.deepEqual(
    readdirSync(join(root, store)).sort(),
    [first, second].map(pem => `registry-secure-${fingerprint(pem).slice(0, 16)}.crt`).sort(),
  );
  for (const file of readdirSync(join(root, store)))
    assert.equal(readFileSync(join(root, store, file), 'utf8').split('BEGIN').length, 2);
  put(`${store}/registry-secure-0123456789abcdef.crt`, first);
  const reports = await removed();
  const debian = reports.find(({ client }) => client === 'system-debian')!;
  assert.deepEqual(debian.changes.map(({ action }) => action).sort(), ['kept', 'removed', 'removed']);
  // In another root the command is named, and not run on this machine.
  assert.deepEqual(debian.commands, [{ command: 'sudo update-ca-certificates', ran: false }]);
  assert.deepEqual(readdirSync(join(root, store)), ['registry-secure-0123456789abcdef.crt']);
  // The store itself stays, also when it is empty.
  rmSync(join(root, store, 'registry-secure-0123456789abcdef.crt'));
  await installed(['docker', 'system-debian']);
  await removed();
  assert.deepEqual(readdirSync(join(root, store)), []);
});

test('a place that cannot be written is a problem of that client only', async () => {
  put('etc/docker', 'a file where the folder should be');
  const reports = await installed(['docker', 'podman']);
  assert.match(reports[0]!.problem!, /etc\/docker/);
  assert.equal(reports[1]!.problem, undefined);
  assert.ok(isThere(`etc/containers/certs.d/${HOST}/ca.crt`));
});

test('a link to settings stays a link; one at the place of the authority is replaced, and what it led to stays', async () => {
  const real = put('srv/registries.yaml', 'mirrors: {}\n');
  mkdirSync(join(root, 'etc/rancher/k3s'), { recursive: true });
  symlinkSync(real, join(root, 'etc/rancher/k3s/registries.yaml'));
  const elsewhere = put('srv/old.crt', second);
  mkdirSync(join(root, `etc/docker/certs.d/${HOST}`), { recursive: true });
  symlinkSync(elsewhere, join(root, `etc/docker/certs.d/${HOST}/ca.crt`));
  await installed(['k3s', 'docker']);
  assert.match(readFileSync(real, 'utf8'), /ca_file/);
  assert.equal(readFileSync(elsewhere, 'utf8'), second);
  assert.equal(read(`etc/docker/certs.d/${HOST}/ca.crt`), first);
});

test('a server that says nothing is not waited for without an end', async t => {
  const silent = createServer(() => undefined);
  await new Promise<void>(resolve => silent.listen(0, '127.0.0.1', resolve));
  t.after(() => silent.close());
  const host = `127.0.0.1:${(silent.address() as AddressInfo).port}`;
  await assert.rejects(fetchAuthorities(host, undefined, 100), /does not answer within .* s/);
});

test('no step of the table is a file in the working directory of whoever installs', () => {
  for (const client of clientsToLeave({ machine }))
    for (const { place } of filesOf(client, HOST)) assert.match(place, /^(\/|\$)/, client.name);
});
