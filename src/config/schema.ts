import { z } from 'zod';
import { OperatorError } from '../errors.js';
import { audit } from './audit.js';
import { azure } from './azure.js';
import { gcs } from './gcs.js';
import { http } from './http.js';
import { bare, gc, immutable, retention, uploadpurging } from './keeping.js';
import {
  anyText,
  count,
  key,
  list,
  listOf,
  map,
  oneOf,
  optionalKey,
  optionalSection,
  path,
  positiveDuration,
  section,
  size,
  text,
  unsupported,
  wholeFrom,
  yesNo,
} from './keys.js';
import { oidc } from './oidc.js';
import { legacyHashes, needsClientCertificates, realmProblem, realms } from './realms.js';
import { s3 } from './s3.js';
import { swift } from './swift.js';
import { tokenServer } from './token-server.js';
import { quote } from './values.js';

/**
 * The configuration: one tree in the names of Distribution's. Types, defaults, error texts and docs/configuration.md come
 * from here and from nowhere else. To support a key, change its status; to add one, write it here.
 */

const MIB = 1024 * 1024;

const level = oneOf('error', 'warn', 'info', 'debug');

const log = section(
  {
    level: key(level, 'info', 'How much is logged.'),
    formatter: key(oneOf('text', 'json', 'logstash'), 'text', 'Format of the log lines.'),
    accesslog: section({ disabled: key(yesNo, false, 'Leaves out the line for each request.') }, 'The access log.'),
    fields: key(map('text', anyText, /^[^\0-\x1f\x7f]+$/), {}, 'Fields added to each log line.'),
    hooks: unsupported('warned', 'Mail on errors.', 'remove it, and have a monitoring system read the log'),
    reportcaller: unsupported('warned', "The place in the program's source."),
  },
  'What is logged: requests to standard output, everything else to standard error.',
);

const auth = section(
  {
    htpasswd: optionalSection(
      {
        realm: key(text, 'Registry Realm', 'The realm that clients are shown.'),
        path: key(path, '/auth/htpasswd', 'The password file.', {
          fallback: '`DIR/auth/htpasswd`, or `/auth/htpasswd`',
        }),
        legacyhashes: key(
          legacyHashes,
          [],
          'Old formats of Apache that let users in as well. Whoever reads the file guesses such passwords a million times as fast as those of bcrypt.',
          { ours: true },
        ),
      },
      'Users and passwords from a file that `registry-secure user` or `htpasswd -B` writes. The default.',
    ),
    none: optionalSection({}, 'An open registry: everybody may pull and push. Must be asked for by name.', {
      ours: true,
    }),
    realms: key(
      realms,
      [],
      'Users of their own for some repositories: each realm with `name`, `repositories` (patterns) and `sources`; see [Realms](realms.md). The first that matches decides; `auth.htpasswd` is the realm of the rest.',
      { ours: true },
    ),
    token: tokenServer,
    oidc,
    silly: unsupported('refused', 'Any credential passes.', 'use auth.htpasswd, or auth.none for an open registry'),
  },
  'Who may use the registry: exactly one kind, and realms beside it. `REGISTRY_AUTH=htpasswd` picks it.',
  { choice: 'kind of authentication' },
).superRefine(({ htpasswd, none, token, realms, oidc }, context) => {
  for (const [name, kind] of Object.entries({ none, token }))
    if (oidc && kind)
      context.addIssue({
        code: 'custom',
        path: [name],
        message: 'is set beside auth.oidc, which is for users of this registry',
        params: { fix: 'keep one of them' },
      });
  const problem = realms.length > 0 ? realmProblem(realms, htpasswd?.realm) : undefined;
  if (problem) {
    const { path, message, fix } = problem;
    context.addIssue({ code: 'custom', path: ['realms', ...path], message, params: { fix } });
  }
  for (const [name, kind] of Object.entries({ none, token }))
    if (realms.length > 0 && kind)
      context.addIssue({
        code: 'custom',
        path: [name],
        message: 'is set beside auth.realms, which ask who somebody is',
        params: { fix: 'keep one of them' },
      });
  const [first, second] = Object.entries({ htpasswd, token, none }).flatMap(([name, kind]) => (kind ? [name] : []));
  if (second === undefined) return;
  const fix = `keep one of them; REGISTRY_AUTH=${first} picks that kind over a file`;
  context.addIssue({ code: 'custom', path: [second], message: `is set beside auth.${first}`, params: { fix } });
});

