import { isIP } from 'node:net';
import { z } from 'zod';
import { OperatorError } from '../errors.js';
import { parseGlob } from '../glob.js';
import { duration, list, listOf, oneOf, path, text, yesNo } from './keys.js';
import { quote } from './values.js';

/** The part of the configuration that says where users come from, and in which repositories they count. */

const LEGACY_HASHES = ['apr1', 'sha1', 'crypt', 'sha2-crypt'] as const;

/** Formats of password hashes that Apache's htpasswd writes and that are no longer fit to keep passwords. */
export const legacyHashes = list('`apr1`, `sha1`, `crypt`, `sha2-crypt`', oneOfThese(LEGACY_HASHES));

function oneOfThese<T extends string>(words: readonly T[]): (value: string) => T {
  return value => {
    const word = words.find(word => word === value.toLowerCase());
    if (word) return word;
    throw new OperatorError(`${quote(value)} is not known here`, { fix: `write some of: ${words.join(', ')}` });
  };
}

/** Whom to believe what they say of others: by the addresses or networks that they send from, or by their certificates. */
export const networks = list('addresses', parseNetwork);
export const certificateNames = list('names', nonEmpty);
const trusted = { addresses: networks.schema.default([]), certificates: certificateNames.schema.default([]) };

/** An address, or a network such as `10.0.0.0/8`. @throws OperatorError */
function parseNetwork(value: string): string {
  const [, address = '', bits] = /^([^/]+)(?:\/(\d{1,3}))?$/.exec(value) ?? [];
  const family = isIP(address);
  if (family === 0 || Number(bits ?? 0) > (family === 4 ? 32 : 128))
    throw new OperatorError(`${quote(value)} is no address and no network`, {
      fix: 'write such as 10.0.0.7, 10.0.0.0/24 or fd00::/64',
    });
  if (bits === '0')
    throw new OperatorError(`${quote(value)} is every address: whoever reaches the registry would be believed`, {
      fix: 'name the addresses of the proxies',
    });
  return value;
}

function nonEmpty(value: string): string {
  if (value.trim() === '') throw new OperatorError('is empty');
  return value;
}

const header = text.schema.transform((value, context) => {
  if (/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(value) && value.toLowerCase() !== 'authorization')
    return value.toLowerCase();
  context.addIssue({
    code: 'custom',
    message: `${quote(value)} is no name of a header that could say this`,
    params: { fix: 'write such as Remote-User' },
  });
  return z.NEVER;
});

function template(...placeholders: string[]) {
  return text.schema.transform((value, context) => {
    const unknown = (value.match(/\{[^{}]*\}/g) ?? []).find(found => !placeholders.includes(found));
    if (unknown === undefined && placeholders.some(found => value.includes(found))) return value;
    const message =
      unknown === undefined ? `holds no ${placeholders.join(' or ')}` : `holds ${unknown}, which is not known`;
    context.addIssue({
      code: 'custom',
      message,
      params: { fix: `write ${placeholders.join(' or ')} where it belongs` },
    });
    return z.NEVER;
  });
}

/** What a server would refuse at each login. */
function filter(...placeholders: string[]) {
  return template(...placeholders).superRefine((value, context) => {
    let open = 0;
    for (const [parenthesis] of value.matchAll(/[()]/g)) {
      open += parenthesis === '(' ? 1 : -1;
      if (open < 0) break;
    }
    if (open !== 0)
      context.addIssue({
        code: 'custom',
        message: 'has a parenthesis without its other half',
        params: { fix: 'write such as (&(objectClass=inetOrgPerson)(uid={user})), and one of a value as \\28 or \\29' },
      });
  });
}

const upTo = (most: number) =>
  duration.schema.transform((value, context) => {
    if (value > 0 && value <= most) return value;
    context.addIssue({
      code: 'custom',
      message: 'is too long, or nothing',
      params: { fix: `write at most ${most / 1000}s` },
    });
    return z.NEVER;
  });

