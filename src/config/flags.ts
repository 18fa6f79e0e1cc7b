/** One option of the command line that sets a key. */
interface Flag {
  readonly flag: `--${string}`;
  /** The placeholder of its value; none where naming the flag means true. */
  readonly value?: string;
  readonly key: string;
}

/** A flag that was given. */
export interface FlagValue {
  readonly flag: string;
  readonly key: string;
  readonly value: string;
}

/** The options that `serve`, `up` and `config` share, each for the key of the same meaning. */
export const FLAGS: readonly Flag[] = [
  { flag: '--addr', value: '<host:port>', key: 'http.addr' },
  { flag: '--certificate', value: '<file>', key: 'http.tls.certificate' },
  { flag: '--key', value: '<file>', key: 'http.tls.key' },
  { flag: '--insecure-plain-http', key: 'http.insecureplainhttp' },
  { flag: '--workers', value: '<n>', key: 'workers' },
  { flag: '--drain-timeout', value: '<duration>', key: 'http.draintimeout' },
  { flag: '--htpasswd', value: '<file>', key: 'auth.htpasswd.path' },
  { flag: '--realm', value: '<text>', key: 'auth.htpasswd.realm' },
  { flag: '--root', value: '<folder>', key: 'storage.filesystem.rootdirectory' },
  { flag: '--allow-deletes', key: 'storage.delete.enabled' },
  { flag: '--log-level', value: '<level>', key: 'log.level' },
  { flag: '--log-format', value: '<format>', key: 'log.formatter' },
];
