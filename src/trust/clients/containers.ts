import { CONFIG_HOME, folderSteps, type Target, type TrustClient } from '../client.js';

export const CONTAINERD_FOLDER = '/etc/containerd/certs.d';

/** What containerd reads for one registry. Paths in it are absolute: others are looked up elsewhere in some versions. */
export function hostsToml(host: string, withPair: boolean, folder = `${CONTAINERD_FOLDER}/${host}`): string {
  return [
    `server = "https://${host}"`,
    '',
    `[host."https://${host}"]`,
    '  capabilities = ["pull", "resolve", "push"]',
    `  ca = "${folder}/ca.crt"`,
    ...(withPair ? [`  client = [["${folder}/client.cert", "${folder}/client.key"]]`] : []),
  ].join('\n');
}

const WHICH_FOLDER = ({ host }: Target) =>
  `Of ~/.config/containers/certs.d/${host}, /etc/containers/certs.d/${host} and /etc/docker/certs.d/${host} the first one that is there is used, even when it is empty.`;

export const CONTAINERS: readonly TrustClient[] = [
  {
    name: 'podman',
    title: 'Podman, Buildah, Skopeo, CRI-O',
    system: 'linux',
    proven: true,
    present: [['podman'], ['buildah'], ['skopeo'], ['crio']],
    steps: target => folderSteps(target, `/etc/containers/certs.d/${target.host}`),
    restart: 'No restart.',
    notes: target => [WHICH_FOLDER(target)],
  },
  {
    name: 'podman-user',
    title: 'Podman, Buildah, Skopeo, for this user',
    system: 'linux',
    proven: true,
    present: [],
    // Not below XDG_CONFIG_HOME: these programs look nowhere but here.
    steps: target => folderSteps(target, `$HOME/.config/containers/certs.d/${target.host}`),
    restart: 'No restart.',
    notes: target => [WHICH_FOLDER(target)],
  },
  {
    name: 'podman-machine',
    title: 'Podman machine (macOS, Windows)',
    system: 'unix',
    present: [],
    byHand: true,
    steps: ({ host, ca, pair }) =>
      [
        ['ca.crt', ca, '644'],
        ...(pair ? [['client.cert', pair.certificate, '644'] as const, ['client.key', pair.key, '600'] as const] : []),
      ].map(([name, from, mode]) => ({
        run: `podman machine ssh sudo install -Dm${mode} /dev/stdin '/etc/containers/certs.d/${host}/${name}' <${from}`,
        undo: `podman machine ssh sudo rm -f '/etc/containers/certs.d/${host}/${name}'`,
      })),
    restart: 'No restart; a new machine needs it again.',
    notes: () => ['The files go into the virtual machine: Podman does not read those of the host.'],
  },
  {
    name: 'containerd',
    title: 'containerd 1.x and 2.x, nerdctl',
    system: 'linux',
    proven: true,
    present: [['containerd'], ['nerdctl'], ['/run/containerd/containerd.sock']],
    steps: target => {
      const folder = `${CONTAINERD_FOLDER}/${target.host}`;
      return [
        ...folderSteps(target, folder),
        { write: hostsToml(target.host, target.pair !== undefined), to: `${folder}/hosts.toml`, root: true },
      ];
    },
    restart: 'No restart for these files; one after a change of config.toml',
    restartBy: 'sudo systemctl restart containerd',
    notes: () => [
      `Kubernetes reads them when /etc/containerd/config.toml says config_path = "${CONTAINERD_FOLDER}" below`,
      '[plugins."io.containerd.cri.v1.images".registry] (version = 3, containerd 2.x), or below',
      '[plugins."io.containerd.grpc.v1.cri".registry] (version = 2, containerd 1.x).',
      `ctr wants --hosts-dir ${CONTAINERD_FOLDER} each time.`,
    ],
  },
  {
    name: 'containerd-rootless',
    title: 'nerdctl with rootless containerd',
    system: 'linux',
    proven: true,
    present: [[`\${XDG_RUNTIME_DIR}/containerd-rootless`], [`${CONFIG_HOME}/systemd/user/containerd.service`]],
    steps: target => folderSteps(target, `${CONFIG_HOME}/containerd/certs.d/${target.host}`),
    restart: 'No restart.',
  },
];
