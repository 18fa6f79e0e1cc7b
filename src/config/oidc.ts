import { duration, key, list, optionalKey, optionalSection, path, text } from './keys.js';

/** Above this the keys that sign sessions might be gone before them. In milliseconds. */
const LONGEST_SESSION = 24 * 3_600_000;

/** `auth.oidc`: logins at an OpenID Connect provider. */
export const oidc = optionalSection(
  {
    issuer: optionalKey(text, 'The provider: the URL (https) that it calls itself, below which it says where to go.'),
    clientid: optionalKey(text, 'How the provider knows this registry.'),
    clientsecretfile: optionalKey(path, 'The file that holds the secret of the client; none for a public client.'),
    rootcertbundle: optionalKey(
      path,
      'The authorities (PEM) that vouch for the provider; those that Node.js trusts unless told.',
    ),
    scopes: key(
      list('scopes', value => value),
      ['profile'],
      'What is asked for beyond `openid`.',
    ),
    usernameclaim: key(
      text,
      'preferred_username',
      "The claim that is the user's name here. `email` counts only where the provider has verified it.",
    ),
    groupsclaim: key(text, 'groups', 'The claim that lists the groups of the user, for the policy.'),
    sessionlife: key(duration, 3_600_000, 'How long a session lasts; at most a day.'),
  },
  'Logins of browsers at an OpenID Connect provider, for `/api/v1/`, beside `auth.htpasswd`: see [Access](access.md#openid-connect).',
  { ours: true },
).superRefine((oidc, context) => {
  if (!oidc) return;
  const wrong = (name: string, message: string, fix: string) =>
    context.addIssue({ code: 'custom', path: [name], message, params: { fix } });
  for (const name of ['issuer', 'clientid'] as const)
    if (!oidc[name]) wrong(name, 'is not set', 'set it as the provider has it');
  const { issuer, sessionlife } = oidc;
  if (issuer && (!URL.canParse(issuer) || new URL(issuer).protocol !== 'https:'))
    wrong('issuer', 'is no URL of https', 'write such as https://login.example.com/realms/main');
  if (sessionlife < 60_000 || sessionlife > LONGEST_SESSION)
    wrong('sessionlife', 'is not from 1m to 24h', 'write such as 1h');
});
