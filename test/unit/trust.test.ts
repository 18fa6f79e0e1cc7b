import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { OperatorError } from '../../src/errors.js';
import { renderTrust, TRUST_CLIENTS, trustInstructions } from '../../src/pki/trust.js';

const commands = (client: string, host = '192.168.0.12:5000', caFile = 'ca.crt') =>
  trustInstructions({ host, caFile, clients: [client] }).clients[0]!.commands;

test('each client gets the commands that are known to work, word by word', () => {
  assert.deepEqual(commands('docker'), ['sudo install -Dm644 ca.crt /etc/docker/certs.d/192.168.0.12:5000/ca.crt']);
  assert.deepEqual(commands('docker', '192.168.0.12'), [
    'sudo install -Dm644 ca.crt /etc/docker/certs.d/192.168.0.12/ca.crt',
  ]);
  assert.deepEqual(commands('docker-desktop-macos'), [
    'sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain ca.crt',
  ]);
  assert.deepEqual(commands('docker-desktop-macos-user'), [
    'security add-trusted-cert -d -r trustRoot -k ~/Library/Keychains/login.keychain ca.crt',
  ]);
  assert.deepEqual(commands('docker-desktop-windows'), ['certutil -addstore -f ROOT ca.crt']);
  assert.deepEqual(commands('podman'), ['sudo install -Dm644 ca.crt /etc/containers/certs.d/192.168.0.12:5000/ca.crt']);
});

test('every client has commands, an undo for each, and says what to restart', () => {
  const { clients } = trustInstructions({ host: 'reg.lan', caFile: 'ca.crt' });
  assert.deepEqual(
    clients.map(({ client }) => client),
    TRUST_CLIENTS.map(({ name }) => name),
  );
  for (const { client, commands, undo, restart } of clients) {
    assert.ok(commands.length > 0 && undo.length >= commands.length, client);
    assert.match(restart, /restart/i, client);
  }
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
  assert.equal(trustInstructions({ host: 'FD00::12', caFile: 'ca.crt' }).host, '[fd00::12]');
});

test('an unknown client, and a host that is none, are refused', () => {
  assert.throws(
    () => commands('dockerr'),
    (error: OperatorError) => /docker, docker-rootless/.test(error.fix ?? ''),
  );
  assert.throws(() => commands('docker', 'reg.lan; reboot'), OperatorError);
  assert.throws(() => commands('docker', '../../etc'), OperatorError);
  assert.throws(() => commands('docker', 'https://reg.lan'), OperatorError);
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
  const moved = text.replaceAll(/(?<=[ '])\/etc\//g, `${root}/etc/`);
  const { status, stderr } = spawnSync('sh', ['-euc', moved], {
    cwd: dir,
    encoding: 'utf8',
    env: { PATH: `${join(root, 'bin')}:${process.env.PATH}`, HOME: join(root, 'home') },
  });
  assert.equal(status, 0, stderr);
  return root;
}

test('the printed text runs as it is: a file with odd characters comes to its place, and undo removes it', () => {
  const caFile = join(dir, "it's $HOME `x`.crt");
  writeFileSync(caFile, 'the certificate');
  const host = '[fd00::12]:5000';
  const instructions = trustInstructions({
    host,
    caFile,
    clients: ['docker', 'docker-rootless', 'podman', 'containerd'],
  });
  const root = shell('run', renderTrust(instructions));
  for (const folder of ['etc/docker', 'home/.config/docker', 'etc/containers', 'etc/containerd'])
    assert.equal(readFileSync(join(root, folder, 'certs.d', host, 'ca.crt'), 'utf8'), 'the certificate');
  const toml = readFileSync(join(root, 'etc/containerd/certs.d', host, 'hosts.toml'), 'utf8');
  assert.equal(
    toml,
    `server = "https://${host}"

[host."https://${host}"]
  capabilities = ["pull", "resolve", "push"]
  ca = "/etc/containerd/certs.d/${host}/ca.crt"
`,
  );
  shell('run', instructions.clients.flatMap(({ undo }) => undo).join('\n'));
  for (const folder of ['etc/docker', 'home/.config/docker', 'etc/containers', 'etc/containerd'])
    assert.deepEqual(readdirSync(join(root, folder, 'certs.d')), []);
});