const url = text.schema.transform((value, context) => {
  const parsed = URL.canParse(value) ? new URL(value) : undefined;
  const bare = parsed && !parsed.username && !parsed.password && /^\/?$/.test(parsed.pathname) && !parsed.search;
  if (bare && /^ldaps?:$/.test(parsed.protocol) && parsed.hostname !== '') return value;
  const fix = 'write ldaps://HOST or ldap://HOST, with :PORT if need be, and nothing behind it';
  context.addIssue({ code: 'custom', message: 'is no URL of a directory', params: { fix } });
  return z.NEVER;
});

const LOOPBACK = /^ldap:\/\/(?:127\.\d+\.\d+\.\d+|\[::1\]|localhost)(?::\d+)?\/?$/i;

const ldap = z
  .strictObject(
    {
      url,
      starttls: yesNo.schema.default(false),
      insecureplain: yesNo.schema.default(false),
      ca: path.schema.optional(),
      binddn: text.schema.optional(),
      bindpasswordfile: path.schema.optional(),
      userbase: text.schema.optional(),
      userfilter: filter('{user}').default('(uid={user})'),
      userdn: template('{user}').optional(),
      userattribute: text.schema.default('uid'),
      groupbase: text.schema.optional(),
      groupfilter: filter('{dn}', '{user}').optional(),
      groupattribute: text.schema.default('cn'),
      timeout: upTo(30_000).default(5_000),
      cache: upTo(60_000).default(60_000),
    },
    { error: 'expects the keys of a directory, such as url, userbase and userfilter' },
  )
  .superRefine((given, context) => {
    const wrong = (key: string, message: string, fix: string) =>
      context.addIssue({ code: 'custom', path: [key], message, params: { fix } });
    const secure = given.url.toLowerCase().startsWith('ldaps:');
    if (secure && given.starttls) wrong('starttls', 'is set beside ldaps://', 'keep one of them');
    if (!secure && !given.starttls && !LOOPBACK.test(given.url) && !given.insecureplain)
      wrong('url', 'sends passwords in the clear', 'write ldaps://, or set starttls: true');
    if (given.userbase === undefined && given.userdn === undefined)
      wrong(
        'userbase',
        'is missing',
        'say below which entry users are searched for, or how their names are made: userdn',
      );
    if (given.userbase !== undefined && given.userdn !== undefined)
      wrong('userdn', 'is set beside userbase', 'keep one of them: users are searched for, or their names are made');
    if ((given.binddn === undefined) !== (given.bindpasswordfile === undefined))
      wrong(given.binddn === undefined ? 'binddn' : 'bindpasswordfile', 'is missing', 'set both, or neither');
  });

const certificate = z.strictObject(
  {
    user: oneOf('commonname', 'email', 'dns', 'uri').schema.default('commonname'),
    groups: oneOf('none', 'organizationalunit').schema.default('none'),
  },
  { error: 'expects the keys user and groups' },
);

const proxy = z
  .strictObject(
    { header: header.default('remote-user'), groupsheader: header.optional(), ...trusted },
    { error: 'expects the keys header, groupsheader, addresses and certificates' },
  )
  .superRefine(({ addresses, certificates }, context) => {
    if (addresses.length > 0 || certificates.length > 0) return;
    const fix = 'name its addresses, or the common names of its client certificates';
    context.addIssue({ code: 'custom', message: 'names no proxy that could be believed', params: { fix } });
  });

const KINDS = ['htpasswd', 'ldap', 'certificate', 'proxy'] as const;

/** A blank value, as in `certificate:`, asks for the defaults. */
const orDefaults = <T extends z.ZodType>(schema: T) =>
  z.preprocess(value => (typeof value === 'string' && value.trim() === '' ? {} : value), schema);

