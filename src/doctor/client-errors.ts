/**
 * What clients show when something between them and the registry is wrong: the text, why, and what mends it. From this
 * table come the findings of `doctor` and docs/troubleshooting.md. `…` stands for what differs from case to case.
 */
export const CLIENT_ERRORS = {
  'no-ip-names': {
    shows: "cannot validate certificate for … because it doesn't contain any IP SANs",
    cause: 'The certificate has no IP address in it, or has it as a DNS name, where no client looks for it.',
    fix: 'Issue it anew with the address: `registry-secure init-certs --ip ADDRESS`. Clients keep their `ca.crt`.',
  },
  'other-names': {
    shows: 'certificate is valid for …, not …',
    cause: 'The name or address that the client uses is not in the certificate.',
    fix: 'Issue it anew with the name added: `registry-secure init-certs --ip ADDRESS --dns NAME`. Clients keep their `ca.crt`.',
  },
  'no-names': {
    shows: 'certificate is not valid for any names, but wanted to match …',
    cause: 'The certificate has no DNS name in it, and the client uses one.',
    fix: 'Issue it anew with the name added: `registry-secure init-certs --dns NAME`. Clients keep their `ca.crt`.',
  },
  'common-name': {
    shows: 'certificate relies on legacy Common Name field',
    cause: 'The certificate has no subject alternative name, and clients no longer look at the common name.',
    fix: 'Issue it anew: `registry-secure init-certs --force --ip ADDRESS --dns NAME`.',
  },
  'unknown-authority': {
    shows: 'certificate signed by unknown authority',
    cause:
      'The client has no `ca.crt`, or has it in a folder that is named otherwise than the image reference (`reg` and `reg:443` differ), or it is the one of an older authority (compare the SHA-256), or it was put on another machine than the one the client runs in (a virtual machine, a node), or a daemon has not been restarted since.',
    fix: '`registry-secure trust` on the server prints what each client needs, `registry-secure doctor HOST:PORT` on the client says which it is.',
  },
  dates: {
    shows: 'certificate has expired or is not yet valid',
    cause: 'The certificate, or one of the authorities above it, is out of date, or the clock of the client is wrong.',
    fix: 'Compare both times, which `doctor` prints. Correct the clock, or issue the certificate anew: `registry-secure init-certs --force`.',
  },
  'plain-http': {
    shows: 'server gave HTTP response to HTTPS client',
    cause: 'The port speaks plain HTTP.',
    fix: 'Have the server speak TLS: start it without `--insecure-plain-http`, or point the client at the port that does. Do not add insecure-registries: passwords would travel in the clear.',
  },
  'not-compliant': {
    shows: 'certificate is not standards compliant',
    cause:
      'macOS only: the certificate is valid for more than 825 days, or lacks serverAuth or a subject alternative name.',
    fix: 'Issue it anew: `registry-secure init-certs --force`.',
  },
  'key-usage': {
    shows: 'incompatible key usage',
    cause:
      'The certificate, or its authority, is not meant for servers (serverAuth), or that of a client not for clients (clientAuth).',
    fix: 'Issue it anew with the right extended key usage: `registry-secure init-certs --force` makes one for a server.',
  },
  'negative-serial': {
    shows: 'negative serial number',
    cause: 'The serial number of the certificate is negative, which Go refuses since version 1.23.',
    fix: 'Issue it anew: `registry-secure init-certs --force`.',
  },
  'bad-certificate': {
    shows: 'bad certificate',
    cause:
      'The registry asks for client certificates (mTLS), and takes none, or not that of this client: it is missing, out of date, or of another authority.',
    fix: "Put `client.cert` and `client.key` of the registry's client authority beside `ca.crt`.",
  },
  'certificate-required': {
    shows: 'certificate required',
    cause: 'The registry asks for client certificates (mTLS), and the client has none for it.',
    fix: "Put `client.cert` and `client.key` of the registry's client authority beside `ca.crt`.",
  },
  'certificate-denied': {
    shows: 'denied: … client certificate …',
    cause:
      'The registry asks for client certificates (mTLS), and says in this text what it has against that of the client.',
    fix: "Put `client.cert` and `client.key` of the registry's client authority beside `ca.crt`.",
  },
  'missing-key': {
    shows: 'missing key … for client certificate …',
    cause: 'A `.cert` of a client certificate has no `.key` of the same name beside it.',
    fix: 'Put the key there, or remove the certificate.',
  },
  'missing-certificate': {
    shows: 'missing client certificate … for key …',
    cause:
      'A `.key` of a client certificate has no `.cert` of the same name beside it. A file that ends in `.crt` counts as an authority.',
    fix: 'Name the certificate `client.cert`, not `client.crt`, or remove the key.',
  },
  constraints: {
    shows: 'is not permitted by any constraint',
    cause:
      'The certificate has a name that its authority may not sign for: its name constraints were fixed when it was made.',
    fix: 'Leave the name out, or have another authority for it: `registry-secure init-certs --out FOLDER` makes one.',
  },
  'path-length': {
    shows: 'too many intermediates for path length constraint',
    cause: 'An authority signed for more authorities below itself than it is allowed to.',
    fix: 'Let an authority sign whose path length is larger.',
  },
  refused: {
    shows: 'connect: connection refused',
    cause: 'Nothing listens on this port of this address.',
    fix: 'Start the registry, or correct the port in the image reference; `ss -ltn` on the server shows what listens where.',
  },
  'no-host': {
    shows: 'no such host',
    cause: 'The name has no address for this machine.',
    fix: 'Add it to DNS or to `/etc/hosts`, or use the address.',
  },
  timeout: {
    shows: 'Client.Timeout exceeded while awaiting headers',
    // Of two limits of the same length either may be the first.
    or: 'i/o timeout',
    cause: 'Nothing answers at the address: a firewall drops the packets, or a proxy stands in between.',
    fix: "Open the port on the server's firewall; keep the registry out of the proxy with NO_PROXY.",
  },
  'old-tls': {
    shows: 'protocol version not supported',
    cause: 'The server speaks none of the TLS versions that clients do.',
    fix: 'Have the server speak TLS 1.2 or 1.3.',
  },
  'no-login': {
    shows: 'no basic auth credentials',
    cause: 'The client is not logged in under this very HOST:PORT.',
    fix: '`docker login HOST:PORT`, just as it stands in the image reference.',
  },
  unauthorized: {
    shows: 'unauthorized',
    cause: 'The user name or the password is not right, or the user has been removed.',
    fix: 'Log in again; `registry-secure user list` on the server shows who can.',
  },
} as const satisfies Readonly<Record<string, Row>>;

interface Row {
  readonly shows: string;
  /** What clients show in its place now and then. */
  readonly or?: string;
  readonly cause: string;
  readonly fix: string;
}

export type ClientError = keyof typeof CLIENT_ERRORS;

/** docs/troubleshooting.md, but for its beginning. */
export function errorTable(): string {
  const rows = Object.values<Row>(CLIENT_ERRORS).map(
    ({ shows, or, cause, fix }) => `| \`${shows}\`${or === undefined ? '' : ` or \`${or}\``} | ${cause} | ${fix} |\n`,
  );
  return `| the client shows | why | what mends it |\n| --- | --- | --- |\n${rows.join('')}`;
}
