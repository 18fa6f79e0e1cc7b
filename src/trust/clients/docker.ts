import { CONFIG_HOME, folderSteps, type Step, type Target, type TrustClient } from '../client.js';

const BUILDS = 'No restart for login, push and pull; builds with FROM this registry need one';

export const DOCKER: readonly TrustClient[] = [
  {
    name: 'docker',
    title: 'Docker Engine on Linux',
    system: 'linux',
    proven: true,
    present: [['dockerd'], ['/run/docker.sock'], ['/var/run/docker.sock']],
    steps: target => folderSteps(target, `/etc/docker/certs.d/${target.host}`),
    restart: BUILDS,
    restartBy: 'sudo systemctl restart docker',
    notes: ({ pair }) => (pair ? ['A .cert without its .key in that folder is an error for docker.'] : []),
  },
  {
    name: 'docker-rootless',
    title: 'Docker Engine on Linux, rootless',
    system: 'linux',
    proven: true,
    present: [
      [`\${XDG_RUNTIME_DIR}/docker.sock`],
      [`${CONFIG_HOME}/systemd/user/docker.service`],
      ['$HOME/.local/share/docker'],
    ],
    steps: target => folderSteps(target, `${CONFIG_HOME}/docker/certs.d/${target.host}`),
    restart: BUILDS,
    restartBy: 'systemctl --user restart docker',
  },
  {
    name: 'docker-desktop-macos',
    title: 'Docker Desktop on macOS, for all users',
    system: 'macos',
    present: [['/Applications/Docker.app']],
    perAuthority: true,
    steps: ({ authorities }) =>
      authorities.map(({ file }) => ({
        run: `sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain ${file}`,
        undo: `sudo security remove-trusted-cert -d ${file}`,
      })),
    restart: 'Then restart Docker Desktop.',
    notes: ({ host, pair }) => [
      'macOS asks for the consent of an administrator, also under sudo.',
      ...(pair ? [`The client certificate: as docker-desktop-macos-folder says, in ~/.docker/certs.d/${host}.`] : []),
    ],
  },
  {
    name: 'docker-desktop-macos-user',
    title: 'Docker Desktop on macOS, for this user',
    system: 'macos',
    present: [],
    perAuthority: true,
    steps: ({ authorities }) =>
      authorities.map(({ file }) => ({
        run: `security add-trusted-cert -d -r trustRoot -k ~/Library/Keychains/login.keychain ${file}`,
        undo: `security remove-trusted-cert -d ${file}`,
      })),
    restart: 'Then restart Docker Desktop.',
    notes: ({ host, pair }) => [
      'Newer systems call the file login.keychain-db.',
      ...(pair ? [`The client certificate: as docker-desktop-macos-folder says, in ~/.docker/certs.d/${host}.`] : []),
    ],
  },
  {
    name: 'docker-desktop-macos-folder',
    title: 'Docker Desktop on macOS, without a keychain',
    system: 'macos',
    present: [],
    steps: inHomeFolder,
    restart: 'Then restart Docker Desktop.',
  },
  {
    name: 'docker-desktop-windows',
    title: 'Docker Desktop on Windows (PowerShell, as administrator)',
    system: 'windows',
    present: [['$env:ProgramFiles\\Docker\\Docker\\Docker Desktop.exe']],
    perAuthority: true,
    steps: ({ authorities }) =>
      authorities.map(({ file }) => ({
        run: `certutil -addstore -f ROOT ${file}`,
        undo: `Remove-Item "Cert:\\LocalMachine\\Root\\$((Get-PfxCertificate ${file}).Thumbprint)"`,
      })),
    restart: 'Then restart Docker Desktop.',
    notes: ({ authorities: [first], host, pair }) => [
      `Or: Import-Certificate -FilePath ${first?.file} -CertStoreLocation Cert:\\LocalMachine\\Root`,
      ...(pair ? [`The client certificate: client.cert and client.key in ~\\.docker\\certs.d\\${flat(host)}.`] : []),
    ],
  },
  {
    name: 'docker-windows',
    title: 'Docker Engine on Windows (PowerShell, as administrator)',
    system: 'windows',
    present: [['$env:ProgramData\\docker']],
    steps: target =>
      folderSteps(target, `$env:ProgramData/docker/certs.d/${flat(target.host)}`, undefined, true).map(windowsPlace),
    restart: 'No restart for login, push and pull; builds with FROM this registry need one',
    restartBy: 'Restart-Service docker',
    notes: () => ['The folder is HOST and PORT without the colon.'],
  },
  {
    name: 'colima',
    title: 'Colima',
    system: 'unix',
    present: [['colima'], ['$HOME/.colima']],
    steps: inHomeFolder,
    restart: 'Then restart it',
    restartBy: 'colima restart',
  },
  {
    name: 'rancher-desktop',
    title: 'Rancher Desktop',
    system: 'unix',
    present: [['rdctl'], ['$HOME/.rd']],
    steps: inHomeFolder,
    restart: 'Then restart it',
    restartBy: 'rdctl shutdown && rdctl start',
  },
];

function inHomeFolder(target: Target): Step[] {
  return folderSteps(target, `$HOME/.docker/certs.d/${target.host}`);
}

/** A folder of Windows may have no colon in its name: docker leaves each of them out. */
function flat(host: string): string {
  return host.replaceAll(':', '');
}

function windowsPlace(step: Step): Step {
  return 'to' in step ? { ...step, to: step.to.replaceAll('/', '\\') } : step;
}