const access = section(
  {
    policy: optionalKey(
      path,
      'The file that says who may pull, push and delete what; see [Access](access.md). Without one, whoever logs in may do everything.',
    ),
    groups: optionalKey(path, "A file of groups for the policy, in Apache's format: `NAME: USER USER`."),
  },
  'What users may do. Read again within a second when a file changes.',
  { ours: true },
).superRefine(({ policy, groups }, context) => {
  if (groups === undefined || policy !== undefined) return;
  const fix = 'set access.policy (REGISTRY_ACCESS_POLICY) too: groups mean nothing without rules';
  context.addIssue({ code: 'custom', path: ['groups'], message: 'is set, but access.policy is not', params: { fix } });
});

/** Nothing that was in them has a format that clients speak by now. */
const RETIRED = 'use one of the kinds of docs/storage.md, and push the images anew';

const storage = section(
  {
    filesystem: section(
      {
        rootdirectory: key(path, '/var/lib/registry', 'The folder that holds the data, as `registry:2` writes it.', {
          fallback: '`DIR/data`, or `/var/lib/registry` with a configuration file',
        }),
        maxthreads: key(count(1, 100), 100, "The original's bound on parallel file operations.", {
          status: 'warned',
        }),
      },
      'A folder of this machine. The default.',
    ),
    verify: key(
      oneOf('daily', 'always', 'off'),
      'daily',
      'When a blob is hashed as it is pulled whole, so that a corrupt one is never delivered: once a day while it is unchanged, each time, or never.',
      {
        ours: true,
        caution: value =>
          value.toLowerCase() === 'off' ? 'is off: bytes that the disk has lost or changed are delivered' : undefined,
      },
    ),
    delete: section(
      {
        enabled: key(
          yesNo,
          false,
          'Lets clients delete tags, manifests, blobs and, by `DELETE /api/v1/repositories/NAME`, whole repositories. Otherwise each of these is answered with 405.',
        ),
      },
      'Deletes.',
    ),
    redirect: section(
      {
        disable: optionalKey(
          yesNo,
          'Streams pulls from an object store through this machine, which verifies them, and sends no client there. See [Storage](storage.md#redirects).',
          { fallback: '`false` where clients can reach it by HTTPS' },
        ),
      },
      'Redirects of pulls to an object store, by signed URLs.',
    ),
    cache: section(
      {
        blobdescriptor: key(text, 'inmemory', 'Caches need no configuration.', { status: 'accepted' }),
        blobdescriptorsize: key(count(0, 10_000), 10_000, 'Caches need no configuration.', { status: 'accepted' }),
        layerinfo: optionalKey(text, 'The old name of storage.cache.blobdescriptor.', {
          movedTo: 'storage.cache.blobdescriptor',
        }),
      },
      "The original's cache of blob sizes.",
    ),
    tag: section(
      {
        concurrencylimit: key(count(0, 0), 0, 'Tag look-ups need no bound.', { status: 'accepted' }),
        immutable,
      },
      'Tags.',
    ),
    maintenance: section(
      {
        uploadpurging,
        gc,
        retention,
        readonly: section(
          {
            enabled: key(
              yesNo,
              false,
              'Answers every push and delete with 405, and writes nothing, so that the volume may be mounted read-only. To do so for a while, in every process: `registry-secure maintenance on`.',
            ),
          },
          'Read-only mode.',
        ),
      },
      'Maintenance.',
    ),
    s3,
    azure,
    gcs,
    swift,
    oss: unsupported(
      'refused',
      'Aliyun OSS, which Distribution 3 no longer has.',
      'use storage.filesystem, or storage.s3 where it speaks that API',
    ),
    glance: unsupported('refused', "OpenStack's image service, for the first Docker registry.", RETIRED),
    elliptics: unsupported('refused', 'Elliptics, for the first Docker registry.', RETIRED),
    inmemory: unsupported('refused', 'Memory, for tests.', 'use storage.filesystem on a tmpfs'),
  },
  'Where the data lives: one kind, and what goes for each. `REGISTRY_STORAGE=filesystem`, `s3`, `azure`, `gcs` or `swift` replaces the section.',
  { choice: 'kind of storage' },
);

const health = section(
  {
    storagedriver: section(
      {
        enabled: key(yesNo, true, 'Checks the storage in the background.'),
        interval: key(positiveDuration(10_000), 10_000, 'How often.', bare),
        threshold: key(count(1, 1), 3, 'How many failures in a row make the registry unhealthy.'),
      },
      'The check of the storage.',
    ),
    file: unsupported('warned', 'Unhealthy while a file exists.', undefined, { variable: 'filecheckers' }),
    http: unsupported('warned', 'Unhealthy while a URL fails.', undefined, { variable: 'httpcheckers' }),
    tcp: unsupported('warned', 'Unhealthy while a port is closed.', undefined, { variable: 'tcpcheckers' }),
  },
  'Whether `/healthz` says so.',
);

