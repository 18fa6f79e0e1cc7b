import { folderSteps, type Target, type TrustClient } from '../client.js';

const BUILDKIT = '/etc/buildkit';

export const TOOLS: readonly TrustClient[] = [
  {
    name: 'buildkit',
    title: 'BuildKit (buildkitd, docker buildx)',
    system: 'linux',
    present: [['buildkitd'], [BUILDKIT]],
    steps: target => {
      const folder = `${BUILDKIT}/certs.d/${target.host}`;
      return [
        ...folderSteps(target, folder),
        {
          add: [
            `[registry."${target.host}"]`,
            `  ca = ["${folder}/ca.crt"]`,
            ...(target.pair
              ? [
                  `  [[registry."${target.host}".keypair]]`,
                  `    key = "${folder}/client.key"`,
                  `    cert = "${folder}/client.cert"`,
                ]
              : []),
          ].join('\n'),
          as: 'toml',
          host: target.host,
          to: `${BUILDKIT}/buildkitd.toml`,
          root: true,
        },
      ];
    },
    restart: 'buildkitd reads it when it starts',
    restartBy: 'sudo systemctl restart buildkit',
    notes: () => [
      `buildx copies what the file names into a builder: docker buildx create --driver docker-container --config ${BUILDKIT}/buildkitd.toml`,
      "The BuildKit inside of dockerd reads docker's own folder, and only when dockerd starts.",
    ],
  },
  {
    name: 'kaniko',
    title: 'Kaniko',
    system: 'unix',
    present: [],
    keepsFile: true,
    steps: ({ host, ca, pair }) => [
      {
        run: [
          `docker run --rm -v "$PWD":/workspace -v "$(realpath ${ca})":/ca.crt:ro`,
          ...(pair
            ? [`-v "$(realpath ${pair.certificate})":/client.crt:ro -v "$(realpath ${pair.key})":/client.key:ro`]
            : []),
          'gcr.io/kaniko-project/executor --context dir:///workspace',
          `--destination '${host}/NAME:TAG' '--registry-certificate=${host}=/ca.crt'`,
          ...(pair ? [`'--registry-client-cert=${host}=/client.crt,/client.key'`] : []),
        ].join(' '),
      },
    ],
    restart: 'No restart: the options are given with each build.',
  },
  {
    name: 'helm',
    title: 'Helm',
    system: 'unix',
    present: [],
    keepsFile: true,
    steps: ({ host, ca, pair }) => [
      {
        run: `helm registry login ${word(host)} --ca-file ${ca}${pair ? ` --cert-file ${pair.certificate} --key-file ${pair.key}` : ''}`,
        undo: `helm registry logout ${word(host)}`,
      },
    ],
    restart: 'No restart: the same options are repeated with each helm push and helm pull.',
  },
  {
    name: 'oras',
    title: 'oras',
    system: 'unix',
    present: [],
    keepsFile: true,
    steps: ({ host, ca, pair }) => [
      {
        run: `oras login ${word(host)} --ca-file ${ca}${pair ? ` --cert-file ${pair.certificate} --key-file ${pair.key}` : ''}`,
        undo: `oras logout ${word(host)}`,
      },
    ],
    restart: 'No restart: the same options are repeated with each command.',
    notes: () => ['For localhost also --plain-http=false.'],
  },
  {
    name: 'crane',
    title: 'crane and other tools written in Go',
    system: 'unix',
    present: [],
    keepsFile: true,
    steps: ({ host, ca }) => [{ run: `SSL_CERT_FILE=${ca} crane auth login ${word(host)} -u USER` }],
    restart: 'No restart: the variable is given with each command.',
    notes: ({ pair }) => [
      "SSL_CERT_FILE takes the place of the system's authorities (on Linux): for public registries as well, name a file that holds both.",
      'On macOS and Windows Go asks the system: use the way of Docker Desktop.',
      ...(pair ? ['It has no option for a client certificate.'] : []),
    ],
  },
  {
    name: 'cosign',
    title: 'cosign',
    system: 'unix',
    present: [],
    keepsFile: true,
    steps: ({ host, ca, pair }) => [
      {
        run: `cosign tree ${word(`${host}/NAME:TAG`)} --registry-cacert ${ca}${pair ? ` --registry-client-cert ${pair.certificate} --registry-client-key ${pair.key}` : ''}`,
      },
    ],
    restart: 'No restart: the options are given with each command, such as sign and verify.',
  },
];

/** IPv6 has brackets, which a shell would read as a pattern. */
function word(text: string): string {
  return text.includes('[') ? `'${text}'` : text;
}

export const UNSAFE: readonly TrustClient[] = [
  {
    name: 'insecure-registry',
    title: 'Docker without any check (insecure-registries)',
    system: 'linux',
    present: [],
    unsafe: true,
    steps: ({ host }) => [
      {
        add: `{ "insecure-registries": ["${host}"] }`,
        as: 'json',
        host,
        to: '/etc/docker/daemon.json',
        root: true,
      },
    ],
    restart: 'docker reads it when it starts',
    restartBy: 'sudo systemctl restart docker',
    notes: insecure,
  },
  {
    name: 'insecure-boot2docker',
    title: 'boot2docker and Docker Machine without any check',
    system: 'unix',
    present: [],
    unsafe: true,
    steps: ({ host }) => [
      {
        run: `docker-machine ssh default "echo 'EXTRA_ARGS=\\"--insecure-registry ${host}\\"' | sudo tee -a /var/lib/boot2docker/profile"`,
        undo: `docker-machine ssh default "sudo sed -i '/--insecure-registry ${host.replaceAll(/[[\].]/g, '\\\\$&')}\\"/d' /var/lib/boot2docker/profile"`,
      },
    ],
    restart: 'Then restart the machine',
    restartBy: 'docker-machine restart default',
    notes: insecure,
  },
];

function insecure(_: Target): readonly string[] {
  return [
    'This gives up what TLS is for: anybody on the way can pose as the registry, read passwords and images, and change them.',
    'docker then also falls back to plain HTTP. The registry stays as it is; remove this once its authority is installed.',
  ];
}
