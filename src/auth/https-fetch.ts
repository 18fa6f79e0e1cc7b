import { request } from 'node:https';

/** What is read of an answer, in bytes. */
const LARGEST = 1024 * 1024;

interface FetchOptions {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: unknown;
  readonly signal?: AbortSignal | undefined;
}

/**
 * `fetch` over HTTPS alone, with authorities of one's own, which Node's takes only with a package more. Follows no
 * redirect, and reads no more than a mebibyte.
 * @param ca PEM; undefined: those that Node trusts
 */
export function httpsFetch(ca: string | undefined): (url: string, options: FetchOptions) => Promise<Response> {
  return (url, { method = 'GET', headers = {}, body, signal }) =>
    new Promise((resolve, reject) => {
      const asked = request(url, { method, headers: { ...headers }, ca, agent: false, signal });
      asked.once('error', reject);
      asked.once('response', response => {
        const chunks: Buffer[] = [];
        let size = 0;
        response.on('data', (chunk: Buffer) => {
          size += chunk.length;
          chunks.push(chunk);
          if (size > LARGEST) asked.destroy(new Error(`${url} answers more than ${LARGEST} bytes`));
        });
        response.once('error', reject);
        response.once('end', () => {
          const status = response.statusCode!;
          const given = new Headers();
          for (const [name, values = []] of Object.entries(response.headersDistinct))
            for (const value of values) given.append(name, value);
          // These have no body (Fetch standard, "null body status").
          const empty = [101, 204, 205, 304].includes(status);
          resolve(new Response(empty ? null : Buffer.concat(chunks), { status, headers: given }));
        });
      });
      asked.end(body instanceof Uint8Array || body == null ? body : String(body));
    });
}
