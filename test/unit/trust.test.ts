import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { parseAllDocuments } from 'yaml';
import { OperatorError } from '../../src/errors.js';
import { renderTrust, type TrustOptions, trustInstructions } from '../../src/trust/instructions.js';
import { filesOf } from '../../src/trust/places.js';
import { TRUST_CLIENTS, USUAL_CLIENTS } from '../../src/trust/table.js';
import { CHECKOUT } from '../support/checkout.js';
import { selfSigned } from '../support/pair.js';

const [first, second] = [selfSigned().certificate, selfSigned().certificate];
const id = (pem: string) =>
  `registry-secure-${createHash('sha256')
    .update(Buffer.from(pem.replaceAll(/-----[^-]+-----|\s/g, ''), 'base64'))
    .digest('hex')
    .slice(0, 16)}`;
const [FIRST, SECOND] = [id(first), id(second)];

const make = (client: string, options: Partial<TrustOptions> = {}) =>
  trustInstructions({ host: '192.168.0.12:5000', caFile: 'ca.crt', pem: first, clients: [client], ...options })
    .clients[0]!;
const commands = (client: string, host = '192.168.0.12:5000', caFile = 'ca.crt') =>
  make(client, { host, caFile }).commands;

/** What the vendors document, word by word, for the registry 192.168.0.12:5000. Each client of the table has its row. */
const REFERENCE: Record<string, readonly string[]> = {
  docker: ['sudo install -Dm644 ca.crt /etc/docker/certs.d/192.168.0.12:5000/ca.crt'],
  'docker-rootless': [
    `install -Dm644 ca.crt "\${XDG_CONFIG_HOME:-$HOME/.config}"/docker/certs.d/192.168.0.12:5000/ca.crt`,
  ],
  'docker-desktop-macos': [
    'sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain ca.crt',
  ],
  'docker-desktop-macos-user': [
    'security add-trusted-cert -d -r trustRoot -k ~/Library/Keychains/login.keychain ca.crt',
  ],
  'docker-desktop-macos-folder': [
    'mkdir -p "$HOME"/.docker/certs.d/192.168.0.12:5000',
    'install -m644 ca.crt "$HOME"/.docker/certs.d/192.168.0.12:5000/ca.crt',
  ],
  'docker-desktop-windows': ['certutil -addstore -f ROOT ca.crt'],
  'docker-windows': [
    'New-Item -ItemType Directory -Force "$env:ProgramData\\docker\\certs.d\\192.168.0.125000" | Out-Null',
    'Get-Content ca.crt | Set-Content -LiteralPath "$env:ProgramData\\docker\\certs.d\\192.168.0.125000\\ca.crt"',
  ],
  colima: [
    'mkdir -p "$HOME"/.docker/certs.d/192.168.0.12:5000',
    'install -m644 ca.crt "$HOME"/.docker/certs.d/192.168.0.12:5000/ca.crt',
  ],
  'rancher-desktop': [
    'mkdir -p "$HOME"/.docker/certs.d/192.168.0.12:5000',
    'install -m644 ca.crt "$HOME"/.docker/certs.d/192.168.0.12:5000/ca.crt',
  ],
  podman: ['sudo install -Dm644 ca.crt /etc/containers/certs.d/192.168.0.12:5000/ca.crt'],
  'podman-user': ['install -Dm644 ca.crt "$HOME"/.config/containers/certs.d/192.168.0.12:5000/ca.crt'],
  'podman-machine': [
    "podman machine ssh sudo install -Dm644 /dev/stdin '/etc/containers/certs.d/192.168.0.12:5000/ca.crt' <ca.crt",
  ],
  containerd: [
    'sudo install -Dm644 ca.crt /etc/containerd/certs.d/192.168.0.12:5000/ca.crt',
    `sudo tee /etc/containerd/certs.d/192.168.0.12:5000/hosts.toml >/dev/null <<'EOF'
server = "https://192.168.0.12:5000"

[host."https://192.168.0.12:5000"]
  capabilities = ["pull", "resolve", "push"]
  ca = "/etc/containerd/certs.d/192.168.0.12:5000/ca.crt"
EOF`,
  ],
  'containerd-rootless': [
    `install -Dm644 ca.crt "\${XDG_CONFIG_HOME:-$HOME/.config}"/containerd/certs.d/192.168.0.12:5000/ca.crt`,
  ],
  k3s: rancher('k3s'),
  rke2: rancher('rke2'),
  kind: [
    'mkdir -p certs.d/192.168.0.12:5000',
    'install -m644 ca.crt certs.d/192.168.0.12:5000/ca.crt',
    `tee certs.d/192.168.0.12:5000/hosts.toml >/dev/null <<'EOF'
server = "https://192.168.0.12:5000"

[host."https://192.168.0.12:5000"]
  capabilities = ["pull", "resolve", "push"]
  ca = "/etc/containerd/certs.d/192.168.0.12:5000/ca.crt"
EOF`,
    `tee kind.yaml >/dev/null <<'EOF'
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
containerdConfigPatches:
  - |
    [plugins."io.containerd.grpc.v1.cri".registry]
      config_path = "/etc/containerd/certs.d"
nodes:
  - role: control-plane
    extraMounts:
      - hostPath: certs.d
        containerPath: /etc/containerd/certs.d
EOF`,
    'kind create cluster --config kind.yaml',
  ],
  minikube: ['mkdir -p "$HOME"/.minikube/certs', `install -m644 ca.crt "$HOME"/.minikube/certs/${FIRST}.pem`],
  'kubernetes-credentials': [
    "kubectl create secret docker-registry regcred '--docker-server=192.168.0.12:5000' --docker-username=USER --docker-password=PASSWORD",
    `kubectl patch sa default -p '{"imagePullSecrets":[{"name":"regcred"}]}'`,
  ],
  buildkit: [
    'sudo install -Dm644 ca.crt /etc/buildkit/certs.d/192.168.0.12:5000/ca.crt',
    'sudo mkdir -p /etc/buildkit',
    `sudo tee -a /etc/buildkit/buildkitd.toml >/dev/null <<'EOF'
# registry-secure: 192.168.0.12:5000
[registry."192.168.0.12:5000"]
  ca = ["/etc/buildkit/certs.d/192.168.0.12:5000/ca.crt"]
# registry-secure: end of 192.168.0.12:5000
EOF`,
  ],
  kaniko: [
    'docker run --rm -v "$PWD":/workspace -v "$(realpath ca.crt)":/ca.crt:ro gcr.io/kaniko-project/executor ' +
      "--context dir:///workspace --destination '192.168.0.12:5000/NAME:TAG' '--registry-certificate=192.168.0.12:5000=/ca.crt'",
  ],
  helm: ['helm registry login 192.168.0.12:5000 --ca-file ca.crt'],
  oras: ['oras login 192.168.0.12:5000 --ca-file ca.crt'],
  crane: ['SSL_CERT_FILE=ca.crt crane auth login 192.168.0.12:5000 -u USER'],
  cosign: ['cosign tree 192.168.0.12:5000/NAME:TAG --registry-cacert ca.crt'],
  'system-debian': [
    `sudo install -Dm644 ca.crt /usr/local/share/ca-certificates/${FIRST}.crt`,
    'sudo update-ca-certificates',
  ],
  'system-rhel': [
    `sudo install -Dm644 ca.crt /etc/pki/ca-trust/source/anchors/${FIRST}.crt`,
    'sudo update-ca-trust extract',
  ],
  'system-suse': [
    `sudo install -Dm644 ca.crt /usr/share/pki/trust/anchors/${FIRST}.crt`,
    'sudo update-ca-certificates',
  ],
  'system-arch': ['sudo trust anchor --store ca.crt'],
  firefox: [
    `for profile in ~/.mozilla/firefox/*/; do if [ -e "$profile/cert9.db" ]; then certutil -A -d sql:"$profile" -t C,, -n ${FIRST} -i ca.crt; fi; done`,
  ],
  java: [
    `sudo keytool -importcert -noprompt -keystore "$JAVA_HOME"/lib/security/cacerts -storepass changeit -alias ${FIRST} -file ca.crt`,
  ],
  'insecure-registry': [
    'sudo mkdir -p /etc/docker',
    `sudo sh -Cc 'cat >"$0"' /etc/docker/daemon.json <<'EOF'\n{ "insecure-registries": ["192.168.0.12:5000"] }\nEOF`,
  ],
  'insecure-boot2docker': [
    `docker-machine ssh default "echo 'EXTRA_ARGS=\\"--insecure-registry 192.168.0.12:5000\\"' | sudo tee -a /var/lib/boot2docker/profile"`,
  ],
};

