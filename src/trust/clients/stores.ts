import type { Authority, Step, TrustClient } from '../client.js';

/** Stores of the whole machine: every program that uses them then trusts whatever the authority may sign for. */
export const STORES: readonly TrustClient[] = [
  fileStore({
    name: 'system-debian',
    proven: true,
    title: 'System store of Debian, Ubuntu, Alpine',
    folder: '/usr/local/share/ca-certificates',
    update: 'update-ca-certificates',
    present: [['update-ca-certificates', '/usr/share/ca-certificates']],
  }),
  fileStore({
    name: 'system-rhel',
    title: 'System store of RHEL, Fedora',
    folder: '/etc/pki/ca-trust/source/anchors',
    update: 'update-ca-trust extract',
    present: [['update-ca-trust', '/etc/pki/ca-trust/source']],
  }),
  fileStore({
    name: 'system-suse',
    title: 'System store of SUSE',
    folder: '/usr/share/pki/trust/anchors',
    update: 'update-ca-certificates',
    present: [['update-ca-certificates', '/usr/share/pki/trust/anchors']],
  }),
  {
    name: 'system-arch',
    title: 'System store of Arch Linux',
    system: 'linux',
    present: [['trust', '/etc/ca-certificates/trust-source']],
    store: true,
    perAuthority: true,
    steps: perAuthority(({ file }) => ({
      run: `sudo trust anchor --store ${file}`,
      undo: `sudo trust anchor --remove ${file}`,
    })),
    restart: 'Programs that are running need a restart, docker as well.',
  },
  {
    name: 'firefox',
    title: 'Firefox',
    system: 'linux',
    proven: true,
    present: [['certutil', '$HOME/.mozilla/firefox']],
    store: true,
    perAuthority: true,
    steps: perAuthority(({ file, id }) => ({
      run: forEachProfile(`certutil -A -d sql:"$profile" -t C,, -n ${id} -i ${file}`),
      undo: forEachProfile(`certutil -D -d sql:"$profile" -n ${id}`),
    })),
    restart: 'Firefox must not run meanwhile: start it again afterwards.',
    notes: () => ['certutil is in the package libnss3-tools (Debian) or nss-tools (Fedora).'],
  },
  {
    name: 'java',
    title: 'Java',
    system: 'unix',
    proven: true,
    present: [],
    store: true,
    perAuthority: true,
    steps: perAuthority(({ file, id }) => ({
      run: `sudo keytool -importcert -noprompt -keystore "$JAVA_HOME"/lib/security/cacerts -storepass changeit -alias ${id} -file ${file}`,
      undo: `sudo keytool -delete -keystore "$JAVA_HOME"/lib/security/cacerts -storepass changeit -alias ${id}`,
    })),
    restart: 'Programs that are running need a restart.',
    notes: () => ["Debian's packages share /etc/ssl/certs/java/cacerts, which follows the system store by itself."],
  },
];

interface FileStore extends Pick<TrustClient, 'name' | 'title' | 'present' | 'proven'> {
  /** Takes one file for each authority. */
  readonly folder: string;
  /** Run after each change. */
  readonly update: string;
}

function fileStore({ folder, update, ...rest }: FileStore): TrustClient {
  return {
    ...rest,
    system: 'linux',
    store: true,
    perAuthority: true,
    steps: ({ authorities }) => [
      ...authorities.map(({ file, id }): Step => ({ copy: 'ca', from: file, to: `${folder}/${id}.crt`, root: true })),
      { run: `sudo ${update}`, undo: `sudo ${update}` },
    ],
    restart: 'Programs that are running need a restart, docker as well.',
  };
}

function perAuthority(step: (authority: Authority) => Step): TrustClient['steps'] {
  return ({ authorities }) => authorities.map(step);
}

/** A user has several profiles, and nothing tells which one is in use. */
function forEachProfile(command: string): string {
  return `for profile in ~/.mozilla/firefox/*/; do if [ -e "$profile/cert9.db" ]; then ${command}; fi; done`;
}
