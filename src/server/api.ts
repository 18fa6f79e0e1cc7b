import { type ApiOptions, createApi } from '../api/api.js';
import type { Config } from '../config/schema.js';
import type { Entrance, Registry } from '../registry/registry.js';
import type { StorageDriver } from '../storage/driver.js';
import type { Store } from '../store/store.js';
import type { Authentication } from './authentication.js';

export interface ApiParts {
  readonly entrance: Entrance;
  readonly onChange: NonNullable<ApiOptions['onChange']>;
  readonly config: Config;
  readonly driver: StorageDriver;
  readonly store: Store;
  readonly authentication: Authentication;
  /** Of the certificate that is served; undefined over plain HTTP. */
  readonly names: () => readonly string[] | undefined;
}

/** The API below `/api/v1`, of what the configuration has. */
export function serveApi({ entrance, onChange, config, driver, store, authentication, names }: ApiParts): Registry {
  const { authorise, authoriseBy, userFile, policyDocument, policy, machineTokens, addressOf } = authentication;
  return createApi({
    ...entrance,
    onChange,
    origin: config.http.host,
    services: {
      store,
      driver,
      authorise,
      authoriseBy,
      userFile,
      policyDocument,
      policy,
      machineTokens,
      addressOf,
      oidc: authentication.oidc(driver, names),
    },
  });
}
