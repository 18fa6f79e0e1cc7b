import type { S3ClientConfig } from '@aws-sdk/client-s3';
import type { Agents } from '../agents.js';
import type { S3Options } from './options.js';

/** How long a connection may take to be made (ms). */
const CONNECT = 5_000;

/** The SDK waits between them for a random time that grows, and stops where too many requests fail. */
const ATTEMPTS = 4;

/** Of Amazon's client. @param idle how long a connection may be silent (ms) */
export function clientConfig(options: S3Options, agents: Agents, idle: number): S3ClientConfig {
  const { credentials, endpoint, userAgent } = options;
  return {
    region: options.region,
    ...(endpoint && { endpoint }),
    ...(!endpoint && !options.secure && { tls: false }),
    forcePathStyle: options.pathStyle,
    ...(credentials && { credentials }),
    ...(userAgent && { customUserAgent: userAgent }),
    useAccelerateEndpoint: options.accelerate ?? false,
    useDualstackEndpoint: options.dualStack ?? false,
    useFipsEndpoint: options.fips ?? false,
    maxAttempts: ATTEMPTS,
    retryMode: 'standard',
    // Bodies are buffers, so the signature covers their SHA-256, which every service checks; other checksums some refuse.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    requestHandler: {
      connectionTimeout: CONNECT,
      socketTimeout: idle,
      httpAgent: agents.http,
      httpsAgent: agents.https,
    },
    // Else the client sorts its thirty steps anew for each request, and makes a copy of what it could log.
    cacheMiddleware: true,
    logger: { trace() {}, debug() {}, warn() {} } as unknown as NonNullable<S3ClientConfig['logger']>,
  };
}
