import { ADDRESS_ONLY, isMoreThanAddress } from './endpoint.js';
import { key, oneOf, optionalKey, optionalSection, size, text, warnsWhereOn, wholeFrom, yesNo } from './keys.js';

const MIB = 1024 * 1024;

/** `storage.swift`: a container of OpenStack Swift, by its own API. */
export const swift = optionalSection(
  {
    authurl: optionalKey(text, 'Where to log in, such as `https://keystone.example.com:5000/v3`.'),
    authversion: optionalKey(wholeFrom(1, 3), 'The version of the login: 3 is Keystone, 1 what Swift has of its own.', {
      fallback: 'as authurl says, else `3`',
    }),
    username: optionalKey(text, 'The user.'),
    password: optionalKey(text, 'The password.', { secret: true }),
    domain: optionalKey(text, 'The domain of the user, by name.', { fallback: '`Default`' }),
    domainid: optionalKey(text, 'The same, by id.'),
    tenant: optionalKey(text, 'The project, by name.'),
    tenantid: optionalKey(text, 'The same, by id.'),
    tenantdomain: optionalKey(text, 'The domain of the project, by name.', { fallback: '`domain`' }),
    tenantdomainid: optionalKey(text, 'The same, by id.'),
    trustid: optionalKey(text, 'A trust, in place of a project.'),
    applicationcredentialid: optionalKey(text, 'An application credential, in place of user and password.', {
      ours: true,
    }),
    applicationcredentialsecret: optionalKey(text, 'Its secret.', { ours: true, secret: true }),
    region: optionalKey(text, 'The region, where there are several.'),
    endpointtype: key(oneOf('public', 'internal', 'admin'), 'public', 'Which of the URLs of the service to use.'),
    container: optionalKey(text, 'The container. It must be there.'),
    prefix: key(text, '', 'What the names of all objects begin with; nothing unless told.'),
    chunksize: key(
      size(MIB, 5 * 1024 * MIB),
      20 * MIB,
      'The size of the segments in which blobs are uploaded, at least 5 MiB: each running upload takes memory for up to two.',
    ),
    insecureskipverify: key(yesNo, false, 'Trusts whatever certificate the services have.', { caution: warnsWhereOn }),
    secretkey: optionalKey(
      text,
      'The key by which temporary URLs are signed, for [redirects](storage.md#redirects). The container is given it where neither it nor its account has it.',
      { secret: true },
    ),
    accesskey: optionalKey(text, 'Of HP Cloud, which is gone.', { secret: true, status: 'accepted' }),
    tempurlcontainerkey: optionalKey(yesNo, 'What the service takes is tried out at the start.', {
      status: 'accepted',
    }),
    tempurlmethods: optionalKey(text, 'The same.', { status: 'accepted' }),
  },
  'A container of OpenStack Swift, by its own API: see [Storage](storage.md).',
).superRefine((swift, context) => {
  if (!swift) return;
  const wrong = (name: string, message: string, fix: string) =>
    context.addIssue({ code: 'custom', path: [name], message, params: { fix } });
  const application = swift.applicationcredentialid !== undefined;
  const needed = application
    ? (['authurl', 'container', 'applicationcredentialsecret'] as const)
    : (['authurl', 'container', 'username', 'password'] as const);
  for (const name of needed)
    if (!swift[name]) wrong(name, 'is not set', `set it (REGISTRY_STORAGE_SWIFT_${name.toUpperCase()})`);
  if (swift.authurl && !URL.canParse(swift.authurl))
    wrong('authurl', 'is no URL', 'write such as https://keystone.example.com:5000/v3');
  else if (swift.authurl && isMoreThanAddress(swift.authurl)) wrong('authurl', ADDRESS_ONLY.what, ADDRESS_ONLY.fix);
  if (swift.authversion === 2 || (swift.authversion === undefined && /\/v2(?:\.\d+)?\/?$/.test(swift.authurl ?? '')))
    wrong('authurl', 'is version 2 of Keystone, which OpenStack has removed', 'write the URL that ends with /v3');
  if (application && swift.authversion === 1)
    wrong('authversion', 'is 1, which has no application credentials', 'remove it');
});
