import { OperatorError } from '../errors.js';
import { key, list, optionalKey, optionalSection, path, text, yesNo } from './keys.js';
import { quote } from './values.js';

/** `auth.token` in the names of Distribution. */

/** Of Distribution's, those with a public key. */
const ALGORITHMS = ['EdDSA', ...['RS', 'ES', 'PS'].flatMap(family => ['256', '384', '512'].map(bits => family + bits))];

function parseAlgorithm(name: string): string {
  if (ALGORITHMS.includes(name)) return name;
  // What checks such a token can make one: the registry, and whoever reads its configuration.
  const secret = /^HS/.test(name);
  throw new OperatorError(
    secret ? `${name} signs with a secret that both sides share` : `${quote(name)} is no algorithm that signs tokens`,
    { fix: `have the token server sign with one of ${ALGORITHMS.join(', ')}` },
  );
}

export const tokenServer = optionalSection(
  {
    realm: optionalKey(text, 'Where clients get their tokens: the URL of the token server.'),
    service: optionalKey(text, 'The name of this registry at the token server: the audience (`aud`) of its tokens.'),
    issuer: optionalKey(text, 'The name of the token server: the issuer (`iss`) of its tokens.'),
    rootcertbundle: optionalKey(
      path,
      'Certificates (PEM) whose keys sign tokens, or whose holders issue the certificates that a token brings along (`x5c`). Read again when it changes.',
    ),
    jwks: optionalKey(
      path,
      'The public keys that sign tokens, as a JSON Web Key Set, by their `kid`. Read again when it changes.',
    ),
    signingalgorithms: key(
      list('algorithms', parseAlgorithm),
      ALGORITHMS,
      'How tokens may be signed. Those with a shared secret (`HS256` and its like) are refused, and so is `none`.',
    ),
    autoredirect: key(
      yesNo,
      false,
      'Sends clients to `autoredirectpath` on the host that they asked for, where that is known to be this registry, and not to `realm`.',
    ),
    autoredirectpath: key(text, '/auth/token', 'The path for `autoredirect`.'),
  },
  'A token server of your own that knows the users and says what each may do: see [Access](access.md#an-outside-token-server).',
).superRefine((token, context) => {
  if (!token) return;
  const missing = (name: string, fix: string) =>
    context.addIssue({ code: 'custom', path: [name], message: 'is not set', params: { fix } });
  for (const name of ['realm', 'service', 'issuer'] as const)
    if (!token[name]) missing(name, 'set it as the token server has it');
  if (token.rootcertbundle === undefined && token.jwks === undefined)
    missing('rootcertbundle', 'name the certificate of the token server there, or its keys in auth.token.jwks');
  const { realm } = token;
  if (realm && (!/^https?:$/.test(URL.canParse(realm) ? new URL(realm).protocol : '') || /["\\\s]/.test(realm)))
    context.addIssue({
      code: 'custom',
      path: ['realm'],
      message: 'is no URL of http or https',
      params: { fix: 'write such as https://auth.example.com/token' },
    });
});
