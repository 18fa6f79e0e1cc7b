import type { IncomingMessage } from 'node:http';

/** A client's certificate that was verified: signed by a trusted authority, in date, not revoked, and for clients. */
export interface ClientCertificate {
  /** The subject's common name; undefined where there is none, or more than one. */
  readonly commonName: string | undefined;
  /** Of the subject, in its order. */
  readonly organizationalUnits: readonly string[];
  /** Of the subject alternative name, each with its kind: `dns:…`, `ip:…`, `email:…`, `uri:…`. */
  readonly alternativeNames: readonly string[];
  /** Hexadecimal. */
  readonly serial: string;
  /** SHA-256, as `AB:CD:…`. */
  readonly fingerprint: string;
}

const bySocket = new WeakMap<object, ClientCertificate>();

/** The certificate that came with the request's connection; undefined for none, and for one that nobody has verified. */
export function clientCertificateOf(request: IncomingMessage): ClientCertificate | undefined {
  return bySocket.get(request.socket);
}

/** To be called by the listener alone. */
export function setClientCertificate(socket: object, certificate: ClientCertificate): void {
  bySocket.set(socket, certificate);
}
