import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { copyCheckout } from '../support/checkout.js';
import { Docker } from '../support/docker.js';
import { writeBuildFolder } from '../support/image.js';
import { Namespace } from '../support/namespace.js';
import { type Daemon, requireTools } from '../support/process.js';
import { shellBlocks } from '../support/readme.js';

// The commands of the README as they stand there, on a terminal, the same machine being server and client.
describe('README: from an IP address to a pulled image', { timeout: 240_000 }, () => {
  const [serve, trust, copy, users] = shellBlocks().get('From an IP address to a pulled image') as string[];
  let machine: Namespace;
  let docker: Docker;
  let server: Daemon;
  let password: string;
  let checkout: string;

  before(async () => {
    requireTools('script', 'sshd', 'scp', 'ssh-keygen');
    machine = await Namespace.create();
    assert.equal(machine.ip, '192.168.0.12', 'the address of the README');
    docker = await Docker.start(machine);
    const folder = join(machine.dir, 'alpine');
    writeBuildFolder(folder, [100_000, 10]);
    await docker.build(folder, 'alpine');
    checkout = join(machine.home, 'registry-secure');
    copyCheckout(checkout, { linkModules: true });
    await startSshd();
  });
  after(() => machine?.close());

  /** `scp` from this machine to itself: an account whose home is the namespace's, and its key and host known. */
  async function startSshd(): Promise<void> {
    const ssh = join(machine.home, '.ssh');
    mkdirSync(ssh, { mode: 0o700 });
    const [key, hostKey] = [join(ssh, 'id_ed25519'), join(machine.dir, 'host_key')];
    for (const path of [key, hostKey])
      await machine.must(['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-C', 'test', '-f', path]);
    writeFileSync(join(ssh, 'known_hosts'), `${machine.ip} ${readFileSync(`${hostKey}.pub`, 'utf8')}`);
    const config = `ListenAddress ${machine.ip}:22
HostKey ${hostKey}
PidFile none
AuthorizedKeysFile ${key}.pub
StrictModes no
UsePAM no
PasswordAuthentication no
Subsystem sftp internal-sftp
`;
    writeFileSync(join(machine.dir, 'sshd_config'), config);
    await machine.must(['sed', '-i', `s|^root:.*|root:x:0:0:root:${machine.home}:/bin/sh|`, '/etc/passwd']);
    await machine.must(['sed', '-i', 's/^root:!/root:*/', '/etc/shadow']);
    await machine.must(['mkdir', '-m', '755', '/run/sshd']);
    const sshd = machine.start('sshd', ['/usr/sbin/sshd', '-D', '-e', '-f', join(machine.dir, 'sshd_config')]);
    const listens = `ss -ltn | grep -q '${machine.ip}:22 '`;
    await sshd.ready(async () => (await machine.run(['sh', '-c', listens])).status === 0);
  }

  /** Lines typed into a terminal, each prompt answered when it is shown. All that was to be seen there. */
  async function terminal(
    lines: string,
    cwd: string,
    answers: readonly (readonly [string, string])[],
  ): Promise<string> {
    const [file, person, screen] = ['typed.sh', 'person.sh', 'screen'].map(name => join(machine.dir, name)) as string[];
    writeFileSync(screen!, '');
    writeFileSync(file!, `set -eu\n${lines}`);
    const waiting = answers.map(
      ([prompt, answer]) => `until grep -qF '${prompt}' ${screen}; do sleep 0.05; done\necho '${answer}'\n`,
    );
    writeFileSync(person!, waiting.join(''));
    const shown = await docker.recipe(`sh ${person} | script -qefc 'sh ${file}' ${screen}`, { cwd });
    return shown.replaceAll('\r', '');
  }

  test('on the server: npm start shows the address, the fingerprint, the password and the command for docker', async () => {
    server = machine.start('npm-start', ['script', '-qefc', serve!.trim(), '/dev/null'], { cwd: checkout });
    await server.ready(async () => /docker login/.test(server.output));
    const shown = server.output.replaceAll('\r', '');
    assert.match(shown, /^Registry +https:\/\/192\.168\.0\.12:5000\/$/m);
    assert.match(shown, /^ +SHA-256 +([0-9A-F]{2}:){31}[0-9A-F]{2}$/m);
    assert.match(
      shown,
      /^sudo install -Dm644 \S+\/certs\/ca\.crt \/etc\/docker\/certs\.d\/192\.168\.0\.12:5000\/ca\.crt$/m,
    );
    [, password = ''] = /^ +password +(\S+) +\(shown only now\)$/m.exec(shown) ?? [];
    assert.notEqual(password, '');
  });

  test('on a client: without trust docker refuses; copied, installed, logged in', async () => {
    const refused = await docker.refused(['login', '-u', 'admin', '--password-stdin', '192.168.0.12:5000'], {
      input: password,
    });
    assert.match(refused, /x509: certificate signed by unknown authority/);
    const shown = await terminal(trust!, machine.home, [['Password:', password]]);
    assert.match(shown, /Login Succeeded/);
    assert.ok(!shown.includes(password), 'not echoed');
  });

  test('an image goes there and back', async () => {
    const before = await docker.imageId('alpine');
    await terminal(copy!, machine.home, []);
    assert.equal(await docker.imageId('192.168.0.12:5000/team/alpine'), before);
  });

  test('another user, at once', async () => {
    const word = 'a word of alice';
    const shown = await terminal(users!, checkout, [
      ['Password for', word],
      ['The same again', word],
    ]);
    assert.match(shown, /admin\nalice\n/);
    assert.doesNotMatch(shown, new RegExp(word));
    const login = ['login', '-u', 'alice', '--password-stdin', '192.168.0.12:5000'];
    await server.ready(async () => (await docker.run(login, { input: word })).status === 0);
  });
});