/** JavaScript's syntax in its strict form, which refuses what Go's has beyond it instead of misreading it. */
const patterns = list('regular expressions', value => {
  try {
    return new RegExp(value, 'u').source;
  } catch {
    throw new OperatorError(`${quote(value)} is no regular expression of JavaScript`);
  }
});

const validation = section(
  {
    disabled: key(
      yesNo,
      false,
      'Turns off the checks of URLs and indexes. That a manifest is well-formed is always checked.',
    ),
    enabled: optionalKey(yesNo, 'The old opposite of validation.disabled.', { status: 'accepted' }),
    manifests: section(
      {
        urls: section(
          {
            allow: key(
              patterns,
              [],
              'URLs that the layers of a manifest may name: each must match one of these. None: any URL, for none is ever fetched here. The original then refuses every manifest with URLs, such as those of Windows images.',
            ),
            deny: key(patterns, [], 'URLs that they may not name.'),
          },
          'Foreign layers.',
        ),
        indexes: section(
          {
            platforms: key(
              oneOf('all', 'none', 'list'),
              'all',
              'Which images that an index names must be there at its push.',
            ),
            platformlist: key(
              listOf(
                'platforms',
                z.strictObject(
                  { architecture: text.schema.default(''), os: text.schema.default('') },
                  { error: 'expects the keys architecture and os' },
                ),
              ),
              [],
              'The platforms of `list`, each with `architecture` and `os`. None: all.',
            ),
          },
          'Indexes.',
        ),
        images: section(
          {
            blobs: key(
              oneOf('all', 'none'),
              'all',
              'Which layers and configs that an image names must be there at its push; `none` takes sparse images.',
              { ours: true },
            ),
          },
          'Images.',
        ),
      },
      'Manifests.',
    ),
  },
  'What a pushed manifest must fulfil.',
);

const limits = section(
  {
    manifestsize: key(
      size(4 * MIB, 64 * MIB),
      4 * MIB,
      'The largest manifest that is taken; the specification asks for 4 MiB.',
    ),
    uploads: key(
      count(0, 1000),
      1000,
      'How many unfinished uploads one user may have, or everybody together without a login; 0: any number. More are answered with 429.',
    ),
    quotas: key(
      map('sizes', size(0, Number.MAX_SAFE_INTEGER).schema, /^(?:\*|[a-z0-9][a-z0-9._/-]{0,254})$/),
      {},
      'Bytes by prefix: `team: 10GiB` bounds the repository `team` and all below `team/`, `"*"` all there are. Each blob counts once. What would go beyond is answered with 403.',
    ),
  },
  'Limits of this program.',
  { ours: true },
);

const page = (what: string) => `The most ${what} in one answer; clients are led on to the next page.`;

export const schema = section(
  {
    version: key(oneOf('0.1'), '0.1', 'The version of this format.'),
    workers: key(
      wholeFrom(1, 64),
      1,
      'How many processes serve, sharing the port and the data. One that ends is replaced. Limits of a container on processor time and memory count.',
      { ours: true, fallback: '`4`, or one for each core, or one for each 160 MiB of memory, whichever is least' },
    ),
    log,
    loglevel: optionalKey(level, 'The old name of log.level.', { movedTo: 'log.level' }),
    http,
    auth,
    access,
    audit,
    storage,
    health,
    catalog: section({ maxentries: key(count(1, 1000), 1000, page('repositories')) }, 'The catalog.'),
    tags: section({ maxtags: key(count(1, 1000), 1000, page('tags')) }, 'Lists of tags.'),
    validation,
    limits,
    proxy: unsupported('refused', 'A cache of another registry.', 'remove it: pull-through is not served'),
    notifications: unsupported('warned', 'Events to other servers.'),
    redis: unsupported('warned', 'A shared cache.', 'remove it: nothing needs it'),
    middleware: unsupported('warned', 'Plug-ins of the original.'),
    reporting: unsupported('warned', 'Bugsnag and New Relic.'),
    compatibility: unsupported('warned', 'Docker schema 1 manifests.', 'remove it: they are not served'),
    policy: unsupported('warned', 'Classes of repositories.'),
  },
  'The configuration.',
).superRefine(({ http, auth }, context) => {
  const verifying = /^(?:verify|require-and-verify)-/.test(
    http.tls.clientauth ?? (http.tls.clientcas.length > 0 ? 'require-and-verify-' : ''),
  );
  if (verifying) return;
  const fix = 'set http.tls.clientauth to verify-client-cert-if-given or require-and-verify-client-cert';
  for (const path of needsClientCertificates(http.proxies, auth.realms))
    context.addIssue({ code: 'custom', path, message: 'needs client certificates that are verified', params: { fix } });
});

/** The whole configuration with its defaults. Durations are milliseconds, paths absolute. */
export type Config = z.output<typeof schema>;
