import assert from 'node:assert/strict';
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import type { ApiDocument } from '../../src/api/openapi.js';

/** The document of the API as a client has it, to hold answers against. */
export class DocumentedApi {
  /** What has been answered: `operation status`. */
  readonly seen = new Set<string>();
  readonly #ajv = new Ajv2020({ strict: false, validateFormats: false });
  readonly #validators = new Map<string, ValidateFunction>();

  constructor(readonly document: ApiDocument) {
    this.#ajv.addSchema(document, 'api');
  }

  get operations(): string[] {
    return Object.values(this.document.paths).flatMap(methods =>
      Object.values(methods).map(({ operationId }) => operationId),
    );
  }

  /** @param path below `/api/v1`, without its query. HEAD counts as GET. @throws AssertionError for an answer that the document does not have */
  check(method: string, path: string, status: number, body: Buffer): void {
    const template = Object.keys(this.document.paths)
      .filter(template => matches(template, path))
      // The one that has a word where the other has a name.
      .sort((a, b) => a.split('{').length - b.split('{').length)[0];
    const verb = method === 'HEAD' ? 'get' : method.toLowerCase();
    const operation = template === undefined ? undefined : this.document.paths[template]![verb];
    // What is not in the document is not served.
    if (!operation) {
      assert.ok([400, 401, 403, 404, 405].includes(status), `${method} ${path}: ${status}`);
      return;
    }
    const response = operation.responses[status];
    assert.ok(response, `${operation.operationId} answers ${status}, which is not documented: ${body}`);
    this.seen.add(`${operation.operationId} ${status}`);
    if (method === 'HEAD' || !response.content) {
      assert.equal(body.length, 0, operation.operationId);
      return;
    }
    if ('text/plain' in response.content) return;
    const pointer = ['paths', template!, verb, 'responses', String(status), 'content', 'application/json', 'schema'];
    const ref = `api#/${pointer.map(part => encodeURIComponent(part.replaceAll('~', '~0').replaceAll('/', '~1'))).join('/')}`;
    const validate = this.#validators.get(ref) ?? this.#ajv.compile({ $ref: ref });
    this.#validators.set(ref, validate);
    assert.ok(
      validate(JSON.parse(body.toString())),
      `${operation.operationId} ${status}: ${JSON.stringify(validate.errors)} ${body}`,
    );
  }
}

function matches(template: string, path: string): boolean {
  const pattern = template
    .replaceAll('.', '\\.')
    .replace('{repository}', '.*')
    .replace(/\{\w+\}/, '[^/]+');
  return new RegExp(`^${pattern}$`, 's').test(path);
}