function rancher(name: string): string[] {
  return [
    `sudo install -Dm644 ca.crt /etc/rancher/${name}/certs.d/192.168.0.12:5000/ca.crt`,
    `sudo mkdir -p /etc/rancher/${name}`,
    `sudo sh -Cc 'cat >"$0"' /etc/rancher/${name}/registries.yaml <<'EOF'
mirrors:
  192.168.0.12:5000:
    endpoint:
      - https://192.168.0.12:5000
configs:
  192.168.0.12:5000:
    tls:
      ca_file: /etc/rancher/${name}/certs.d/192.168.0.12:5000/ca.crt
EOF`,
  ];
}

test('each client gets the commands that its makers document, word by word', () => {
  for (const [client, expected] of Object.entries(REFERENCE)) assert.deepEqual(commands(client), expected, client);
  // The manifest has a test of its own.
  assert.deepEqual(TRUST_CLIENTS.map(({ name }) => name).sort(), [...Object.keys(REFERENCE), 'kubernetes'].sort());
  assert.deepEqual(commands('docker', '192.168.0.12'), [
    'sudo install -Dm644 ca.crt /etc/docker/certs.d/192.168.0.12/ca.crt',
  ]);
});

/** The same where the registry asks for a client certificate: what is there besides. */
const WITH_PAIR: Record<string, readonly RegExp[]> = {
  docker: [/install -Dm644 a\.crt \/etc\/docker\/\S+\/client\.cert$/m, /install -Dm600 a\.key \S+\/client\.key$/m],
  podman: [/-Dm644 a\.crt \/etc\/containers\/\S+\/client\.cert$/m, /-Dm600 a\.key \S+\/client\.key$/m],
  containerd: [/^ {2}client = \[\["\/etc\/containerd\/\S+\/client\.cert", "\/etc\/containerd\/\S+\/client\.key"\]\]$/m],
  k3s: [/cert_file: \/etc\/rancher\/k3s\/\S+\/client\.cert\n {6}key_file: \S+\/client\.key$/m],
  rke2: [/cert_file: \/etc\/rancher\/rke2\/\S+\/client\.cert\n {6}key_file: \S+\/client\.key$/m],
  buildkit: [
    /\[\[registry\."192\.168\.0\.12:5000"\.keypair\]\]\n {4}key = "\S+\/client\.key"\n {4}cert = "\S+\/client\.cert"/,
  ],
  kaniko: [/'--registry-client-cert=192\.168\.0\.12:5000=\/client\.crt,\/client\.key'/],
  helm: [/--ca-file ca\.crt --cert-file a\.crt --key-file a\.key$/],
  oras: [/--cert-file a\.crt --key-file a\.key$/],
  cosign: [/--registry-client-cert a\.crt --registry-client-key a\.key$/],
  kind: [/client = \[\[/, /certs\.d\/192\.168\.0\.12:5000\/client\.key$/m],
  'podman-machine': [/install -Dm600 \/dev\/stdin '\S+\/client\.key' <a\.key/],
  'docker-windows': [/client\.key"$/m],
  kubernetes: [
    /create secret generic trust-192-168-0-12-5000 --from-file=client\.cert=a\.crt --from-file=client\.key=a\.key/,
  ],
};

test('with a client certificate each client that can use one gets it, keys readable by their owner only', () => {
  const pair = { certificate: 'a.crt', key: 'a.key' };
  for (const [client, patterns] of Object.entries(WITH_PAIR))
    for (const pattern of patterns) assert.match(make(client, { pair }).commands.join('\n'), pattern, client);
  assert.match(make('crane', { pair }).notes.join('\n'), /no option for a client certificate/);
});

test('every client says what to restart, and takes back all that it has done', () => {
  for (const { name } of TRUST_CLIENTS) {
    const { commands, undo, restart, system } = make(name);
    assert.match(restart, /restart|start/i, name);
    // Tools that are told with each use leave nothing behind.
    if (!['kaniko', 'crane', 'cosign'].includes(name)) assert.ok(undo.length > 0, name);
    assert.ok(commands.length > 0 && ['linux', 'unix', 'macos', 'windows'].includes(system), name);
  }
});

test('undo removes a folder only where it is the own one of the registry', () => {
  assert.deepEqual(make('system-debian').undo, [
    `sudo rm -f /usr/local/share/ca-certificates/${FIRST}.crt`,
    'sudo update-ca-certificates',
  ]);
  assert.deepEqual(make('docker').undo, [
    'sudo rm -f /etc/docker/certs.d/192.168.0.12:5000/ca.crt',
    'sudo rmdir --ignore-fail-on-non-empty /etc/docker/certs.d/192.168.0.12:5000',
  ]);
  assert.deepEqual(make('minikube').undo, [`rm -f "$HOME"/.minikube/certs/${FIRST}.pem`]);
});

test('what gives security up is shown only when it is asked for by name, with what it gives up', () => {
  const { clients } = trustInstructions({ host: 'reg.lan', caFile: 'ca.crt', pem: first });
  assert.deepEqual(
    clients.map(({ client }) => client),
    USUAL_CLIENTS.map(({ name }) => name),
  );
  assert.ok(!JSON.stringify(clients).includes('insecure'));
  for (const name of ['insecure-registry', 'insecure-boot2docker'])
    assert.match(make(name).notes.join('\n'), /anybody on the way can pose as the registry, read passwords/);
});

test('during a rotation stores get one file for each authority, folders the bundle', () => {
  const pem = first + second;
  assert.deepEqual(make('system-debian', { pem }).commands, [
    `awk '/BEGIN CERTIFICATE/{n++} n==1' ca.crt >${FIRST}.crt`,
    `awk '/BEGIN CERTIFICATE/{n++} n==2' ca.crt >${SECOND}.crt`,
    `sudo install -Dm644 ${FIRST}.crt /usr/local/share/ca-certificates/${FIRST}.crt`,
    `sudo install -Dm644 ${SECOND}.crt /usr/local/share/ca-certificates/${SECOND}.crt`,
    'sudo update-ca-certificates',
  ]);
  assert.deepEqual(make('docker', { pem }).commands, REFERENCE.docker);
  assert.match(make('docker-desktop-windows', { pem }).commands[1]!, /\[1\]\.Value \| Set-Content .*\.crt$/);
  assert.equal(make('docker-desktop-macos', { pem }).commands.length, 4);
});

test('one line fetches without trust, goes on only with the right SHA-256, and installs', () => {
  const sha256 = createHash('sha256').update(first).digest('hex');
  assert.equal(
    make('docker').line,
    `(cd "$(mktemp -d)" && curl -fsSk -o ca.crt https://192.168.0.12:5000/ca.crt && echo '${sha256}  ca.crt' | sha256sum -c - && ${REFERENCE.docker![0]})`,
  );
  assert.match(
    make('docker-desktop-macos').line,
    / \| \$\(command -v sha256sum \|\| echo shasum -a 256\) -c - && sudo security /,
  );
  assert.match(
    make('docker-desktop-windows').line,
    new RegExp(`^curl\\.exe -fsSk .*; if \\(\\(Get-FileHash ca\\.crt .*-ne '${sha256}'\\) \\{ throw .*\\}; certutil `),
  );
  // The folder of its own is no place for a file that is named again with each use.
  assert.match(make('helm').line, /^curl -fsSk -o ca\.crt\.new .*&& mv ca\.crt\.new ca\.crt && helm registry login/);
  assert.match(make('docker', { prefix: '/images' }).line, /https:\/\/192\.168\.0\.12:5000\/images\/ca\.crt/);
  const pair = { certificate: '/x/a.crt', key: '/x/a.key' };
  assert.match(make('docker', { pair }).line, /install -Dm600 "\$OLDPWD"\/a\.key /);
  for (const { name } of TRUST_CLIENTS) assert.ok(!make(name).line.includes('\n'), name);
});

test('a client of another system finds the file in its own folder', () => {
  assert.deepEqual(commands('docker', 'reg.lan', '/srv/my certs/ca.crt'), [
    "sudo install -Dm644 '/srv/my certs/ca.crt' /etc/docker/certs.d/reg.lan/ca.crt",
  ]);
  const [windows] = commands('docker-desktop-windows', 'reg.lan', '/srv/my certs/ca.crt');
  assert.equal(windows, 'certutil -addstore -f ROOT ca.crt');
  // The old recipe's only certificate.
  assert.match(commands('docker-desktop-macos', 'reg.lan', '/srv/domain.crt')[0]!, / domain\.crt$/);
});

test('IPv6 has its brackets everywhere, quoted from the shell', () => {
  assert.deepEqual(commands('docker', '[fd00::12]:5000'), [
    "sudo install -Dm644 ca.crt '/etc/docker/certs.d/[fd00::12]:5000/ca.crt'",
  ]);
  assert.equal(trustInstructions({ host: 'FD00::12', caFile: 'ca.crt', pem: first }).host, '[fd00::12]');
  assert.match(commands('helm', '[fd00::12]:5000')[0]!, /login '\[fd00::12\]:5000' --ca-file/);
});

test('an unknown client, and a host that is none, are refused', () => {
  assert.throws(
    () => commands('dockerr'),
    (error: OperatorError) => /docker, docker-rootless/.test(error.fix ?? ''),
  );
  for (const host of ['reg.lan; reboot', '../../etc', 'https://reg.lan', '*.reg.lan', 'fe80::1%eth0', 'reg.lan:0'])
    assert.throws(() => commands('docker', host), OperatorError, host);
});

test("a client's files are known without its commands", () => {
  const files = (name: string) => filesOf(TRUST_CLIENTS.find(client => client.name === name)!, 'reg.lan:5000');
  assert.deepEqual(files('docker'), [
    { holds: 'ca', place: '/etc/docker/certs.d/reg.lan:5000/ca.crt', root: true },
    { holds: 'certificate', place: '/etc/docker/certs.d/reg.lan:5000/client.cert', root: true },
    { holds: 'key', place: '/etc/docker/certs.d/reg.lan:5000/client.key', root: true },
  ]);
  assert.deepEqual(files('containerd').at(-1), {
    holds: 'settings',
    place: '/etc/containerd/certs.d/reg.lan:5000/hosts.toml',
    root: true,
  });
});

test('Kubernetes: a namespace, the files, and a container on every node that may do nothing else', () => {
  for (const host of ['192.168.0.12:5000', '[fd00::12]:5000', `${'a'.repeat(60)}.lan`]) {
    const { commands, notes } = make('kubernetes', { host, image: 'mirror.lan/busybox:1' });
    const manifest = /^kubectl apply -f - <<'EOF'\n([\s\S]*)\nEOF$/.exec(commands[0]!)![1]!;
    const [namespace, config, daemons, ...more] = parseAllDocuments(manifest, { strict: true }).map(document => {
      assert.deepEqual([document.errors, document.warnings], [[], []]);
      return document.toJS();
    });
    assert.deepEqual(more, []);
    assert.deepEqual(
      [namespace, config, daemons].map(({ apiVersion, kind }) => `${apiVersion} ${kind}`),
      ['v1 Namespace', 'v1 ConfigMap', 'apps/v1 DaemonSet'],
    );
    for (const { metadata } of [namespace, config, daemons])
      assert.match(metadata.name, /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/);
    for (const { metadata } of [config, daemons]) assert.equal(metadata.namespace, namespace.metadata.name);
    assert.equal(config.data['ca.crt'], first);
    assert.ok(config.data['hosts.toml'].includes(`ca = "/etc/containerd/certs.d/${host}/ca.crt"`));
    const { selector, template } = daemons.spec;
    for (const [label, value] of Object.entries(selector.matchLabels))
      assert.equal(template.metadata.labels[label], value);
    const { spec } = template;
    assert.deepEqual(spec.tolerations, [{ operator: 'Exists' }]);
    assert.equal(spec.automountServiceAccountToken, false);
    assert.ok(!('hostNetwork' in spec || 'hostPID' in spec));
    for (const container of [...spec.initContainers, ...spec.containers]) {
      assert.equal(container.image, 'mirror.lan/busybox:1');
      assert.ok(container.resources.limits.memory && container.resources.limits.cpu);
      assert.deepEqual(container.securityContext.capabilities, { drop: ['ALL'] });
      assert.ok(!('privileged' in container.securityContext));
      for (const { name, mountPath } of container.volumeMounts ?? []) {
        assert.ok(spec.volumes.some((volume: { name: string }) => volume.name === name));
        // A path of a mount may have no colon.
        assert.doesNotMatch(mountPath, /:/);
      }
    }
    assert.match(notes.join(), /config_path = "\/etc\/containerd\/certs\.d"/);
  }
  const annotation = (pem: string) => /registry-trust\/files: (\w+)/.exec(make('kubernetes', { pem }).commands[0]!)![1];
  assert.notEqual(annotation(first), annotation(second));
});

test('the clients that count as proven are those that an end-to-end test has trust the registry', () => {
  const e2e = join(CHECKOUT, 'test/e2e');
  const sources = readdirSync(e2e).map(file => readFileSync(join(e2e, file), 'utf8'));
  const asked = new Set(
    sources.flatMap(text => [...text.matchAll(/\.(?:trust|instructions)\('([\w-]+)'/g)].map(([, name]) => name!)),
  );
  // Of these only a part is executed: the variable of crane by another program in Go, the container of the manifest.
  for (const part of ['crane', 'kubernetes']) asked.delete(part);
  assert.deepEqual(
    TRUST_CLIENTS.filter(({ proven }) => proven)
      .map(({ name }) => name)
      .sort(),
    [...asked].sort(),
  );
});

let dir: string;
before(() => {
  dir = mkdtempSync(join(tmpdir(), 'trust-'));
});
after(() => rmSync(dir, { recursive: true }));

/** Runs a text in a shell in which `/etc` is a folder of the test's and `sudo` just runs its command. */
function shell(name: string, text: string): string {
  const root = join(dir, name);
  mkdirSync(join(root, 'bin'), { recursive: true });
  writeFileSync(join(root, 'bin', 'sudo'), '#!/bin/sh\nexec "$@"\n', { mode: 0o755 });
  const moved = text.replaceAll(/(?<=[ '])\/etc(?=[/ ])/g, `${root}/etc`);
  const { status, stderr } = spawnSync('sh', ['-euc', moved], {
    cwd: dir,
    encoding: 'utf8',
    env: { PATH: `${join(root, 'bin')}:${process.env.PATH}`, HOME: join(root, 'home') },
  });
  assert.equal(status, 0, stderr);
  return root;
}

const FOLDERS = {
  docker: 'etc/docker',
  'docker-rootless': 'home/.config/docker',
  podman: 'etc/containers',
  'podman-user': 'home/.config/containers',
  containerd: 'etc/containerd',
  colima: 'home/.docker',
  k3s: 'etc/rancher/k3s',
  buildkit: 'etc/buildkit',
};

for (const host of ['[fd00::12]:5000', '192.168.0.12'])
  test(`${host}: the printed text runs as it is, and undo removes it`, () => {
    const caFile = join(dir, "it's $HOME `x`.crt");
    writeFileSync(caFile, first);
    const [certificate, key] = [join(dir, 'a.crt'), join(dir, 'a.key')];
    for (const file of [certificate, key]) writeFileSync(file, file);
    const instructions = trustInstructions({
      host,
      caFile,
      pem: first,
      pair: { certificate, key },
      clients: Object.keys(FOLDERS),
    });
    const root = shell(`run${host.length}`, renderTrust(instructions));
    for (const folder of Object.values(FOLDERS)) {
      assert.equal(readFileSync(join(root, folder, 'certs.d', host, 'ca.crt'), 'utf8'), first);
      assert.equal(statSync(join(root, folder, 'certs.d', host, 'client.key')).mode & 0o777, 0o600);
    }
    const toml = readFileSync(join(root, 'etc/containerd/certs.d', host, 'hosts.toml'), 'utf8');
    assert.match(
      toml,
      new RegExp(`^  ca = "/etc/containerd/certs.d/${host.replaceAll(/[[\].]/g, '\\$&')}/ca.crt"$`, 'm'),
    );
    // What others have in the same file stays.
    const buildkit = join(root, 'etc/buildkit/buildkitd.toml');
    writeFileSync(buildkit, `debug = true\n${readFileSync(buildkit, 'utf8')}[worker]\n`);
    const undo = instructions.clients.flatMap(({ undo }) => undo).filter(command => !/ rm -i /.test(command));
    shell(`run${host.length}`, undo.join('\n'));
    for (const folder of Object.values(FOLDERS)) assert.deepEqual(readdirSync(join(root, folder, 'certs.d')), []);
    assert.equal(readFileSync(buildkit, 'utf8'), 'debug = true\n[worker]\n');
  });

test('a file that others use is never overwritten by what is printed', () => {
  const root = join(dir, 'noclobber');
  mkdirSync(join(root, 'etc/rancher/k3s'), { recursive: true });
  writeFileSync(join(root, 'etc/rancher/k3s/registries.yaml'), 'mirrors: {}\n');
  writeFileSync(join(dir, 'ca.crt'), first);
  assert.throws(() => shell('noclobber', commands('k3s').join('\n')), /registries\.yaml: File exists|cannot create/);
  assert.equal(readFileSync(join(root, 'etc/rancher/k3s/registries.yaml'), 'utf8'), 'mirrors: {}\n');
  assert.ok(existsSync(join(root, 'etc/rancher/k3s/certs.d')));
});
