import { z } from 'zod';
import { ALL_SUITES, parseSuite } from './ciphers.js';
import { bare } from './keeping.js';
import {
  address,
  duration,
  headerValues,
  key,
  list,
  listOf,
  map,
  oneOf,
  optionalKey,
  path,
  section,
  text,
  unsupported,
  yesNo,
} from './keys.js';
import { certificateNames, networks } from './realms.js';
import { quote } from './values.js';

const paths = listOf('paths', path.schema);

/** What is given up by each mode but the strictest. */
const WEAKER: Readonly<Record<string, string>> = {
  'verify-client-cert-if-given': 'lets clients in without a certificate as well',
  'require-any-client-cert': 'verifies nothing: anybody can make the certificate that it wants',
  'request-client-cert': 'only asks: clients without a certificate, or with one of anybody, are let in',
};

const tls = section(
  {
    certificate: optionalKey(path, 'Certificate with its chain (PEM). Without one, `DIR/certs` is used or filled.'),
    key: optionalKey(path, 'Private key of the certificate (PEM).'),
    minimumtls: key(oneOf('tls1.2', 'tls1.3'), 'tls1.2', 'The oldest version of TLS that is accepted.'),
    ciphersuites: key(
      list('suites', parseSuite),
      [...ALL_SUITES],
      'Cipher suites that are offered, by IANA name: only those with forward secrecy and authenticated encryption.',
    ),
    clientcas: key(
      paths,
      [],
      'Authorities whose client certificates are accepted (PEM). None, with `clientauth`: the own one in `DIR/certs/clients`.',
    ),
    clientauth: optionalKey(
      oneOf(
        'require-and-verify-client-cert',
        'verify-client-cert-if-given',
        'require-any-client-cert',
        'request-client-cert',
      ),
      'What is asked of clients before anything else. With `clientcas`, `require-and-verify-client-cert` unless told; without either, nothing. The original ignores it without `clientcas`.',
      { caution: value => WEAKER[value.toLowerCase()] },
    ),
    clientcrls: key(
      paths,
      [],
      'Lists of the client certificates that were revoked (PEM), read again as they change. With one, each authority of a client needs one. The list of the own authority counts by itself.',
      { ours: true },
    ),
    letsencrypt: unsupported(
      'refused',
      "Certificates from Let's Encrypt.",
      'remove it, and give http.tls.certificate and http.tls.key, or neither for a certificate of the own authority',
    ),
  },
  'The certificate, and what TLS offers.',
).superRefine(({ certificate, key, clientcas, clientcrls }, context) => {
  if (clientcrls.length > 0 && clientcas.length === 0)
    context.addIssue({
      code: 'custom',
      path: ['clientcrls'],
      message: 'is set, but http.tls.clientcas is not',
      params: {
        fix: 'set http.tls.clientcas to the authorities of these lists; the list of the own one counts by itself',
      },
    });
  if ((certificate === undefined) === (key === undefined)) return;
  const [given, missing] = key === undefined ? ['certificate', 'key'] : ['key', 'certificate'];
  context.addIssue({
    code: 'custom',
    path: [given!],
    message: `is set, but http.tls.${missing} is not`,
    params: { fix: `set both (REGISTRY_HTTP_TLS_CERTIFICATE and REGISTRY_HTTP_TLS_KEY), or neither` },
  });
});

/** Nothing, or `/x/y`: the slash at the end, which the original wants, may be there. */
const prefix = {
  ...text,
  type: 'path of a URL',
  schema: text.schema.transform((value, context) => {
    if (value === '' || value === '/') return '';
    if (/^\/?[\w.~-]+(?:\/[\w.~-]+)*\/?$/.test(value)) return `/${value.replace(/^\/|\/$/g, '')}`;
    context.addIssue({
      code: 'custom',
      message: `${quote(value)} is no path of a URL`,
      params: { fix: 'write /NAME/' },
    });
    return z.NEVER;
  }),
};

/** The origin by which clients reach the registry, or nothing. */
const origin = {
  ...text,
  type: 'URL',
  schema: text.schema.transform((value, context) => {
    const url = URL.canParse(value) ? new URL(value) : undefined;
    if (value === '' || (/^https?:$/.test(url?.protocol ?? '') && !url?.username && !url?.password)) return value;
    const fix = 'write such as https://registry.example.com:5000, without a user or password';
    context.addIssue({ code: 'custom', message: 'is no URL of http or https', params: { fix } });
    return z.NEVER;
  }),
};

export const http = section(
  {
    addr: key(address, '0.0.0.0:5000', 'Where to listen; `:5000` is every interface, IPv6 too.'),
    net: key(oneOf('tcp'), 'tcp', 'The network; `unix` is not supported.'),
    host: key(
      origin,
      '',
      'The URL by which clients reach the registry, behind a proxy for example: where they get their tokens. `Location` headers are paths, and need it not.',
    ),
    prefix: key(prefix, '', 'A path before `/v2/`, where a proxy hands on a part of its tree.'),
    secret: optionalKey(text, 'The key that signs the state of uploads in the original.', {
      status: 'warned',
      instead: 'remove it: the state of uploads is kept in the storage, so nothing needs it',
      secret: true,
    }),
    relativeurls: key(yesNo, false, '`Location` headers are always paths, whatever this says.', { status: 'accepted' }),
    draintimeout: key(
      duration,
      8000,
      "How long running transfers may take to finish after SIGTERM; the default is below docker's 10 seconds. The original does not wait.",
      bare,
    ),
    headers: key(
      map('values', headerValues, /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/),
      {},
      'Headers of every response, each with a list of values. In variables `_` in a name stands for `-`.',
    ),
    tls,
    proxies: section(
      {
        addresses: key(networks, [], 'Addresses, or networks such as `10.0.0.0/24`, that they send from.'),
        certificates: key(certificateNames, [], 'Common names of the client certificates that they show.'),
      },
      'Proxies in front, whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed. Those of nobody else are.',
      { ours: true },
    ),
    insecureplainhttp: key(yesNo, false, 'Serves HTTP without TLS: only behind a proxy or tunnel that encrypts.', {
      ours: true,
    }),
    http2: section({ disabled: key(yesNo, false, 'HTTP/2 is not served.', { status: 'accepted' }) }, 'HTTP/2.'),
    h2c: unsupported('warned', 'HTTP/2 without TLS.', 'remove it: clients use HTTP/1.1'),
    debug: unsupported('warned', 'The debug server and Prometheus metrics.'),
  },
  'The listener.',
).superRefine(({ insecureplainhttp, tls }, context) => {
  if (!insecureplainhttp || (tls.clientauth === undefined && tls.clientcas.length === 0)) return;
  context.addIssue({
    code: 'custom',
    path: ['insecureplainhttp'],
    message: 'is set beside http.tls.clientcas or http.tls.clientauth, and client certificates need TLS',
    params: { fix: 'keep one of them' },
  });
});
