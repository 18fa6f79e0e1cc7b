import http from 'node:http';
import https from 'node:https';

/** Pulls hold a connection each, and must not keep small requests waiting. */
const MOST_CONNECTIONS = 2_000;

/**
 * What a connection may have read ahead of a slow reader (bytes). A pull that reads as fast as it comes would else have its
 * connection stopped and started again for each piece of 64 KiB, which is a sixth of what it costs.
 */
const AHEAD = 256 * 1024;

export interface Agents {
  readonly http: http.Agent;
  readonly https: https.Agent;
}

/** Connections to an object store, which are kept. */
export function keptAgents({ skipVerify = false } = {}): Agents {
  const kept = { keepAlive: true, maxSockets: MOST_CONNECTIONS, highWaterMark: AHEAD };
  return { http: new http.Agent(kept), https: new https.Agent({ ...kept, rejectUnauthorized: !skipVerify }) };
}

export function closeAgents({ http, https }: Agents): void {
  http.destroy();
  https.destroy();
}
