import { z } from 'zod';
import type { CheckedPolicy, PolicyDocument } from '../auth/policy-document.js';
import { PolicyChanged } from '../auth/policy-document.js';
import { OperatorError, RegistryError } from '../errors.js';
import { type Call, type Route, route } from './route.js';

/** JSON doubles a character at worst. In bytes. */
const LARGEST_POLICY = 4 * 1024 * 1024;

const text = z
  .string()
  .max(LARGEST_POLICY)
  .describe('The policy as docs/access.md has it, in YAML, with its comments.');

const findings = z
  .strictObject({
    rules: z.int().min(0),
    groups: z.int().min(0),
    findings: z
      .array(z.strictObject({ place: z.string(), what: z.string() }))
      .describe('What is allowed, and hardly meant: rules that can never allow anything.'),
  })
  .meta({ id: 'PolicyCheck' });

const ETAG = 'Of the text: another one whenever it is.';

export const POLICY: readonly Route[] = [
  route({
    method: 'GET',
    path: '/policy',
    id: 'getPolicy',
    about: 'The policy.',
    access: 'administrator',
    status: 200,
    answer: z.strictObject({ text }),
    errors: [404],
    gives: { ETag: ETAG },
    handler: async call => {
      const { text, version } = await written(() => documentOf(call).read());
      return { value: { text }, headers: { ETag: `"${version}"` } };
    },
  }),
  route({
    method: 'PUT',
    path: '/policy',
    id: 'replacePolicy',
    changes: 'rights.change',
    about:
      'Replaces the policy, as a whole or not at all. It counts when it is answered, in other processes within a second. One that would take their own power from who sends it is refused.',
    access: 'administrator',
    body: z.strictObject({ text }),
    largestBody: 2 * LARGEST_POLICY,
    status: 200,
    answer: findings,
    errors: [404, 409, 412],
    requires: { 'If-Match': 'The ETag of the policy that is replaced.' },
    gives: { ETag: ETAG },
    handler: async call => {
      const document = documentOf(call);
      const version = /^"([\w-]+)"$/.exec(call.request.headers['if-match'] ?? '')?.[1];
      if (version === undefined)
        throw new RegistryError('INVALID', { status: 428, message: 'If-Match must hold the ETag of the policy' });
      const { policy } = await checkedBy(document, call.body.text);
      if (!call.services.authoriseBy(policy)(call.identity, 'administer'))
        throw new RegistryError('CONFLICT', {
          message: 'by this policy you would no longer be an administrator: have another one take your power',
        });
      const replaced = await written(() => document.replace(call.body.text, version));
      return {
        value: told(replaced),
        what: { before: version, after: replaced.version },
        headers: { ETag: `"${replaced.version}"` },
      };
    },
  }),
  route({
    method: 'POST',
    path: '/policy/check',
    id: 'checkPolicy',
    about: 'Says what a text would come to as the policy, and changes nothing.',
    access: 'administrator',
    body: z.strictObject({ text }),
    largestBody: 2 * LARGEST_POLICY,
    status: 200,
    answer: findings,
    errors: [404],
    handler: async call => ({ value: told(await checkedBy(documentOf(call), call.body.text)) }),
  }),
];

function documentOf({ services }: Pick<Call, 'services'>): PolicyDocument {
  if (services.policyDocument) return services.policyDocument;
  throw new RegistryError('NOT_FOUND', { message: 'this registry has no policy (access.policy)' });
}

function told({ policy, findings }: CheckedPolicy) {
  return { rules: policy.rules.length, groups: policy.groups.size, findings: [...findings] };
}

async function checkedBy(document: PolicyDocument, text: string): Promise<CheckedPolicy> {
  return document.check(text).catch(error => {
    if (!(error instanceof OperatorError)) throw error;
    const { message, fix } = error;
    throw new RegistryError('INVALID', { message: fix === undefined ? message : `${message}; ${fix}` });
  });
}

async function written<T>(task: () => Promise<T>): Promise<T> {
  return task().catch(error => {
    if (error instanceof PolicyChanged)
      throw new RegistryError('CHANGED', { message: 'the policy has been changed since it was read: read it again' });
    if (!(error instanceof OperatorError)) throw error;
    throw new RegistryError('UNAVAILABLE', {
      message: 'the registry cannot read or write the file of its policy: its log says why',
      cause: error,
    });
  });
}
