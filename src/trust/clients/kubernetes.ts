import { createHash } from 'node:crypto';
import { stringify } from 'yaml';
import { folderSteps, type Target, type TrustClient } from '../client.js';
import { CONTAINERD_FOLDER, hostsToml } from './containers.js';

export const KUBERNETES: readonly TrustClient[] = [
  rancher('k3s', 'k3s', 'sudo systemctl restart k3s', 'on agents: sudo systemctl restart k3s-agent'),
  rancher('rke2', 'RKE2', 'sudo systemctl restart rke2-server', 'on agents: sudo systemctl restart rke2-agent'),
  {
    name: 'kind',
    title: 'kind',
    system: 'unix',
    present: [],
    keepsFile: true,
    steps: target => [
      // The whole of certs.d is mounted: the colon of HOST:PORT would end the path for docker.
      ...folderSteps(target, `certs.d/${target.host}`),
      {
        write: hostsToml(target.host, target.pair !== undefined),
        to: `certs.d/${target.host}/hosts.toml`,
        root: false,
      },
      { write: stringify(kindConfig()).trimEnd(), to: 'kind.yaml', root: false },
      { run: 'kind create cluster --config kind.yaml', undo: 'kind delete cluster' },
    ],
    restart: 'No restart: a cluster that is there has to be made anew, for kind cannot add a mount to it.',
  },
  {
    name: 'minikube',
    title: 'minikube',
    system: 'unix',
    present: [['minikube'], ['$HOME/.minikube']],
    perAuthority: true,
    steps: ({ authorities }) =>
      authorities.map(({ id, file }) => ({
        copy: 'ca',
        from: file,
        to: `$HOME/.minikube/certs/${id}.pem`,
        root: false,
      })),
    restart: 'It is read when the machine starts',
    restartBy: 'minikube start --embed-certs',
  },
  {
    name: 'kubernetes',
    title: 'Kubernetes on containerd, every node',
    system: 'unix',
    present: [],
    byHand: true,
    steps: target => [
      ...(target.pair
        ? [
            { run: `kubectl create namespace ${NAMESPACE} --dry-run=client -o yaml | kubectl apply -f -` },
            {
              run: `kubectl -n ${NAMESPACE} create secret generic ${resourceName(target.host)} --from-file=client.cert=${target.pair.certificate} --from-file=client.key=${target.pair.key}`,
              undo: `kubectl -n ${NAMESPACE} delete secret ${resourceName(target.host)}`,
            },
          ]
        : []),
      {
        run: 'kubectl apply -f -',
        input: nodeManifest(target),
        undo: `kubectl -n ${NAMESPACE} delete daemonset,configmap ${resourceName(target.host)}`,
      },
    ],
    restart: 'No restart for these files; one after a change of config.toml.',
    notes: ({ host }) => [
      `containerd reads them when /etc/containerd/config.toml has config_path = "${CONTAINERD_FOLDER}", as most clusters have it.`,
      `The image comes from a registry that the nodes trust already: --image names another one with a POSIX shell.`,
      `Undone, the files stay on the nodes: sudo rm -r ${CONTAINERD_FOLDER}/${host}`,
    ],
  },
  {
    name: 'kubernetes-credentials',
    title: 'Kubernetes, user and password',
    system: 'unix',
    present: [],
    byHand: true,
    steps: ({ host }) => [
      {
        run: `kubectl create secret docker-registry regcred '--docker-server=${host}' --docker-username=USER --docker-password=PASSWORD`,
        undo: 'kubectl delete secret regcred',
      },
      {
        run: `kubectl patch sa default -p '{"imagePullSecrets":[{"name":"regcred"}]}'`,
        undo: `kubectl patch sa default -p '{"imagePullSecrets":[]}'`,
      },
    ],
    restart: 'No restart: pods that are made from now on pull with it. It holds for one namespace.',
    notes: () => [
      'It carries the user and the password only: nodes trust the authority by one of the other ways.',
      'Without a password in the list of processes: kubectl create secret generic regcred --type=kubernetes.io/dockerconfigjson --from-file=.dockerconfigjson=FILE, a config.json after docker login.',
    ],
  },
];

/** k3s and RKE2 write containerd's configuration themselves, from one file. */
function rancher(name: string, title: string, restartBy: string, agents: string): TrustClient {
  const folder = `/etc/rancher/${name}`;
  return {
    name,
    title: `${title}, on every node`,
    system: 'linux',
    present: [[name], [folder]],
    steps: target => {
      const own = `${folder}/certs.d/${target.host}`;
      const tls = {
        ca_file: `${own}/ca.crt`,
        ...(target.pair && { cert_file: `${own}/client.cert`, key_file: `${own}/client.key` }),
      };
      const registries = {
        // Without a mirror of its own name what is said of TLS is ignored.
        mirrors: { [target.host]: { endpoint: [`https://${target.host}`] } },
        configs: { [target.host]: { tls } },
      };
      return [
        ...folderSteps(target, own),
        {
          add: stringify(registries).trimEnd(),
          as: 'yaml',
          host: target.host,
          to: `${folder}/registries.yaml`,
          root: true,
        },
      ];
    },
    restart: `It is read when the service starts (${agents})`,
    restartBy,
    notes: () => [
      'A registries.yaml that is there already stays as it is: put these lines into it.',
      'A user and a password may stand there as well, for all pods: configs → HOST → auth → username, password. Then chmod 600 the file.',
    ],
  };
}