const source = z
  .strictObject(
    {
      htpasswd: z
        .strictObject(
          { path: path.schema, legacyhashes: legacyHashes.schema.default([]) },
          { error: 'expects the keys path and legacyhashes' },
        )
        .optional(),
      ldap: ldap.optional(),
      certificate: orDefaults(certificate.optional()),
      proxy: orDefaults(proxy.optional()),
    },
    { error: `expects one of ${KINDS.join(', ')}` },
  )
  .superRefine((given, context) => {
    if (KINDS.filter(kind => given[kind] !== undefined).length === 1) return;
    const fix = `give each source its own item of the list: one of ${KINDS.join(', ')}`;
    context.addIssue({ code: 'custom', message: 'is not one source', params: { fix } });
  });

const globs = list('patterns', value => {
  parseGlob(value);
  return value;
}).schema;

const realm = z.strictObject(
  {
    name: text.schema.pipe(z.string().min(1, { error: 'is empty' })),
    repositories: globs,
    sources: listOf('sources', source).schema.pipe(
      z.array(z.any()).min(1, { error: 'is empty' }),
    ) as unknown as z.ZodType<z.output<typeof source>[]>,
  },
  { error: 'expects the keys name, repositories and sources' },
);

export const realms = listOf('realms', realm);

export type RealmConfig = z.output<typeof realm>;
export type SourceConfig = z.output<typeof source>;
export type LdapConfig = z.output<typeof ldap>;

interface Problem {
  readonly path: Array<string | number>;
  readonly message: string;
  readonly fix: string;
}

/** What is wrong with the realms as a whole. @param fallback the name of the realm for what no pattern matches */
export function realmProblem(realms: readonly RealmConfig[], fallback: string | undefined): Problem | undefined {
  const names = realms.map(({ name }) => name);
  const again = names.findIndex((name, index) => names.indexOf(name) < index || name === fallback);
  if (again >= 0)
    return { path: [again, 'name'], message: 'is the name of another realm too', fix: 'give each a name of its own' };
  const all = realms.findIndex(({ repositories }) => repositories.includes('**'));
  if (all < 0 && fallback === undefined)
    return {
      path: [],
      message: 'leaves out the repositories that no pattern matches',
      fix: 'end with a realm for "**", or set auth.htpasswd too: then that is the realm of the rest',
    };
  if (all >= 0 && all < realms.length - 1)
    return { path: [all + 1], message: 'has no repository left: the realm before it has "**"', fix: 'put "**" last' };
  if (all >= 0 && fallback !== undefined)
    return {
      path: [all],
      message: 'has every repository ("**"), which leaves none to auth.htpasswd',
      fix: 'remove auth.htpasswd, or the pattern',
    };
  return undefined;
}

/** Where somebody is to be known by a client certificate. */
export function needsClientCertificates(
  proxies: { readonly certificates: readonly string[] },
  realms: readonly RealmConfig[],
): Array<Array<string | number>> {
  const places: Array<Array<string | number>> = [];
  if (proxies.certificates.length > 0) places.push(['http', 'proxies', 'certificates']);
  for (const [realm, { sources }] of realms.entries())
    for (const [index, { certificate, proxy }] of sources.entries()) {
      const place = ['auth', 'realms', realm, 'sources', index];
      if (certificate) places.push([...place, 'certificate']);
      if (proxy && proxy.certificates.length > 0) places.push([...place, 'proxy', 'certificates']);
    }
  return places;
}

/** What is given up where passwords go to a directory without TLS. */
export function plainDirectories(realms: readonly RealmConfig[]): Array<{ path: string; message: string }> {
  return realms.flatMap(({ sources }, realm) =>
    sources.flatMap(({ ldap }, index) =>
      ldap?.insecureplain && !ldap.starttls && !ldap.url.startsWith('ldaps:')
        ? [
            {
              path: `auth.realms.${realm}.sources.${index}.ldap.insecureplain`,
              message: `is set: every password goes to ${ldap.url} in the clear, and whoever is on the way can let anybody in`,
            },
          ]
        : [],
    ),
  );
}
