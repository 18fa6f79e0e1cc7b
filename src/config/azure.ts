import { ADDRESS_ONLY, isMoreThanAddress } from './endpoint.js';
import {
  count,
  duration,
  key,
  oneOf,
  optionalKey,
  optionalSection,
  section,
  text,
  warnsWhereOn,
  yesNo,
} from './keys.js';

/** `storage.azure`: a container of Azure Blob Storage. */
export const azure = optionalSection(
  {
    accountname: optionalKey(text, 'The storage account.'),
    accountkey: optionalKey(text, 'One of the two keys of the account.', { secret: true }),
    container: optionalKey(text, 'The container. It must be there.'),
    credentials: section(
      {
        type: optionalKey(
          oneOf('shared_key', 'client_secret', 'default_credentials', 'default'),
          'How to log in: by the key of the account, as an application with a secret, or as the environment or the machine has it (`AZURE_CLIENT_ID` …, a workload identity, a managed one).',
          { fallback: '`shared_key` with an accountkey, else `default_credentials`' },
        ),
        clientid: optionalKey(text, 'The application, for `client_secret`.'),
        tenantid: optionalKey(text, 'Its tenant.'),
        secret: optionalKey(text, 'Its secret.', { secret: true }),
      },
      'The login.',
    ),
    realm: key(text, 'core.windows.net', 'The domain of the service, such as `core.chinacloudapi.cn`.'),
    serviceurl: optionalKey(text, 'The URL of the blob service.', { fallback: '`https://ACCOUNTNAME.blob.REALM`' }),
    rootdirectory: key(text, '', 'What the names of all blobs begin with; nothing unless told.'),
    skipverify: key(yesNo, false, 'Trusts whatever certificate the service has.', { caution: warnsWhereOn }),
    connectionstring: optionalKey(text, 'The original reads and ignores it.', { secret: true, status: 'accepted' }),
    max_retries: key(count(-1, 5), 5, 'Requests are tried again here as [Storage](storage.md) says.', {
      status: 'accepted',
    }),
    retry_delay: key(duration, 100, 'The same.', { status: 'accepted' }),
    copy_status_poll_max_retry: key(count(-1, 5), 5, 'The old name of the first.', { status: 'accepted' }),
    copy_status_poll_delay: key(duration, 100, 'The old name of the second.', { status: 'accepted' }),
  },
  'A container of Azure Blob Storage: see [Storage](storage.md).',
).superRefine((azure, context) => {
  if (!azure) return;
  const wrong = (path: string[], message: string, fix: string) =>
    context.addIssue({ code: 'custom', path, message, params: { fix } });
  if (!azure.accountname)
    wrong(['accountname'], 'is not set', 'name the storage account (REGISTRY_STORAGE_AZURE_ACCOUNTNAME)');
  if (!azure.container) wrong(['container'], 'is not set', 'name the container (REGISTRY_STORAGE_AZURE_CONTAINER)');
  const { type, clientid, tenantid, secret } = azure.credentials;
  if (type === 'shared_key' && !azure.accountkey)
    wrong(
      ['accountkey'],
      'is not set, and credentials.type is shared_key',
      'set it (REGISTRY_STORAGE_AZURE_ACCOUNTKEY), or use another type',
    );
  if (azure.accountkey && !/^[A-Za-z0-9+/]+={0,2}$/.test(azure.accountkey))
    wrong(['accountkey'], 'is not in base64', 'copy it as the portal shows it (Access keys)');
  if (type === 'client_secret')
    for (const [name, value] of Object.entries({ clientid, tenantid, secret }))
      if (!value)
        wrong(
          ['credentials', name],
          'is not set, and credentials.type is client_secret',
          `set it (REGISTRY_STORAGE_AZURE_CREDENTIALS_${name.toUpperCase()})`,
        );
  if (azure.serviceurl && !(/^https?:\/\/./.test(azure.serviceurl) && URL.canParse(azure.serviceurl)))
    wrong(['serviceurl'], 'is no URL', 'write such as https://ACCOUNT.blob.core.windows.net');
  else if (azure.serviceurl && isMoreThanAddress(azure.serviceurl))
    wrong(['serviceurl'], ADDRESS_ONLY.what, ADDRESS_ONLY.fix);
});