function kindConfig() {
  return {
    kind: 'Cluster',
    apiVersion: 'kind.x-k8s.io/v1alpha4',
    // Newer versions of kind say so by themselves.
    containerdConfigPatches: [
      `[plugins."io.containerd.grpc.v1.cri".registry]\n  config_path = "${CONTAINERD_FOLDER}"\n`,
    ],
    nodes: [{ role: 'control-plane', extraMounts: [{ hostPath: 'certs.d', containerPath: CONTAINERD_FOLDER }] }],
  };
}

const NAMESPACE = 'registry-trust';

/** A name for what belongs to one registry (RFC 1123 label). */
function resourceName(host: string): string {
  return `trust-${host.replaceAll(/[^a-z0-9]+/g, '-').replaceAll(/^-+|-+$/g, '')}`.slice(0, 63).replace(/-+$/, '');
}

/**
 * A container on each node, new ones included, that writes the files and then sleeps. It needs root on the node's folder
 * and nothing else: no privileges, no capability, no token, no network of the host.
 */
function nodeManifest({ host, pem, pair, image }: Target): string {
  const name = resourceName(host);
  const labels = { 'app.kubernetes.io/name': name, 'app.kubernetes.io/part-of': NAMESPACE };
  const toml = `${hostsToml(host, pair !== undefined)}\n`;
  const securityContext = {
    runAsUser: 0,
    allowPrivilegeEscalation: false,
    readOnlyRootFilesystem: true,
    capabilities: { drop: ['ALL'] },
    seccompProfile: { type: 'RuntimeDefault' },
  };
  const resources = { requests: { cpu: '5m', memory: '8Mi' }, limits: { cpu: '100m', memory: '32Mi' } };
  const files = ['ca.crt', ...(pair ? ['client.cert', 'client.key'] : []), 'hosts.toml'];
  // hosts.toml last: it names the others. A rename, so that no pull meets half a file.
  const install = [
    'set -eu',
    `folder='/certs.d/${host}'`,
    'mkdir -p "$folder"',
    `for file in ${files.join(' ')}; do`,
    '  case $file in client.*) from=/pair ;; *) from=/trust ;; esac',
    '  case $file in client.key) umask 077 ;; *) umask 022 ;; esac',
    '  cat "$from/$file" >"$folder/.$file.new"',
    '  mv -f "$folder/.$file.new" "$folder/$file"',
    'done',
    '',
  ].join('\n');
  const documents = [
    {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: {
        name: NAMESPACE,
        // A folder of the node's is what the other levels forbid.
        labels: { 'pod-security.kubernetes.io/enforce': 'privileged' },
      },
    },
    {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name, namespace: NAMESPACE, labels },
      data: { 'ca.crt': pem, 'hosts.toml': toml },
    },
    {
      apiVersion: 'apps/v1',
      kind: 'DaemonSet',
      metadata: { name, namespace: NAMESPACE, labels },
      spec: {
        selector: { matchLabels: { 'app.kubernetes.io/name': name } },
        updateStrategy: { type: 'RollingUpdate', rollingUpdate: { maxUnavailable: '100%' } },
        template: {
          metadata: {
            labels,
            // Another authority makes another pod, which writes it.
            annotations: {
              'registry-trust/files': createHash('sha256').update(pem).update(toml).digest('hex'),
            },
          },
          spec: {
            automountServiceAccountToken: false,
            enableServiceLinks: false,
            priorityClassName: 'system-node-critical',
            nodeSelector: { 'kubernetes.io/os': 'linux' },
            tolerations: [{ operator: 'Exists' }],
            terminationGracePeriodSeconds: 5,
            initContainers: [
              {
                name: 'install',
                image,
                command: ['sh', '-c', install],
                securityContext,
                resources,
                volumeMounts: [
                  { name: 'certs', mountPath: '/certs.d' },
                  { name: 'trust', mountPath: '/trust', readOnly: true },
                  ...(pair ? [{ name: 'pair', mountPath: '/pair', readOnly: true }] : []),
                ],
              },
            ],
            containers: [
              {
                name: 'pause',
                image,
                command: ['sh', '-c', "trap 'exit 0' TERM; while :; do sleep 3600 & wait; done"],
                securityContext: { ...securityContext, runAsUser: 65532, runAsNonRoot: true },
                resources,
              },
            ],
            volumes: [
              { name: 'certs', hostPath: { path: CONTAINERD_FOLDER, type: 'DirectoryOrCreate' } },
              { name: 'trust', configMap: { name } },
              ...(pair ? [{ name: 'pair', secret: { secretName: name } }] : []),
            ],
          },
        },
      },
    },
  ];
  // Aliases would be what repeated objects become otherwise.
  return documents
    .map(document => stringify(document, { aliasDuplicateObjects: false, lineWidth: 0 }))
    .join('---\n')
    .trimEnd();
}
